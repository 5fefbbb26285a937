"""The bytes of a `.beton` file: dtypes, type ids and limits, and what makes a header valid.

A file is a header, one descriptor per field, one metadata record per sample, data pages and, last,
the allocation table. All numbers are little-endian. No sample straddles a page boundary, pages
being counted from the start of the file.

Source:
    The layout that ffcv 1.0.2 reads (version 2 of its format), as fastssd's own description.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastssd.data.storage.image import UInt8
from fastssd.errors import DataError

VERSION = 2
HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ]
)
DESCRIPTOR = np.dtype([("type_id", "u1"), ("name", "S16"), ("arguments", "V1024")])
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])

TYPE_FLOAT, TYPE_INT, TYPE_RGB_IMAGE = 0, 1, 2
IMAGE = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
_BYTES = np.dtype([("ptr", "<u8"), ("size", "<u8")])
FIELD_TYPES: dict[int, np.dtype[Any]] = {
    TYPE_FLOAT: np.dtype("<f8"),
    TYPE_INT: np.dtype("<i8"),
    TYPE_RGB_IMAGE: IMAGE,
    # Fields of FFCV's own that are passed over: bytes, arrays, JSON and tensors.
    3: _BYTES,
    4: np.dtype("<u8"),
    5: _BYTES,
    6: np.dtype("<u8"),
}
MODE_JPEG, MODE_RAW = 0, 1

MIN_PAGE_SIZE = 1 << 21
MAX_PAGE_SIZE = 1 << 31  # a power of two that the header's 32 bits can hold
MAX_SIDE = (1 << 16) - 1


def metadata_dtype(type_ids: list[int]) -> np.dtype[Any]:
    """Return the record of one sample; fields are named by their position (`f0`, `f1`, ...)."""
    return np.dtype([(f"f{i}", FIELD_TYPES[t]) for i, t in enumerate(type_ids)], align=True)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a valid file says about itself.

    Attributes:
        images: (N,) records of the image field.
        integers: The integer fields by name, in order, (N,) int64 each.
        sizes: (N,) uint64 bytes of each image's data.
        page_size: Bytes.
    """

    images: NDArray[Any]
    integers: dict[str, NDArray[np.int64]]
    sizes: NDArray[np.uint64]
    page_size: int


def parse(content: UInt8, path: Path) -> Layout:
    """Check a mapped file and return where everything is.

    Raises:
        DataError: If the file is not a complete `.beton` with an RGB image field; names the file
            and, where one sample is at fault, the sample.
    """
    header = _records(content, HEADER, 0, 1, path, "header")[0]
    if header["version"] != VERSION:
        raise _damaged(path, f"version {header['version']} where {VERSION} is expected")
    table_ptr, num_samples = int(header["alloc_table_ptr"]), int(header["num_samples"])
    page_size = int(header["page_size"])
    if page_size < MIN_PAGE_SIZE or page_size & (page_size - 1):
        raise _damaged(path, f"the page size {page_size} is not a power of two of at least 2 MiB")
    if table_ptr == 0:
        raise _damaged(path, "its writer never finished it (no allocation table)")

    type_ids, names, offset = _fields(content, int(header["num_fields"]), path)
    dtype = metadata_dtype(type_ids)
    metadata = _records(content, dtype, offset, num_samples, path, "metadata")
    # One allocation a sample and field that has data of its own. FFCV leaves out empty ones.
    num_data = sum(type_id not in (TYPE_FLOAT, TYPE_INT) for type_id in type_ids)
    num_allocations, rest = divmod(len(content) - table_ptr, ALLOCATION.itemsize)
    if rest or not num_samples <= num_allocations <= num_samples * num_data:
        raise _damaged(
            path,
            f"{len(content) - table_ptr} bytes of allocation table where {num_samples} samples "
            f"need {num_samples * num_data * ALLOCATION.itemsize}; it is truncated",
        )
    table = _records(content, ALLOCATION, table_ptr, num_allocations, path, "allocation table")
    images = metadata[f"f{type_ids.index(TYPE_RGB_IMAGE)}"]
    sizes = _data_sizes(images, table, table_ptr, path)
    integers = {
        name: metadata[f"f{i}"]
        for i, (type_id, name) in enumerate(zip(type_ids, names, strict=True))
        if type_id == TYPE_INT
    }
    return Layout(images, integers, sizes, page_size)


def _fields(content: UInt8, num_fields: int, path: Path) -> tuple[list[int], list[str], int]:
    descriptors = _records(content, DESCRIPTOR, HEADER.itemsize, num_fields, path, "descriptors")
    type_ids = [int(type_id) for type_id in descriptors["type_id"]]
    names = [name.decode("utf-8", "replace") for name in descriptors["name"].tolist()]
    unknown = [t for t in type_ids if t not in FIELD_TYPES]
    if unknown or type_ids.count(TYPE_RGB_IMAGE) != 1:
        raise DataError(
            f"{path}: has fields of types {type_ids}; one RGB image field (type {TYPE_RGB_IMAGE}) "
            f"and FFCV's other fields are supported, not custom ones: write it again with those"
        )
    return type_ids, names, HEADER.itemsize + descriptors.nbytes


def _data_sizes(
    images: NDArray[Any], table: NDArray[Any], table_ptr: int, path: Path
) -> NDArray[np.uint64]:
    """Match each sample's pointer with the allocation that starts there."""
    order = np.argsort(table["ptr"], kind="stable")
    pointers = np.ascontiguousarray(images["data_ptr"])
    found = np.searchsorted(table["ptr"][order], pointers)
    rows = order[np.minimum(found, len(order) - 1)] if len(order) else order
    allocations = table[rows]
    sizes = np.ascontiguousarray(allocations["size"])
    raw_bytes = (
        images["height"].astype(np.uint64) * images["width"].astype(np.uint64) * np.uint64(3)
    )
    wrong = (allocations["ptr"] != pointers) | (sizes == 0)
    # Sizes are compared with what is left, since a damaged pointer plus a size could wrap around.
    wrong |= (pointers > table_ptr) | (
        sizes > np.uint64(table_ptr) - np.minimum(pointers, table_ptr)
    )
    wrong |= (images["mode"] == MODE_RAW) & (sizes != raw_bytes)
    wrong |= (images["mode"] > MODE_RAW) | (raw_bytes == 0)
    if wrong.any():
        sample = int(np.flatnonzero(wrong)[0])
        raise _damaged(path, f"the record of sample {sample} points outside the data")
    return sizes


def _records(
    content: UInt8, dtype: np.dtype[Any], offset: int, count: int, path: Path, what: str
) -> NDArray[Any]:
    if offset + count * dtype.itemsize > len(content):
        raise _damaged(path, f"it ends within its {what}, after {len(content)} bytes")
    return np.frombuffer(content.data, dtype=dtype, count=count, offset=offset)


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path}: not a complete .beton file: {reason}; convert the dataset again")
