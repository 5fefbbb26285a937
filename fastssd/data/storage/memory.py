"""The `memory` format: uint8 pixels, one array where all sizes are equal, else packed with offsets.

Both files start with the same gap of `_HEADER_BYTES`. When every image turns out to have one size
the gap becomes the header of a `.npy` file; otherwise the first offset points behind it. So a
split is written in one pass without knowing the sizes beforehand.
"""

import io
from array import array
from pathlib import Path

import numpy as np

from fastssd.data.storage.advise import WriteBehind
from fastssd.data.storage.files import load_array, map_bytes, map_pixels, save_array
from fastssd.data.storage.image import MAX_PIXELS, RAW, StoredBatch, StoredImage, UInt8
from fastssd.data.storage.storage import Int32, Int64, Storage, address_of, check_samples
from fastssd.errors import DataError

_HEADER_BYTES = 128  # what NumPy writes for any uint8 array of four dimensions below 10**20 images


class EqualStorage:
    """Images of one size, as one mapped array.

    Attributes:
        pixels: (N * height * width, 3) uint8, mapped: those of all images, row by row.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._images = map_pixels(path)
        self.pixels: UInt8 = self._images.reshape(-1, 3)
        self.sizes: Int32 = np.tile(
            np.array(self._images.shape[1:3], np.int32), (len(self._images), 1)
        )

    @property
    def mapped(self) -> list[UInt8]:
        return [self._images]

    def __len__(self) -> int:
        return len(self._images)

    def read(self, sample: int) -> StoredImage:
        check_samples(np.array([sample]), len(self._images), self._path)
        return StoredImage(RAW, self._images[sample])

    def read_batch(self, samples: Int64) -> StoredBatch:
        return self.locate(samples)

    def locate(self, samples: Int64) -> StoredBatch:
        check_samples(samples, len(self._images), self._path)
        num_bytes = self._images[:1].nbytes
        return StoredBatch(
            addresses=(samples * num_bytes + address_of(self._images)).astype(np.uint64),
            num_bytes=np.full(len(samples), num_bytes, dtype=np.int64),
            raw=np.ones(len(samples), dtype=np.bool_),
            sizes=self.sizes[samples],
            owner=self._images,
        )


class PackedStorage:
    """Images of different sizes, one after another in one mapped file.

    Attributes:
        pixels: (P, 3) uint8, mapped: those of all images, row by row.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self._path = folder / f"{split}.pixels.bin"
        self._bytes = map_bytes(self._path)
        self._offsets: Int64 = load_array(folder / f"{split}.offsets.npy", dtype=np.int64, ndim=1)
        self.sizes: Int32 = load_array(folder / f"{split}.sizes.npy", dtype=np.int32, ndim=2)
        if self.sizes.shape != (len(self._offsets) - 1, 2):
            raise DataError(
                f"{folder}: {split}.offsets.npy ({len(self._offsets)} entries) and "
                f"{split}.sizes.npy {self.sizes.shape} do not belong together: convert again"
            )
        areas = self.sizes.astype(np.int64).prod(axis=1) * 3
        # Sides within a bound, so that no product of damaged ones wraps around.
        sound = self._offsets[0] >= 0 and not ((self.sizes < 1) | (self.sizes > MAX_PIXELS)).any()
        if (
            not sound
            or not np.array_equal(np.diff(self._offsets), areas)
            or len(self._bytes) < self._offsets[-1]
        ):
            raise DataError(
                f"{self._path}: {len(self._bytes)} bytes do not match {split}.offsets.npy and "
                f"{split}.sizes.npy; the file is truncated or damaged: convert again"
            )
        self.pixels: UInt8 = self._bytes[self._offsets[0] : self._offsets[-1]].reshape(-1, 3)

    @property
    def mapped(self) -> list[UInt8]:
        return [self._bytes]

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, sample: int) -> StoredImage:
        check_samples(np.array([sample]), len(self.sizes), self._path)
        height, width = self.sizes[sample]
        pixels = self._bytes[self._offsets[sample] : self._offsets[sample + 1]]
        return StoredImage(RAW, pixels.reshape(height, width, 3))

    def read_batch(self, samples: Int64) -> StoredBatch:
        return self.locate(samples)

    def locate(self, samples: Int64) -> StoredBatch:
        check_samples(samples, len(self.sizes), self._path)
        starts = self._offsets[samples]
        return StoredBatch(
            addresses=(starts + address_of(self._bytes)).astype(np.uint64),
            num_bytes=self._offsets[samples + 1] - starts,
            raw=np.ones(len(samples), dtype=np.bool_),
            sizes=self.sizes[samples],
            owner=self._bytes,
        )


def open_memory(folder: Path, split: str) -> Storage:
    """Open the images of a split, whichever of the two layouts they have.

    Raises:
        DataError: If the files are missing or damaged.
    """
    path = folder / f"{split}.images.npy"
    if path.exists() or not (folder / f"{split}.pixels.bin").exists():
        return EqualStorage(path)
    return PackedStorage(folder, split)


class MemoryWriter:
    """Writes raw images; `finish` decides between the two layouts."""

    def __init__(self, folder: Path, split: str, capacity: int) -> None:
        self._folder = folder
        self._split = split
        self._path = folder / f"{split}.pixels.bin"
        self._sizes = array("i")  # height, width, height, width, ...
        self._file = self._path.open("wb")
        self._file.write(bytes(_HEADER_BYTES))
        self._behind = WriteBehind(self._file)
        self._end = _HEADER_BYTES

    def append(self, image: StoredImage, *, height: int, width: int, label: int) -> None:
        if image.mode != RAW or image.data.shape != (height, width, 3):
            raise ValueError(f"{image.mode} data of shape {image.data.shape} are not pixels")
        self._file.write(np.ascontiguousarray(image.data).data)
        self._sizes.extend((height, width))
        self._end += image.data.nbytes
        self._behind.written(self._end)

    def finish(self) -> None:
        sizes = np.array(self._sizes, dtype=np.int32).reshape(-1, 2)
        equal = len(sizes) > 0 and bool((sizes == sizes[0]).all())
        if equal:
            self._file.seek(0)
            self._file.write(_npy_header((len(sizes), int(sizes[0, 0]), int(sizes[0, 1]), 3)))
        self._file.close()
        if equal:
            self._path.rename(self._folder / f"{self._split}.images.npy")
            return
        offsets = np.full(len(sizes) + 1, _HEADER_BYTES, dtype=np.int64)
        offsets[1:] += np.cumsum(sizes.astype(np.int64).prod(axis=1) * 3)
        save_array(self._folder / f"{self._split}.offsets.npy", offsets)
        save_array(self._folder / f"{self._split}.sizes.npy", sizes)

    def abandon(self) -> None:
        self._file.close()


def _npy_header(shape: tuple[int, int, int, int]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    header = buffer.getvalue()
    if len(header) != _HEADER_BYTES:
        raise AssertionError(f"NumPy wrote a header of {len(header)} bytes for {shape}")
    return header
