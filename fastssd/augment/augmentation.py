"""The augmentation of a stage: from draws to boxes and parameters, from pixels to views.

The first two run on the host and are pure functions of the draws. The last runs on the device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastssd.augment import blur, colour
from fastssd.augment.boxes import Crop
from fastssd.augment.geometry import flip_chosen, turn_quarters
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

_CPU_CHUNK_PIXELS = 2**17
"""Pixels that a CPU takes at once, so that intermediate results stay in its cache: of 2**14 to
2**19, measured on 2 cores with images of 32 and 224 pixels a side."""


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
        self._constants: dict[tuple[object, ...], Tensor] = {}

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
        # Half precision has fewer steps than a byte: autocast must not reach the blur.
        with torch.autocast(pixels.device.type, enabled=False):
            finished = [
                self._finish(crops, recipe, _of_role(parameters, role))
                for crops, (role, recipe) in zip(pixels, self._recipes.items(), strict=True)
            ]
            query = finished[0]
            key = finished[1] if len(finished) > 1 else None
            if not self._rotate:
                return AugmentedViews(query, key)
            turns = parameters["turns"]
            return AugmentedViews(query, key, turn_quarters(query, turns), turns)

    def _finish(self, images: Tensor, recipe: Recipe, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return (B, 3, S, S) normalised images of (B, S, S, 3) bytes."""
        finished = torch.empty(images.shape, device=images.device)
        if images.device.type == "cpu":
            chunk = max(1, _CPU_CHUNK_PIXELS // recipe.size**2)
        else:
            chunk = len(images)
        for first in range(0, len(images), max(1, chunk)):
            rows = slice(first, first + chunk)
            of_rows = {name: values[rows] for name, values in parameters.items()}
            self._finish_chunk(images[rows], recipe, of_rows, out=finished[rows])
        return finished.permute(0, 3, 1, 2)

    def _finish_chunk(
        self, images: Tensor, recipe: Recipe, parameters: Mapping[str, Tensor], *, out: Tensor
    ) -> None:
        """Write (B, S, S, 3) normalised images of as many bytes to `out`."""
        if "flip" in parameters:
            images = flip_chosen(images, parameters["flip"])
        scale = self._constant("scale", images.device)
        shift = self._constant("shift", images.device)
        if not recipe.recolours:
            torch.addcmul(shift, images.float(), scale / 255, out=out)
            return
        planes = images.permute(3, 0, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        planes = planes.div_(255)
        if "jitter" in parameters:
            planes = colour.jitter(planes, parameters["jitter"], parameters["order"])
        if "grayscale" in parameters:
            planes = colour.grayscale(planes, parameters["grayscale"])
        if recipe.blur is not None:
            taps = self._taps(recipe.size, recipe.blur.kernel_size, images.device)
            planes = blur.blur(planes, parameters["blur"], taps)
        torch.addcmul(shift, planes.permute(1, 2, 3, 0), scale, out=out)

    def _constant(self, name: str, device: torch.device) -> Tensor:
        """Return (3,) scale or shift; sent to the device once, as sending waits for it."""
        if (name, device) not in self._constants:
            values = self._scale if name == "scale" else self._shift
            self._constants[name, device] = torch.tensor(values, device=device)
        return self._constants[name, device]

    def _taps(self, side: int, kernel_size: int, device: torch.device) -> Tensor:
        """Return the taps of a blur, made once for a device."""
        key = ("taps", side, kernel_size, device)
        if key not in self._constants:
            self._constants[key] = blur.reflected_taps(side, kernel_size, device=device)
        return self._constants[key]

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
