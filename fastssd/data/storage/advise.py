"""Telling the system which parts of files will be read soon, or can be written to the disk."""

import ctypes
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, BinaryIO

from fastssd.data.storage.host_memory import usable_memory
from fastssd.data.storage.image import StoredBatch, UInt8
from fastssd.native import library

_CALM_AFTER = 16
"""Batches in memory in a row after which only every `_CALM_AFTER`-th is looked at: in a file that
the system holds as a whole even looking costs, where images are small."""

_SHARE = 0.5
_LARGE = 1 << 16
"""The system reads megabytes around a page that is touched, for they may be wanted next. That is
good where images are small and files will lie in memory as a whole. It is not for files of more
than this share of the memory, which pages that nobody asked for push out, and not for images of
more bytes than this, which are asked for in large pieces anyhow."""

_BEHIND = 1 << 23
"""Bytes that a file grows by before their writing begins."""


class WriteBehind:
    """Has the system write a growing file to the disk meanwhile, so that the last sync is short.

    Nothing waits for the disk. Where the native kernels are missing it does nothing.

    Args:
        file: Written from its start to its end, but for what is no matter if it is written twice.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._begun = 0  # bytes
        self._begin = _kernel("fastssd_write_behind", [ctypes.c_int, *[ctypes.c_int64] * 2], None)

    def written(self, end: int) -> None:
        """Say that the file is written up to here."""
        if self._begin is not None and end - self._begun >= _BEHIND:
            self._begin(self._file.fileno(), self._begun, end - self._begun)
            self._begun = end


class ReadAhead:
    """Has the system read the images of later batches while earlier ones are decoded.

    Nothing waits for the disk, nothing is kept here: the pages go to the system's file cache. Where
    the native kernels are missing it does nothing. Safe to use from several threads.

    Args:
        mapped: The files that the images lie in, as a whole.
        num_images: In them.
        may_look: Whether the system tells truly what is in memory, as it does to who may write
            the file; otherwise everything is asked for.

    Attributes:
        num_images: Looked at so far, about, as threads may count at once.
        num_absent: Of them not in memory as a whole, and so asked for.
    """

    def __init__(self, mapped: Sequence[UInt8], *, num_images: int, may_look: bool) -> None:
        num_bytes = sum(array.nbytes for array in mapped)
        want_alone = num_bytes > _SHARE * usable_memory() or num_bytes >= _LARGE * num_images
        self._to_tell = list(mapped) if want_alone else []
        self._look = int(may_look)
        self._advise = _advise()
        self._in_memory = 0  # batches in a row
        self.num_images = 0
        self.num_absent = 0

    def announce(self, locate: Callable[[], StoredBatch]) -> None:
        """Have images read that will be wanted soon.

        Args:
            locate: Returns where they are; not called where there is nothing to do.
        """
        if self._advise is None:
            return
        while self._to_tell:
            with suppress(IndexError):  # another thread took the last
                expect_random(self._to_tell.pop())
        calm = self._in_memory >= _CALM_AFTER
        if calm and self._in_memory % _CALM_AFTER:
            self._in_memory += 1
            return
        batch = locate()
        absent = self._advise(
            batch.addresses.ctypes.data, batch.num_bytes.ctypes.data, len(batch), self._look
        )
        self.num_images += len(batch)
        self.num_absent += absent
        self._in_memory = 0 if absent else self._in_memory + 1


def expect_random(mapped: UInt8) -> None:
    """Tell the system that a mapped array is read in no order: it reads what is touched, alone.

    Without the native kernels nothing is done.
    """
    tell = _kernel("fastssd_expect_random", [ctypes.c_uint64, ctypes.c_int64], None)
    if tell is not None:
        tell(mapped.ctypes.data, mapped.nbytes)


def _advise() -> Callable[..., int] | None:
    arguments = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
    return _kernel("fastssd_advise", arguments, ctypes.c_int64)


def _kernel(name: str, arguments: list[Any], result: Any) -> Callable[..., Any] | None:  # noqa: ANN401 - ctypes's types
    if library.library() is None:
        return None
    found: Callable[..., Any] = library.function(name, arguments=arguments, result=result)
    return found
