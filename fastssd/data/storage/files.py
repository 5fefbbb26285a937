"""Arrays of a dataset directory: written, read, mapped, with errors that name the file."""

import io
import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastssd.data.storage.image import UInt8
from fastssd.errors import DataError
from fastssd.native import mapped as mapped_files

_REMEDY = "the dataset directory is incomplete or damaged: convert it again"


def load_array(path: Path, *, dtype: type[np.generic], ndim: int) -> NDArray[Any]:
    """Load a whole `.npy` file.

    Raises:
        DataError: If it is missing, damaged, or not of this dtype and number of dimensions.
    """
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({_reason(error)}); {_REMEDY}") from error
    if array.dtype != np.dtype(dtype) or array.ndim != ndim:
        raise DataError(
            f"{path}: holds {array.dtype} of {array.ndim} dimensions where "
            f"{np.dtype(dtype)} of {ndim} is expected; {_REMEDY}"
        )
    return array


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
    try:
        mapped = np.memmap(path, dtype=np.uint8, mode="c")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({_reason(error)}); {_REMEDY}") from error
    return _guarded(mapped, path)


def map_pixels(path: Path) -> UInt8:
    """Map a `.npy` file of equal images as (N, height, width, 3) uint8, copy-on-write.

    Raises:
        DataError: If it is missing, shorter than its header says, or holds something else.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({_reason(error)}); {_REMEDY}") from error
    in_order = array.flags.c_contiguous  # its header may say otherwise
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or not in_order:
        raise DataError(
            f"{path}: holds {array.dtype} {array.shape} where uint8 (N, height, width, 3) "
            f"is expected; {_REMEDY}"
        )
    return _guarded(array, path)


def _guarded(array: NDArray[Any], path: Path) -> UInt8:
    """Return a mapped array as a plain one, safe to read whatever becomes of its file."""
    mapped = array.base
    if isinstance(mapped, mmap.mmap):
        first = np.frombuffer(mapped, dtype=np.uint8)
        mapped_files.guard(mapped, first.__array_interface__["data"][0], path)
    return np.asarray(array)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
