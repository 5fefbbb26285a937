"""The augmentation of a stage: from draws to boxes and parameters, from pixels to views.

The first two run on the host and are pure functions of the draws. The last runs on the device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastssd.augment.boxes import Crop
from fastssd.augment.executor import Task
from fastssd.augment.executors import Choice, choose_executor
from fastssd.augment.parameters import (
    KeyedDraws,
    Operation,
    Parameters,
    Role,
    operation_parameters,
    quarter_turns,
)
from fastssd.augment.recipe import Recipe
from fastssd.errors import ConfigError


@dataclass(frozen=True, slots=True)
class AugmentedViews:
    """A batch as the networks take it.

    Attributes:
        query: (B, 3, S, S) float32, channels last in memory, normalised.
        key: The same for the key's crop, where there is one.
        rotated: The query, each image turned by its own number of quarter turns.
        turns: (B,) int64, those numbers.
    """

    query: Tensor
    key: Tensor | None = None
    rotated: Tensor | None = None
    turns: Tensor | None = None


class Augmentation:
    """The crops and the device's part of one stage's augmentation.

    Keeps nothing but constants: the same draw gives the same view in every batch.

    Args:
        query: Recipe of the images to classify.
        key: Recipe of a second crop of each image, if wanted.
        rotate: Whether the query is also wanted turned, for the rotation task.
        mean: Of the three channels, in [0, 1].
        std: Of the three channels, in the same unit.
        seed: The run's seed.
        stream: What the pixels are for; stages that must not share crops differ in it.

    Raises:
        ConfigError: If the roles differ in size, or mean or std are not three numbers.
    """

    def __init__(
        self,
        query: Recipe,
        *,
        key: Recipe | None = None,
        rotate: bool = False,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        stream: str,
    ) -> None:
        if key is not None and key.size != query.size:
            raise ConfigError(
                f"the query '{query.name}' makes images of {query.size} pixels a side and the key "
                f"'{key.name}' of {key.size}: give both the same size"
            )
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ConfigError(
                f"mean={list(mean)} and std={list(std)} must be three numbers each, one a channel "
                "(RGB, of pixels in [0, 1]), and std positive"
            )
        self._recipes = {Role.QUERY: query} | ({} if key is None else {Role.KEY: key})
        self._rotate = rotate
        self._seed, self._stream = seed, stream
        # (x - mean) / std as one product and one sum.
        self._scale = [1 / s for s in std]
        self._shift = [-m / s for m, s in zip(mean, std, strict=True)]
        self._executors: dict[tuple[Role, torch.device], Choice] = {}

    @property
    def size(self) -> int:
        """Side of the square output, in pixels."""
        return self._recipes[Role.QUERY].size

    @property
    def crops(self) -> list[Crop]:
        """How each role's boxes are cut, V of them."""
        return [recipe.crop for recipe in self._recipes.values()]

    @property
    def num_crops(self) -> int:
        """Crops of each image that the decoder has to deliver."""
        return len(self._recipes)

    def boxes(self, samples: ArrayLike, views: ArrayLike, sizes: ArrayLike) -> NDArray[np.int64]:
        """Return where each crop is cut from its stored image.

        Args:
            samples: (B,) rows of the split.
            views: (B,) view numbers.
            sizes: (B, 2) height and width of the stored images, in pixels.

        Returns:
            (B, num_crops, 4) x, y, width, height in stored pixels. A box may leave its image;
            what lies outside is zero.

        Raises:
            ConfigError: If a recipe needs stored images of the output's size and one is not.
        """
        sizes = np.asarray(sizes, dtype=np.int64)
        draws = KeyedDraws(self._seed, self._stream, samples, views)
        boxes = np.empty((len(sizes), self.num_crops, 4), dtype=np.int64)
        for crop_number, (role, recipe) in enumerate(self._recipes.items()):
            crop = recipe.crop
            if crop.needs_stored_side:
                self._check_stored_sizes(recipe, np.asarray(samples), sizes)
            if crop.num_uniforms:
                uniforms = draws.uniforms(role, Operation.BOX, crop.num_uniforms)
            else:
                uniforms = np.empty((len(sizes), 0))
            boxes[:, crop_number] = crop.boxes(uniforms, sizes, recipe.size)
        return boxes

    def parameters(self, samples: ArrayLike, views: ArrayLike) -> Parameters:
        """Return what `apply` needs to know about each draw.

        Args:
            samples: (B,) rows of the split.
            views: (B,) view numbers.

        Returns:
            Arrays with B as their first axis, such as ``query.flip``, ``key.jitter`` and
            ``turns``; only those that the recipes need.
        """
        draws = KeyedDraws(self._seed, self._stream, samples, views)
        found: Parameters = {}
        for role, recipe in self._recipes.items():
            prefix = role.name.lower()
            for name, values in operation_parameters(recipe, draws, role).items():
                found[f"{prefix}.{name}"] = values
        if self._rotate:
            found["turns"] = quarter_turns(draws)
        return found

    @torch.no_grad()
    def apply(self, pixels: Tensor, parameters: Mapping[str, Tensor]) -> AugmentedViews:
        """Return the finished views of decoded crops, on the device where those are.

        Args:
            pixels: (num_crops, B, S, S, 3) uint8, RGB. Left as it is.
            parameters: Those of `parameters` for the same draws, on the same device.

        Raises:
            ValueError: If `pixels` has another shape or dtype.
        """
        if (
            pixels.dtype != torch.uint8
            or pixels.ndim != 5
            or pixels.shape[0] != self.num_crops
            or pixels.shape[2:] != (self.size, self.size, 3)
        ):
            raise ValueError(
                f"expected uint8 pixels of ({self.num_crops}, B, {self.size}, {self.size}, 3), "
                f"not {pixels.dtype} of {tuple(pixels.shape)}"
            )
        turns = parameters["turns"] if self._rotate else None
        finished, turned = self._finish(Role.QUERY, pixels[0], parameters, turns)
        key = None
        if Role.KEY in self._recipes:
            key, _ = self._finish(Role.KEY, pixels[1], parameters, None)
        return AugmentedViews(finished, key, turned, turns)

    def executor(self, device: torch.device) -> str:
        """Return what works on a device's images, and why nothing faster does, for a person."""
        choices = [self._choice(role, device) for role in self._recipes]
        lines = [
            f"{choice.executor.name} ({choice.reason})" if choice.reason else choice.executor.name
            for choice in choices
        ]
        return ", ".join(dict.fromkeys(lines))

    def _finish(
        self,
        role: Role,
        images: Tensor,
        parameters: Mapping[str, Tensor],
        turns: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return a role's finished images and, where turns are given, those turned."""
        executor = self._choice(role, images.device).executor
        return executor.finish(images, _of_role(parameters, role), turns)

    def _choice(self, role: Role, device: torch.device) -> Choice:
        """Return a role's executor; chosen once for a device."""
        if (role, device) not in self._executors:
            task = Task(self._recipes[role], self._scale, self._shift, device)
            self._executors[role, device] = choose_executor(task)
        return self._executors[role, device]

    @staticmethod
    def _check_stored_sizes(
        recipe: Recipe, samples: NDArray[np.generic], sizes: NDArray[np.int64]
    ) -> None:
        """Refuse images whose stored size a recipe cannot cut from."""
        wrong = (sizes != recipe.size).any(axis=1)
        if wrong.any():
            row = int(wrong.argmax())
            height, width = sizes[row]
            raise ConfigError(
                f"recipe '{recipe.name}' moves a crop of {recipe.size} x {recipe.size} over stored "
                f"images of the same size, but sample {samples[row]} is stored as {width} x "
                f"{height} (width x height): set the image size to the stored one, or choose a "
                "recipe that resizes, such as 'imagenet_plain'"
            )


def _of_role(parameters: Mapping[str, Tensor], role: Role) -> dict[str, Tensor]:
    """Return a role's parameters under their names within it."""
    prefix = f"{role.name.lower()}."
    return {
        name.removeprefix(prefix): values
        for name, values in parameters.items()
        if name.startswith(prefix)
    }
