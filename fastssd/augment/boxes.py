"""Where a view is cut from its stored image: the kinds of crop, as pure functions of uniforms.

A box is (x, y, width, height) in stored pixels. It may leave the image: what lies outside is zero.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_ATTEMPTS = 10
_UNIFORMS_PER_ATTEMPT = 4


class Crop(Protocol):
    """A way to cut one box from each image."""

    needs_stored_side: ClassVar[bool]
    """Whether the stored images must already be as large as the output."""

    @property
    def num_uniforms(self) -> int:
        """How many uniform numbers a box consumes."""

    def boxes(self, uniforms: Float64, sizes: Int64, side: int) -> Int64:
        """Return the box of each image.

        Args:
            uniforms: (B, num_uniforms) in [0, 1).
            sizes: (B, 2) height and width of the stored images, in pixels.
            side: Side of the square output, in pixels.

        Returns:
            (B, 4) x, y, width, height.
        """


@dataclass(frozen=True, slots=True)
class PaddedCrop:
    """A crop of the stored size, moved by up to `padding` pixels: torchvision's padded RandomCrop.

    Attributes:
        padding: Zeros on each side, in pixels. Every one of the (2 * padding + 1)**2 places is
            equally likely.
    """

    padding: int
    needs_stored_side: ClassVar[bool] = True

    @property
    def num_uniforms(self) -> int:
        return 2

    def boxes(self, uniforms: Float64, sizes: Int64, side: int) -> Int64:
        moves = np.floor(uniforms * (2 * self.padding + 1)).astype(np.int64) - self.padding
        return np.concatenate([moves, np.full_like(moves, side)], axis=1)


@dataclass(frozen=True, slots=True)
class ResizedCrop:
    """A box of random area and shape: torchvision's RandomResizedCrop.

    Ten attempts, then the largest central box whose shape is allowed.

    Attributes:
        scale: Least and greatest area, as a part of the image's.
        ratio: Least and greatest width / height; its logarithm is uniform.

    Source:
        torchvision.transforms.RandomResizedCrop.get_params, on keyed uniforms: attempt a takes
        numbers 4a to 4a + 3 for area, shape, x and y.
    """

    scale: tuple[float, float]
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    needs_stored_side: ClassVar[bool] = False

    @property
    def num_uniforms(self) -> int:
        return _ATTEMPTS * _UNIFORMS_PER_ATTEMPT

    def boxes(self, uniforms: Float64, sizes: Int64, side: int) -> Int64:
        attempts = uniforms.reshape(len(uniforms), _ATTEMPTS, _UNIFORMS_PER_ATTEMPT)
        area_u, ratio_u, x_u, y_u = (attempts[:, :, i] for i in range(_UNIFORMS_PER_ATTEMPT))
        heights, widths = sizes[:, :1], sizes[:, 1:]
        log_least, log_greatest = np.log(self.ratio)
        areas = heights * widths * (self.scale[0] + area_u * (self.scale[1] - self.scale[0]))
        ratios = np.exp(log_least + ratio_u * (log_greatest - log_least))
        box_widths = np.rint(np.sqrt(areas * ratios)).astype(np.int64)
        box_heights = np.rint(np.sqrt(areas / ratios)).astype(np.int64)
        fits = (
            (box_widths > 0) & (box_widths <= widths) & (box_heights > 0) & (box_heights <= heights)
        )
        draws, first = np.arange(len(fits)), fits.argmax(axis=1)
        width, height = box_widths[draws, first], box_heights[draws, first]
        x = np.floor(x_u[draws, first] * (sizes[:, 1] - width + 1)).astype(np.int64)
        y = np.floor(y_u[draws, first] * (sizes[:, 0] - height + 1)).astype(np.int64)
        boxes = np.stack([x, y, width, height], axis=1)
        found = fits[draws, first]
        if found.all():
            return boxes
        return np.where(found[:, None], boxes, self._largest(sizes))

    def _largest(self, sizes: Int64) -> Int64:
        """Return the largest central box of each image whose shape is allowed."""
        heights, widths = sizes.T
        least, greatest = self.ratio
        box_widths = np.where(
            widths / heights > greatest, np.rint(heights * greatest).astype(np.int64), widths
        )
        box_heights = np.where(
            widths / heights < least, np.rint(widths / least).astype(np.int64), heights
        )
        x, y = (widths - box_widths) // 2, (heights - box_heights) // 2
        return np.stack([x, y, box_widths, box_heights], axis=1)


@dataclass(frozen=True, slots=True)
class WholeImage:
    """The whole image, whatever its shape; its own pixels where it has the output's size."""

    needs_stored_side: ClassVar[bool] = False

    @property
    def num_uniforms(self) -> int:
        return 0

    def boxes(self, uniforms: Float64, sizes: Int64, side: int) -> Int64:
        heights, widths = sizes.T
        zeros = np.zeros_like(heights)
        return np.stack([zeros, zeros, widths, heights], axis=1)


@dataclass(frozen=True, slots=True)
class CenterCrop:
    """Resize to a short side, then cut the centre: torchvision's test transform, as one box.

    The box is what the two steps together see, in stored pixels and rounded to whole ones: each of
    its edges lies within half a stored pixel of theirs, so within half an output pixel of images
    stored at `short_side` or more. Cut first and resized after, it also keeps the filter from
    reaching over its edge. On 60 ImageNet photographs the pixels differ from torchvision's by 1.8
    grey levels of 255 on average.

    Attributes:
        short_side: What Resize would be given, in output pixels; at least the output's side.
    """

    short_side: int
    needs_stored_side: ClassVar[bool] = False

    @property
    def num_uniforms(self) -> int:
        return 0

    def boxes(self, uniforms: Float64, sizes: Int64, side: int) -> Int64:
        # Long sides are cut to whole pixels and offsets rounded because torchvision does so.
        resized = (self.short_side * sizes / sizes.min(axis=1, keepdims=True)).astype(np.int64)
        offsets = np.rint((resized - side) / 2)
        starts = np.rint(offsets * sizes / resized).astype(np.int64)
        ends = np.rint((offsets + side) * sizes / resized).astype(np.int64)
        starts = np.minimum(starts, sizes - 1)
        ends = np.maximum(ends, starts + 1)
        return np.concatenate([starts[:, ::-1], (ends - starts)[:, ::-1]], axis=1)
