"""What every decoder offers, and how it says that an image is damaged."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastssd.data.storage.image import StoredImage, UInt8
from fastssd.errors import DataError

Int64 = NDArray[np.int64]


class DecodeError(DataError):
    """One image of a batch is damaged.

    The decoder does not know which sample it was given: the caller names it, by `position`.

    Attributes:
        position: Which image of the batch.
        reason: What the decoder found, without the name of a file.
    """

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"image {position} of the batch cannot be decoded: {reason}")
        self.position = position
        self.reason = reason


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

    def decode(self, images: Sequence[StoredImage], boxes: Int64, size: int) -> UInt8:
        """Decode each image once and cut its boxes out.

        Args:
            images: B images.
            boxes: (B, V, 4) int64 x, y, width, height in stored pixels. A box may leave the
                image: the pixels outside are zero. Width and height are positive.
            size: Side of the output, S.

        Returns:
            (V, B, S, S, 3) uint8, RGB.

        Raises:
            DecodeError: For the first image of the batch that is damaged.
        """
