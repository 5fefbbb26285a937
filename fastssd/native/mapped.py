"""Mapped files that are cut short, or whose disk fails, while they are read: an error, no crash.

The system would end the process with SIGBUS, without a word. Where the native kernels are missing
it still does.
"""

import ctypes
import mmap
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from fastssd.errors import DataError
from fastssd.native.library import function, library

_paths: dict[int, Path] = {}


def guard(mapped: mmap.mmap, address: int, path: Path) -> None:
    """Have the reading of a mapped file be safe for as long as the mapping is there.

    What cannot be read is zero, and `check` tells of it.

    Args:
        mapped: The whole file's.
        address: Of its first byte.
        path: The file.
    """
    if library() is None or not len(mapped):
        return
    arguments = [ctypes.c_uint64, ctypes.c_int64]
    number = function("fastssd_guard", arguments=arguments, result=ctypes.c_int)(
        address, len(mapped)
    )
    if number >= 0:
        _paths[number] = path
        weakref.finalize(mapped, _forget, number).atexit = False  # before it is another's memory


def check() -> None:
    """Look whether all mapped files could be read so far; after reading, before using what was.

    Raises:
        DataError: If one could not; names it.
    """
    number = _broken()()
    if number >= 0:
        raise DataError(
            f"{_paths.get(number, 'a mapped file')}: it was cut short, or its disk failed, while "
            "it was read: bring the whole file back (a dataset: copy or convert it again) and "
            "start the same command again"
        )


def _forget(number: int) -> None:
    function("fastssd_unguard", arguments=[ctypes.c_int], result=None)(number)
    _paths.pop(number, None)


@cache
def _broken() -> Callable[[], Any]:
    if library() is None:
        return lambda: -1
    found: Callable[[], Any] = function("fastssd_broken", arguments=[], result=ctypes.c_int)
    return found
