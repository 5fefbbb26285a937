"""What every storage format offers: reading by sample, and writing one sample after another."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastssd.data.storage.image import StoredImage

Int32 = NDArray[np.int32]


class Storage(Protocol):
    """Random access to the images of one split; safe to read from several threads."""

    @property
    def sizes(self) -> Int32:
        """(N, 2) int32 height and width of every image, in pixels."""

    def __len__(self) -> int: ...

    def read(self, sample: int) -> StoredImage:
        """Return one image.

        Raises:
            DataError: If the file does not hold it; names the file and the sample.
        """


class StorageWriter(Protocol):
    """Writes the images of one split in the order of its samples."""

    def append(self, image: StoredImage, *, height: int, width: int, label: int) -> None:
        """Add the next sample.

        Raises:
            ValueError: If the format cannot hold such an image; the message is the reason alone,
                and nothing was added.
        """

    def finish(self) -> None:
        """Complete the split's files and flush them to disk. Nothing can be appended after."""

    def abandon(self) -> None:
        """Close the files as they are; harmless after `finish`."""
