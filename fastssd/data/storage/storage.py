"""What every storage format offers: reading by sample, and writing one sample after another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastssd.data.storage.image import StoredBatch, StoredImage, UInt8
from fastssd.errors import DataError

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class Storage(Protocol):
    """Random access to the images of one split; safe to read from several threads."""

    @property
    def sizes(self) -> Int32:
        """(N, 2) int32 height and width of every image, in pixels."""

    @property
    def mapped(self) -> Sequence[UInt8]:
        """The mapped files that images lie in, each whole."""

    def __len__(self) -> int: ...

    def read(self, sample: int) -> StoredImage:
        """Return one image.

        Raises:
            DataError: If the file does not hold it; names the file and the sample.
        """

    def read_batch(self, samples: Int64) -> StoredBatch:
        """Return several images, each as `read` gives it, without Python for each.

        Args:
            samples: (B,) int64; may repeat.

        Raises:
            DataError: As `read`, for the first that the file does not hold.
        """

    def locate(self, samples: Int64) -> StoredBatch:
        """Return where images lie, as `read_batch`, without a look at what lies there.

        For reading ahead: nothing waits for a disk.
        """


def check_samples(samples: Int64, num_samples: int, path: Path) -> None:
    """Refuse samples that a file does not hold.

    Raises:
        DataError: For the first of them.
    """
    outside = (samples < 0) | (samples >= num_samples)
    if outside.any():
        sample = int(samples[outside.argmax()])
        raise DataError(f"{path}: has no sample {sample}: it holds {num_samples}")


def address_of(array: UInt8) -> int:
    """Return where an array's first byte lies in memory."""
    address: int = array.__array_interface__["data"][0]
    return address


class StorageWriter(Protocol):
    """Writes the images of one split in the order of its samples."""

    def append(self, image: StoredImage, *, height: int, width: int, label: int) -> None:
        """Add the next sample.

        Raises:
            ValueError: If the format cannot hold such an image; the message is the reason alone,
                and nothing was added.
        """

    def finish(self) -> None:
        """Complete the split's files; `new_directory` brings them to the disk.

        Nothing can be appended after.
        """

    def abandon(self) -> None:
        """Close the files as they are; harmless after `finish`."""
