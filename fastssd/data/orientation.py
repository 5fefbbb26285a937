"""Exif orientations: where an upright box lies in the stored image, and turning what was cut there.

An orientation is the number 1 to 8 of the Exif standard; 1 is upright. Boxes are chosen on the
image as a person sees it; storages and decoders know only the image as it lies in its file.
"""

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
UPRIGHT = 1

# By orientation: is the stored image mirrored left to right, mirrored top to bottom, and are its
# axes exchanged after that, on the way to the upright image. Entry 0 is not in use.
_MIRROR_X = np.array([0, 0, 1, 1, 0, 0, 0, 1, 1], dtype=bool)
_MIRROR_Y = np.array([0, 0, 0, 1, 1, 0, 1, 1, 0], dtype=bool)
_EXCHANGE = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1], dtype=bool)


def turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return an image, or a square cut from it, as a person should see it.

    Args:
        pixels: (..., height, width, channels).
        orientation: 1 to 8.

    Returns:
        A view of `pixels`, with height and width exchanged for 5 to 8.
    """
    if _MIRROR_X[orientation]:
        pixels = pixels[..., :, ::-1, :]
    if _MIRROR_Y[orientation]:
        pixels = pixels[..., ::-1, :, :]
    return pixels.swapaxes(-3, -2) if _EXCHANGE[orientation] else pixels


def turn_batch(pixels: NDArray[np.uint8], orientations: NDArray[np.uint8]) -> None:
    """Turn the images of a batch in place.

    Args:
        pixels: (V, B, S, S, 3) views of B images, square.
        orientations: (B,) uint8.
    """
    for position in np.flatnonzero(orientations != UPRIGHT):
        views = pixels[:, position]
        views[...] = turn(views.copy(), int(orientations[position]))


def upright_sizes(
    sizes: NDArray[np.int32], orientations: NDArray[np.uint8] | None
) -> NDArray[np.int32]:
    """Return (N, 2) height and width as a person sees them, from those of the stored images."""
    if orientations is None:
        return sizes
    return np.where(_EXCHANGE[orientations][:, None], sizes[:, ::-1], sizes)


def stored_boxes(boxes: Int64, orientations: NDArray[np.uint8], sizes: NDArray[np.int32]) -> Int64:
    """Return where boxes of upright images lie in the stored images.

    Args:
        boxes: (B, V, 4) x, y, width, height in pixels of the upright image; may leave it.
        orientations: (B,) uint8.
        sizes: (B, 2) height and width of the stored images.

    Returns:
        (B, V, 4) boxes in stored pixels.
    """
    exchange = _EXCHANGE[orientations][:, None, None]
    result: Int64 = np.where(exchange, boxes[..., [1, 0, 3, 2]], boxes)
    for axis, mirror in ((0, _MIRROR_X), (1, _MIRROR_Y)):
        length = sizes[:, 1 - axis].astype(np.int64)[:, None]
        mirrored = length - result[..., axis] - result[..., axis + 2]
        result[..., axis] = np.where(mirror[orientations][:, None], mirrored, result[..., axis])
    return result
