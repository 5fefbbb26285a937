"""What every decoder offers, and how it says that images are damaged."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastssd.data.storage.image import StoredImage, UInt8
from fastssd.errors import DataError

Int64 = NDArray[np.int64]


class DecodeError(DataError):
    """Images of a batch are damaged.

    The decoder does not know which samples it was given: the caller names them, by position.

    Args:
        position: The first damaged image of the batch.
        reason: What the decoder found there, without the name of a file.
        damaged: The reason of every damaged image by its position; that one alone by default.

    Attributes:
        position: As the argument.
        reason: As the argument.
        damaged: As the argument.
    """

    def __init__(
        self, position: int, reason: str, damaged: Mapping[int, str] | None = None
    ) -> None:
        super().__init__(f"image {position} of the batch cannot be decoded: {reason}")
        self.position = position
        self.reason = reason
        self.damaged: dict[int, str] = {position: reason} if damaged is None else dict(damaged)

    @classmethod
    def of(cls, damaged: Mapping[int, str]) -> "DecodeError":
        """Return the error for these reasons by position, at least one."""
        first = min(damaged)
        return cls(first, damaged[first], damaged)


class Decoder(Protocol):
    """Turns stored images and boxes into pixels. Safe to call from several threads.

    `name` and `filter` decide the pixels, so they go into a table's manifest.
    """

    @property
    def name(self) -> str:
        """The decoder's key in the registry."""

    @property
    def filter(self) -> str:
        """How a box is brought to the output size."""

    def decode(
        self,
        images: Sequence[StoredImage],
        boxes: Int64,
        size: int,
        *,
        out: UInt8 | None = None,
        turns: NDArray[np.uint8] | None = None,
    ) -> UInt8:
        """Decode each image once and cut its boxes out.

        Args:
            images: B images.
            boxes: (B, V, 4) int64 x, y, width, height in stored pixels. A box may leave the
                image: the pixels outside are zero. Width and height are positive.
            size: Side of the output, S.
            out: (V, B, S, S, 3) uint8, contiguous: filled and returned; a new array by default.
            turns: (B,) uint8, which of the eight symmetries of the square is applied to an
                image's finished crops: Exif's orientation codes, 1 to 8. 1 leaves them, 2 mirrors
                left to right. None by default.

        Returns:
            (V, B, S, S, 3) uint8, RGB.

        Raises:
            DecodeError: If images of the batch are damaged; names all of them. The others' pixels
                in `out` are right, theirs are not to be used.
        """


def output_of(
    images: Sequence[StoredImage],
    boxes: Int64,
    size: int,
    out: UInt8 | None,
    turns: NDArray[np.uint8] | None,
) -> UInt8:
    """Return where a decoder writes: `out`, or a new array.

    Raises:
        ValueError: If the arguments of `Decoder.decode` do not belong together.
    """
    count = len(images)
    if boxes.ndim != 3 or boxes.shape[0] != count or boxes.shape[2] != 4:
        raise ValueError(f"boxes of shape {boxes.shape} for {count} images")
    if boxes[:, :, 2:].min(initial=1) < 1:
        raise ValueError("a box without pixels")
    if size < 1:
        raise ValueError(f"an output of {size} pixels a side")
    if turns is not None and (
        turns.shape != (count,) or turns.min(initial=1) < 1 or turns.max(initial=1) > 8
    ):
        raise ValueError(f"turns of {count} images are as many codes 1 to 8, not {turns}")
    shape = (boxes.shape[1], count, size, size, 3)
    if out is None:
        return np.empty(shape, dtype=np.uint8)
    if out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(f"out is {out.dtype} {out.shape}, not contiguous uint8 {shape}")
    return out
