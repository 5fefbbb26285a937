"""Stored images as they lie in their format: the values that storages give and decoders take."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]

JPEG = "jpeg"
RAW = "raw"

MAX_PIXELS = 1 << 28
"""Pixels of the largest image that the decoders of training take."""
USUAL_PIXELS = 1 << 27
"""Pixels of the largest image that is converted unless the user says otherwise."""
MAX_SIDE = 1 << 17
"""Pixels of a box's longer side that the native decoder takes at most; no JPEG has so many."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One image, not yet decoded.

    Attributes:
        mode: ``jpeg`` or ``raw``.
        data: The bytes of the JPEG file, (num_bytes,) uint8, or RGB pixels, (height, width, 3)
            uint8. May be a view into a mapped file: do not write to it.
    """

    mode: str
    data: UInt8


class StoredBatch(Sequence[StoredImage]):
    """Stored images by where they lie in memory, so that a batch costs no Python per image.

    Attributes:
        addresses: (B,) uint64: of a JPEG file's first byte, or of the first pixel of a raw image,
            (height, width, 3) uint8 without gaps.
        num_bytes: (B,) int64.
        raw: (B,) bool: whether an image is raw pixels; the others are JPEG files.
        sizes: (B, 2) int32 height and width; of a JPEG they may be 0, its header tells them.
        owner: Whatever must live for the addresses to hold. Do not write to its memory.

    Raises:
        ValueError: If the arrays are of different lengths, or a raw image's size is not that of
            its bytes.
    """

    def __init__(
        self,
        *,
        addresses: NDArray[np.uint64],
        num_bytes: NDArray[np.int64],
        raw: NDArray[np.bool_],
        sizes: NDArray[np.int32],
        owner: object,
    ) -> None:
        self.addresses: NDArray[np.uint64] = np.ascontiguousarray(addresses, dtype=np.uint64)
        self.num_bytes: NDArray[np.int64] = np.ascontiguousarray(num_bytes, dtype=np.int64)
        self.raw: NDArray[np.bool_] = np.ascontiguousarray(raw, dtype=np.bool_)
        self.sizes: NDArray[np.int32] = np.ascontiguousarray(sizes, dtype=np.int32)
        self.owner = owner
        count = len(self.addresses)
        shapes = [self.addresses.shape, self.num_bytes.shape, self.raw.shape, self.sizes.shape]
        if shapes != [(count,), (count,), (count,), (count, 2)]:
            raise ValueError(f"a batch of images with arrays of the shapes {shapes}")
        if self.raw.any():
            areas = self.sizes[self.raw].astype(np.int64).prod(axis=1)
            if not np.array_equal(areas * 3, self.num_bytes[self.raw]):
                raise ValueError("a raw image whose size is not that of its bytes")

    @classmethod
    def of(cls, images: Sequence[StoredImage]) -> "StoredBatch":
        """Return images as a batch; a batch is returned as it is."""
        if isinstance(images, StoredBatch):
            return images
        arrays = [np.ascontiguousarray(image.data) for image in images]
        raw = np.array([image.mode != JPEG for image in images], dtype=np.bool_)
        sizes = [
            array.shape[:2] if is_raw else (0, 0)
            for array, is_raw in zip(arrays, raw.tolist(), strict=True)
        ]
        return cls(
            addresses=np.array([array.ctypes.data for array in arrays], dtype=np.uint64),
            num_bytes=np.array([array.nbytes for array in arrays], dtype=np.int64),
            raw=raw,
            sizes=np.array(sizes, dtype=np.int32).reshape(-1, 2),
            owner=arrays,
        )

    def __len__(self) -> int:
        return len(self.addresses)

    @overload
    def __getitem__(self, index: int) -> StoredImage: ...

    @overload
    def __getitem__(self, index: slice) -> "StoredBatch": ...

    def __getitem__(self, index: int | slice) -> "StoredImage | StoredBatch":
        if isinstance(index, slice):
            return StoredBatch(
                addresses=self.addresses[index],
                num_bytes=self.num_bytes[index],
                raw=self.raw[index],
                sizes=self.sizes[index],
                owner=self.owner,
            )
        position = operator.index(index)
        num_bytes = int(self.num_bytes[position])
        shape: tuple[int, ...] = (num_bytes,)
        if self.raw[position]:
            shape = (int(self.sizes[position, 0]), int(self.sizes[position, 1]), 3)
        if num_bytes == 0:  # an address without bytes may be none
            return StoredImage(self._mode(position), np.zeros(shape, np.uint8))
        memory = _Memory(int(self.addresses[position]), shape, self.owner)
        return StoredImage(self._mode(position), np.asarray(memory))

    def _mode(self, position: int) -> str:
        return RAW if self.raw[position] else JPEG


class _Memory:
    """Bytes at an address as NumPy takes them; the array keeps this, and so the owner, alive."""

    def __init__(self, address: int, shape: tuple[int, ...], owner: object) -> None:
        self.owner = owner
        # Not marked as read-only: PyTorch warns when it wraps such memory.
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "data": (address, False),
            "shape": shape,
            "typestr": "|u1",
        }
