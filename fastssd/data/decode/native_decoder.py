"""The native decoder: one call of our kernels a batch, which decodes only what the boxes need.

JPEG files that conversion prepared with restart markers are entered at the segments under a box;
other sequential files are decoded from their start to the box's end; the rest (progressive, CMYK,
rarely used subsampling, ...) is libjpeg-turbo's. Before resizing, the pixels are torchvision's and
Pillow's, bit for bit. `docs/decisions/0011-native-decoder.md` has the filter and its measure.
"""

import ctypes
import os
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fastssd.data.decode.decoder import DecodeError, Int64, output_of
from fastssd.data.storage.image import StoredBatch, StoredImage, UInt8
from fastssd.errors import ConfigError
from fastssd.native.library import INSTALL, function, library, problem

FILTER = "bilinear-antialias-16"
"""Pillow's triangle, with weights and sums of 16 bits, rounded once after both directions."""

SHRINKING = "mean-1/2^n-rest-2"
"""Before it, JPEGs are decoded at 1/2, 1/4 or 1/8 while a box stays twice as large as the output.

A pixel so decoded is the mean of those that it stands for.
"""

_REASON_BYTES = 200  # FASTSSD_REASON


class _Batch(ctypes.Structure):
    """`struct fastssd_batch` of decode.h."""

    _fields_: ClassVar = [
        *[
            (name, ctypes.c_void_p)
            for name in (
                "addresses",
                "num_bytes",
                "raw",
                "sizes",
                "boxes",
                "turns",
                "out",
                "damaged",
                "reasons",
            )
        ],
        *[
            (name, ctypes.c_int32)
            for name in ("count", "views", "size", "threads", "shrink", "plain")
        ],
    ]


class NativeDecoder:
    """Decodes batches on threads of the kernels' own, without the GIL.

    Args:
        threads: That work on one batch, the calling one among them; by default as many as this
            process may use.
        shrink: Whether a JPEG is decoded at a half, a quarter or an eighth of its size where the
            box is then still twice as wide and high as the output. Faster for such boxes; other
            pixels, by half a grey level on average.
        simd: Whether to use vector instructions where there are any. The pixels are the same.

    Raises:
        ConfigError: If the kernels were not built.
    """

    name = "native"

    def __init__(
        self, *, threads: int | None = None, shrink: bool = True, simd: bool = True
    ) -> None:
        if library() is None:
            raise ConfigError(f"data.decoder=native: {problem()}; {INSTALL}")
        self.filter = f"{FILTER}+{SHRINKING}" if shrink else FILTER
        self.threads = len(os.sched_getaffinity(0)) if threads is None else threads
        self._shrink, self._plain = shrink, not simd
        self._decode = function(
            "fastssd_decode", arguments=[ctypes.POINTER(_Batch)], result=ctypes.c_int
        )

    def decode(
        self,
        images: Sequence[StoredImage],
        boxes: Int64,
        size: int,
        *,
        out: UInt8 | None = None,
        turns: NDArray[np.uint8] | None = None,
    ) -> UInt8:
        out = output_of(images, boxes, size, out, turns)
        stored = StoredBatch.of(images)
        damaged = np.zeros(len(stored), np.uint8)
        reasons = np.zeros((len(stored), _REASON_BYTES), np.uint8)
        boxes = np.ascontiguousarray(boxes, dtype=np.int64)
        if turns is not None:
            turns = np.ascontiguousarray(turns, dtype=np.uint8)
        batch = _Batch(
            addresses=stored.addresses.ctypes.data,
            num_bytes=stored.num_bytes.ctypes.data,
            raw=stored.raw.ctypes.data,
            sizes=stored.sizes.ctypes.data,
            boxes=boxes.ctypes.data,
            turns=None if turns is None else turns.ctypes.data,
            out=out.ctypes.data,
            damaged=damaged.ctypes.data,
            reasons=reasons.ctypes.data,
            count=len(stored),
            views=boxes.shape[1],
            size=size,
            threads=self.threads,
            shrink=self._shrink,
            plain=self._plain,
        )
        if self._decode(ctypes.byref(batch)):
            raise DecodeError.of({int(i): _text(reasons[i]) for i in np.flatnonzero(damaged)})
        return out


def _text(reason: UInt8) -> str:
    return reason.tobytes().split(b"\0", 1)[0].decode("ascii", "replace")
