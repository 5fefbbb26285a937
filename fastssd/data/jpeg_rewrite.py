"""JPEG files rewritten without loss, or only checked, by the native kernel: many in one call.

A rewritten file has the same coefficients and so the same pixels. It is baseline, with optimised
Huffman tables, restart markers every few MCUs, and no metadata but what decides the colours.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastssd.data.storage.image import UInt8
from fastssd.native.library import function, problem

SOUND, DAMAGED, UNSUITED = range(3)
"""What became of a file: those of `fastssd/native/src/transcode.h`.

``SOUND``: rewritten, or whole where it was only checked. ``DAMAGED``: the native decoder would not
decode it. ``UNSUITED``: whole, but no baseline file can hold it, or memory does not reach.
"""

_REASON_BYTES = 200  # libjpeg's longest message
_RESULT = np.dtype(
    [
        ("offset", np.int64),
        ("num_bytes", np.int64),
        ("status", np.int32),
        ("interval", np.int32),
        ("height", np.int32),
        ("width", np.int32),
        ("reason", f"S{_REASON_BYTES}"),
    ],
    align=True,
)
_POINTER = ctypes.c_void_p


@dataclass(frozen=True, slots=True)
class Transcoded:
    """What became of one file.

    Attributes:
        status: ``SOUND``, ``DAMAGED`` or ``UNSUITED``.
        content: (num_bytes,) uint8, the rewritten file, where one was asked for and made.
        interval: MCUs between its restart markers.
        height: Pixels; 0 where the header was not read.
        width: Pixels.
        reason: Why it is not sound; empty where it is.
    """

    status: int
    content: UInt8 | None
    interval: int
    height: int
    width: int
    reason: str


def missing() -> str:
    """Return why files can be neither rewritten nor checked here; empty where they can."""
    return problem()


def transcode(files: Sequence[bytes], *, rewrite: bool) -> list[Transcoded]:
    """Read the compressed data of JPEG files to their ends, and rewrite them or not.

    Every warning of libjpeg's counts as damage, but for two about metadata, and so does all that
    the native decoder does not decode. Runs on the calling thread, without the GIL. Memory: twice
    the files together, and up to 1 GB for a large progressive file.

    Args:
        files: The content of each.
        rewrite: Whether to rewrite them; otherwise they are only checked.

    Raises:
        RuntimeError: If the native kernels are missing.
        MemoryError: If memory ends.
    """
    if not files:
        return []
    kernel = function(
        "fastssd_transcode",
        arguments=[ctypes.c_int, ctypes.c_int64, *[_POINTER] * 3, ctypes.POINTER(_POINTER)],
        result=ctypes.c_int,
    )
    pointers = (ctypes.c_char_p * len(files))(*files)
    sizes = np.array([len(file) for file in files], dtype=np.int64)
    results = np.zeros(len(files), dtype=_RESULT)
    output = _POINTER()
    if not kernel(
        int(rewrite),
        len(files),
        pointers,
        sizes.ctypes.data,
        results.ctypes.data,
        ctypes.byref(output),
    ):
        raise MemoryError("rewriting JPEG files")
    written = _taken(output, int(results["num_bytes"].sum()))
    rows: list[Any] = results.tolist()
    return [
        Transcoded(
            status,
            written[offset : offset + num_bytes] if num_bytes else None,
            interval,
            height,
            width,
            reason.decode("utf-8", "replace"),
        )
        for offset, num_bytes, status, interval, height, width, reason in rows
    ]


def _taken(output: ctypes.c_void_p, num_bytes: int) -> UInt8:
    """Return the kernel's output as an array of ours."""
    content = np.empty(num_bytes, dtype=np.uint8)
    if num_bytes:
        ctypes.memmove(content.ctypes.data, output, num_bytes)
    free = function("fastssd_transcode_free", arguments=[_POINTER], result=None)
    free(output)
    return content
