"""The random parameters of a recipe's operations, drawn on the host for each (sample, view).

Every operation of every role draws from a field of its own, so that adding or dropping one leaves
the others' numbers as they were.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastssd import keyed
from fastssd.augment.recipe import ColourJitter, GaussianBlur, Recipe

Parameters = dict[str, NDArray[np.generic]]

NUM_BLENDS = 3
"""Brightness, contrast and saturation: what every jitter has. Hue is the fourth."""


class Role(IntEnum):
    """Which of an image's crops a draw is for."""

    QUERY = 0
    KEY = 1


class Operation(IntEnum):
    """What a draw is for within a role. The numbers are part of every run: never reuse one."""

    BOX = 0
    FLIP = 1
    JITTER_CHOICE = 2
    JITTER_FACTORS = 3
    JITTER_ORDER = 4
    GRAYSCALE = 5
    BLUR_CHOICE = 6
    BLUR_SIGMA = 7
    TURNS = 8


class KeyedDraws:
    """Uniform numbers for a batch of draws, by role and operation.

    Args:
        seed: The run's seed.
        stream: What the pixels are for.
        samples: (B,) rows of the split.
        views: (B,) view numbers.
    """

    def __init__(self, seed: int, stream: str, samples: ArrayLike, views: ArrayLike) -> None:
        self._seed, self._stream = seed, stream
        self._samples, self._views = samples, views

    def uniforms(self, role: Role, operation: Operation, count: int) -> NDArray[np.float64]:
        """Return (B, count) numbers in [0, 1)."""
        return keyed.uniforms(
            self._seed,
            self._stream,
            self._samples,
            self._views,
            field=(role << 8) | operation,
            count=count,
        )

    def chosen(self, role: Role, operation: Operation, probability: float) -> NDArray[np.bool_]:
        """Return (B,) which draws an operation of this probability applies to."""
        return self.uniforms(role, operation, 1)[:, 0] < probability


def operation_parameters(recipe: Recipe, draws: KeyedDraws, role: Role) -> Parameters:
    """Return the parameters of the recipe's operations, the crop aside.

    Only those that the recipe has are there; each has B as its first axis:

    * ``flip``: (B,) bool.
    * ``jitter``: (B, 3 or 4) float32 factors of brightness, contrast, saturation and, where the
      recipe has one, the hue shift; 1, 1, 1, 0 where the jitter does not apply.
    * ``order``: (B, 3 or 4) int64, the order in which those apply, as indices into them.
    * ``grayscale``: (B,) bool.
    * ``blur``: (B,) float32 sigma in pixels, 0 where the blur does not apply.
    """
    found: Parameters = {}
    if recipe.flip > 0:
        found["flip"] = draws.chosen(role, Operation.FLIP, recipe.flip)
    if recipe.jitter is not None:
        found |= _jitter_parameters(recipe.jitter, draws, role)
    if recipe.grayscale > 0:
        found["grayscale"] = draws.chosen(role, Operation.GRAYSCALE, recipe.grayscale)
    if recipe.blur is not None:
        found["blur"] = _blur_sigmas(recipe.blur, draws, role)
    return found


def quarter_turns(draws: KeyedDraws) -> NDArray[np.int64]:
    """Return (B,) quarter turns of the rotation task, uniform in 0 to 3."""
    uniforms = draws.uniforms(Role.QUERY, Operation.TURNS, 1)[:, 0]
    return np.floor(uniforms * 4).astype(np.int64)


def _jitter_parameters(jitter: ColourJitter, draws: KeyedDraws, role: Role) -> Parameters:
    """Return the factors of a colour jitter and their order."""
    reaches = np.array([jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue])
    neutral = np.array([1.0, 1.0, 1.0, 0.0])
    least, greatest = neutral - reaches, neutral + reaches
    least[:NUM_BLENDS] = np.maximum(least[:NUM_BLENDS], 0)
    # The fourth numbers are drawn even without hue: a recipe that adds it keeps the other three.
    factors = least + (greatest - least) * draws.uniforms(role, Operation.JITTER_FACTORS, 4)
    applies = draws.chosen(role, Operation.JITTER_CHOICE, jitter.probability)
    factors = np.where(applies[:, None], factors, neutral)
    count = NUM_BLENDS + (jitter.hue > 0)
    order = np.argsort(draws.uniforms(role, Operation.JITTER_ORDER, 4)[:, :count], kind="stable")
    return {"jitter": factors[:, :count].astype(np.float32), "order": order.astype(np.int64)}


def _blur_sigmas(blur: GaussianBlur, draws: KeyedDraws, role: Role) -> NDArray[np.float32]:
    """Return the width of each image's blur, 0 where it has none."""
    least, greatest = blur.sigma
    sigmas = least + (greatest - least) * draws.uniforms(role, Operation.BLUR_SIGMA, 1)[:, 0]
    applies = draws.chosen(role, Operation.BLUR_CHOICE, blur.probability)
    return np.where(applies, sigmas, 0).astype(np.float32)
