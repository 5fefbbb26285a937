"""Arrays of a dataset directory: written, read, mapped, with errors that name the file."""

import io
import math
import mmap
import os
import re
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from fastssd.core.reading import open_regular, reading
from fastssd.data.storage.image import UInt8
from fastssd.native import mapped as mapped_files

_MAX_HEADER_BYTES = 1000  # NumPy's of any array of ours has 128
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<descr>[<|][a-z][0-9]{1,2})', "
    rb"'fortran_order': (?P<by_columns>True|False), "
    rb"'shape': \((?P<shape>(?: ?[0-9]{1,18},?){0,8})\), \} *\n",
    re.DOTALL,
)
_REMEDY = "the dataset directory is incomplete or damaged: convert it again"


def load_array(path: Path, *, dtype: type[np.generic], ndim: int) -> NDArray[Any]:
    """Load a whole `.npy` file.

    Raises:
        DataError: If it is missing, damaged, or not of this dtype and number of dimensions.
    """
    with reading(path, _REMEDY), open_regular(path) as file:
        shape, order = _header(file, np.dtype(dtype), ndim)
        array: NDArray[Any] = np.fromfile(file, dtype=dtype, count=math.prod(shape))
        return array.reshape(shape, order=order)


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write a `.npy` file.

    NumPy's own writing to a file says "0 written" of a full disk, and not why.

    Raises:
        OSError: If it cannot be written; names the file and says why.
    """
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    try:
        path.write_bytes(buffer.getbuffer())
    except OSError as error:  # from writing, and not opening, it knows no name
        raise OSError(error.errno, error.strerror, str(path)) from error


def map_bytes(path: Path) -> UInt8:
    """Map a file as (num_bytes,) uint8.

    The mapping is copy-on-write: PyTorch warns when it wraps memory that it may not write, and the
    file stays as it is whatever a caller does.

    Raises:
        DataError: If the file is missing or empty.
    """
    with reading(path, _REMEDY), open_regular(path) as file:
        return _guarded(np.memmap(file, dtype=np.uint8, mode="c"), path)


def map_pixels(path: Path) -> UInt8:
    """Map a `.npy` file of equal images as (N, height, width, 3) uint8, copy-on-write.

    Raises:
        DataError: If it is missing, of another length than its header says, or holds something
            else.
    """
    with reading(path, _REMEDY), open_regular(path) as file:
        shape, order = _header(file, np.dtype(np.uint8), 4)
        if shape[3] != 3 or not min(shape) or order != "C":
            raise ValueError(f"it holds {shape} where (N, height, width, 3) is expected")
        start = file.tell()
        array = np.memmap(file, dtype=np.uint8, mode="c", offset=start, shape=shape)
        return _guarded(array, path)


def _guarded(array: NDArray[Any], path: Path) -> UInt8:
    """Return a mapped array as a plain one, safe to read whatever becomes of its file."""
    mapped = array.base
    if isinstance(mapped, mmap.mmap):
        first = np.frombuffer(mapped, dtype=np.uint8)
        mapped_files.guard(mapped, first.__array_interface__["data"][0], path)
    return np.asarray(array)


def _header(
    file: BinaryIO, dtype: np.dtype[Any], ndim: int
) -> tuple[tuple[int, ...], Literal["C", "F"]]:
    """Read the header of a `.npy` file, and leave the file where its values begin.

    NumPy's own reader gives a header to Python's parsers, and believes its shape. Headers of ours
    are all of one form.

    Raises:
        ValueError: If it is of another form, type or number of dimensions, or not that of as many
            bytes as there are.
    """
    start = file.read(_MAX_HEADER_BYTES)
    found = _HEADER.match(start)
    if found is None or found.end() != 10 + int.from_bytes(start[8:10], "little"):
        raise ValueError("it has no header of an array")
    shape = tuple(int(side) for side in found["shape"].split(b",") if side.strip())
    held = np.dtype(found["descr"].decode())
    if held != dtype or len(shape) != ndim:
        raise ValueError(
            f"it holds {held} of {len(shape)} dimensions where {dtype} of {ndim} is expected"
        )
    expected = found.end() + math.prod(shape) * dtype.itemsize
    num_bytes = os.fstat(file.fileno()).st_size
    if expected != num_bytes:
        raise ValueError(f"it has {num_bytes:,} bytes where {expected:,} are expected")
    file.seek(found.end())
    return shape, "F" if found["by_columns"] == b"True" else "C"
