"""The random parameters of a recipe's operations, drawn on the host for each (sample, view).

Every operation of every role draws from a field of its own, so that adding or dropping one leaves
the others' numbers as they were.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastssd.augment.recipe import ColourJitter, GaussianBlur, Recipe
from fastssd.core import counter_rng

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


_Uniforms = Mapping[Operation, NDArray[np.float64]]


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
        numbers: NDArray[np.float64] = self._uniforms(role, [operation], count)[0]
        return numbers

    def by_operation(
        self, role: Role, operations: Sequence[Operation]
    ) -> dict[Operation, NDArray[np.float64]]:
        """Return (B, 4) numbers in [0, 1) for each operation, in one go."""
        return dict(zip(operations, self._uniforms(role, operations, 4), strict=True))

    def _uniforms(
        self, role: Role, operations: Sequence[Operation], count: int
    ) -> NDArray[np.float64]:
        """Return (operations, B, count) numbers in [0, 1)."""
        return counter_rng.uniforms_by_field(
            self._seed,
            self._stream,
            self._samples,
            self._views,
            fields=[(role << 8) | operation for operation in operations],
            count=count,
        )


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
    wanted: list[Operation] = []
    if recipe.flip > 0:
        wanted += [Operation.FLIP]
    if recipe.jitter is not None:
        wanted += [Operation.JITTER_CHOICE, Operation.JITTER_FACTORS, Operation.JITTER_ORDER]
    if recipe.grayscale > 0:
        wanted += [Operation.GRAYSCALE]
    if recipe.blur is not None:
        wanted += [Operation.BLUR_CHOICE, Operation.BLUR_SIGMA]
    uniforms = draws.by_operation(role, wanted)
    found: Parameters = {}
    if recipe.flip > 0:
        found["flip"] = uniforms[Operation.FLIP][:, 0] < recipe.flip
    if recipe.jitter is not None:
        found |= _jitter_parameters(recipe.jitter, uniforms)
    if recipe.grayscale > 0:
        found["grayscale"] = uniforms[Operation.GRAYSCALE][:, 0] < recipe.grayscale
    if recipe.blur is not None:
        found["blur"] = _blur_sigmas(recipe.blur, uniforms)
    return found


def quarter_turns(draws: KeyedDraws) -> NDArray[np.int64]:
    """Return (B,) quarter turns of the rotation task, uniform in 0 to 3."""
    uniforms = draws.uniforms(Role.QUERY, Operation.TURNS, 1)[:, 0]
    return np.floor(uniforms * 4).astype(np.int64)


def _jitter_parameters(jitter: ColourJitter, uniforms: _Uniforms) -> Parameters:
    """Return the factors of a colour jitter and their order."""
    reaches = np.array([jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue])
    neutral = np.array([1.0, 1.0, 1.0, 0.0])
    least, greatest = neutral - reaches, neutral + reaches
    least[:NUM_BLENDS] = np.maximum(least[:NUM_BLENDS], 0)
    # The fourth numbers are drawn even without hue: a recipe that adds it keeps the other three.
    factors = least + (greatest - least) * uniforms[Operation.JITTER_FACTORS]
    applies = uniforms[Operation.JITTER_CHOICE][:, :1] < jitter.probability
    factors = np.where(applies, factors, neutral)
    count = NUM_BLENDS + (jitter.hue > 0)
    order = np.argsort(uniforms[Operation.JITTER_ORDER][:, :count], kind="stable")
    return {"jitter": factors[:, :count].astype(np.float32), "order": order.astype(np.int64)}


def _blur_sigmas(blur: GaussianBlur, uniforms: _Uniforms) -> NDArray[np.float32]:
    """Return the width of each image's blur, 0 where it has none."""
    least, greatest = blur.sigma
    sigmas = least + (greatest - least) * uniforms[Operation.BLUR_SIGMA][:, 0]
    applies = uniforms[Operation.BLUR_CHOICE][:, 0] < blur.probability
    return np.where(applies, sigmas, 0).astype(np.float32)
