"""Cutting boxes out of decoded pixels and bringing them to the output size."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from fastssd.data.storage.image import UInt8

FILTER = "bilinear-antialias"


def crop(pixels: UInt8, box: NDArray[np.int64]) -> UInt8:
    """Cut a box out of an image, with zeros where it leaves the image.

    Args:
        pixels: (height, width, 3) uint8.
        box: (4,) x, y, width, height.

    Returns:
        (box height, box width, 3) uint8; a view of `pixels` where the box lies inside.
    """
    x, y, width, height = (int(value) for value in box)
    if width < 1 or height < 1:
        raise ValueError(f"a box of {width} x {height} pixels")
    rows, columns = pixels.shape[:2]
    if x >= 0 and y >= 0 and x + width <= columns and y + height <= rows:
        return pixels[y : y + height, x : x + width]
    result = np.zeros((height, width, 3), dtype=np.uint8)
    top, bottom = max(y, 0), min(y + height, rows)
    left, right = max(x, 0), min(x + width, columns)
    if top < bottom and left < right:
        result[top - y : bottom - y, left - x : right - x] = pixels[top:bottom, left:right]
    return result


def crop_resized(pixels: UInt8, box: NDArray[np.int64], out: UInt8) -> None:
    """Write a box of an image into `out`, resized by antialiased bilinear interpolation.

    A box that has the output's size is copied, not resampled. Releases the GIL while resizing.

    Args:
        pixels: (height, width, 3) uint8.
        box: (4,) x, y, width, height.
        out: (S, S, 3) uint8, overwritten.
    """
    cut = crop(pixels, box)
    if cut.shape == out.shape:
        out[...] = cut
        return
    # A crop's rows do not lie together; the kernel for uint8 wants channels-last memory that does
    # (and, in torch 2.14, fails an internal assertion on one-pixel-wide images in other layouts).
    image = torch.from_numpy(np.ascontiguousarray(cut)).permute(2, 0, 1)[None]
    resized = interpolate(image, size=out.shape[:2], mode="bilinear", antialias=True)
    out[...] = resized[0].permute(1, 2, 0).numpy()
