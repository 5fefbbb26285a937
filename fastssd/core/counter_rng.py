"""Random numbers as a pure function of what they are for: (seed, stream, sample, view, field).

Nothing here keeps state, so results depend neither on the order of calls nor on the number of
workers, and a resumed run draws what it would have drawn.
"""

import ctypes
import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastssd.native import library

UInt32 = NDArray[np.uint32]

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_ROUNDS = 10


def key_of(*parts: int | str) -> int:
    """Return a 64-bit key that depends on every part.

    The parts are hashed, not added, so that runs with seeds 0 and 1 share no shifted stream.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(*parts: int | str) -> np.random.Generator:
    """Return a fresh NumPy generator for a use that is not per image, such as a permutation."""
    return np.random.Generator(np.random.Philox(key=key_of(*parts)))


def philox4x32(counters: UInt32, key: int) -> UInt32:
    """Return the Philox-4x32-10 block of each counter.

    Args:
        counters: (N, 4) uint32.
        key: 64 bits, low word first.

    Returns:
        (N, 4) uint32.

    Source:
        Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
    """
    if library.library() is None:
        return philox_in_numpy(counters, key)
    counters = np.ascontiguousarray(counters, dtype=np.uint32)
    blocks = np.empty_like(counters)
    philox = library.function(
        "fastssd_philox",
        arguments=[ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint64, ctypes.c_void_p],
        result=None,
    )
    philox(counters.ctypes.data, len(counters), key, blocks.ctypes.data)
    return blocks


def philox_in_numpy(counters: UInt32, key: int) -> UInt32:
    """Return what `philox4x32` does, where the native kernels were not built."""
    c0, c1, c2, c3 = (counters[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(_ROUNDS):
        product_0 = c0 * _MULTIPLIER_0
        product_1 = c2 * _MULTIPLIER_1
        c0, c1, c2, c3 = (
            (product_1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            product_1 & _LOW,
            (product_0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            product_0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL_0) & 0xFFFFFFFF, (k1 + _WEYL_1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def uniforms(
    seed: int, stream: str, samples: ArrayLike, views: ArrayLike, *, field: int, count: int
) -> NDArray[np.float64]:
    """Return uniform numbers in [0, 1) for each draw.

    Args:
        seed: The run's seed.
        stream: What the pixels are for (``features``, ``distill``, ...).
        samples: (B,) rows of the dataset, below 2**32.
        views: (B,) non-negative 64-bit view numbers.
        field: Which draw within the image (box, flip, ...), below 2**16.
        count: How many numbers each draw gets, at most 4 * 2**16.

    Returns:
        (B, count) float64 with 32 random bits each.
    """
    found: NDArray[np.float64] = uniforms_by_field(
        seed, stream, samples, views, fields=[field], count=count
    )[0]
    return found


def uniforms_by_field(
    seed: int,
    stream: str,
    samples: ArrayLike,
    views: ArrayLike,
    *,
    fields: Sequence[int],
    count: int,
) -> NDArray[np.float64]:
    """Return what `uniforms` does for several fields, in one go.

    Returns:
        (fields, B, count) float64.
    """
    samples = np.asarray(samples, dtype=np.uint64)
    views = np.asarray(views, dtype=np.uint64)
    num_blocks = -(-count // 4)
    counters = np.empty((len(fields), len(samples), num_blocks, 4), dtype=np.uint32)
    counters[..., 0] = (samples & _LOW)[:, None]
    counters[..., 1] = (views & _LOW)[:, None]
    counters[..., 2] = (views >> _SHIFT)[:, None]
    first_blocks = np.array(fields, dtype=np.uint32)[:, None, None] << np.uint32(16)
    counters[..., 3] = first_blocks + np.arange(num_blocks, dtype=np.uint32)
    bits = philox4x32(counters.reshape(-1, 4), key_of(seed, stream))
    numbers = bits.reshape(len(fields), len(samples), 4 * num_blocks)[..., :count]
    values: NDArray[np.float64] = numbers.astype(np.float64) * 2.0**-32
    return values
