"""The samplers' inner loops over millions of draws: native where built, else the same in NumPy.

Both give the same bits. Native, 10 million draws take a second; the numbers that they are made of
are NumPy's own (`counter_rng.generator`) or Philox blocks (`counter_rng.uniforms`) in either case.
"""

import ctypes
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastssd.core import counter_rng
from fastssd.data.draws import Int64
from fastssd.native import library

Float64 = NDArray[np.float64]

_POINTER = ctypes.c_void_p
_KINDS: dict[type, Any] = {int: ctypes.c_int64, float: ctypes.c_double}
_CHUNK = 2**16  # random numbers at a time, which stay in the processor's cache
_GUIDES_PER_BOUND = 8
_CYCLE_STREAM = "cycle"


def group(labels: Int64, counts: Int64) -> Int64:
    """Return the rows of each label, label after label, ascending within each.

    Args:
        labels: (N,) from 0.
        counts: (C,) rows of each label.
    """
    if library.library() is None:
        return np.argsort(labels, kind="stable").astype(np.int64)
    labels = np.ascontiguousarray(labels, np.int64)
    following = np.cumsum(counts) - counts
    order = np.empty(len(labels), np.int64)
    _call("fastssd_group", labels, len(labels), following, order)
    return order


def running_count(values: Int64) -> Int64:
    """Return how often each value has occurred before, at every position in reading order.

    Args:
        values: Not negative, of any shape, which the result has too: rows of several columns are
            read one after the other.
    """
    flat = np.ascontiguousarray(values, np.int64).ravel()
    largest = int(flat.max(initial=0))
    if library.library() is None or largest > 8 * len(flat) + 2**20:
        return _running_count_in_numpy(flat).reshape(values.shape)
    counts = np.empty(len(flat), np.int64)
    seen = np.zeros(largest + 1, np.int32)
    _call("fastssd_running_count", flat, len(flat), seen, counts)
    return counts.reshape(values.shape)


def search(weights: Float64, generator: np.random.Generator, num: int) -> Int64:
    """Return `num` places drawn in proportion to weights, one random number of the generator each.

    Args:
        weights: (C,) not negative, with a positive sum.
        generator: Gives `num` numbers.
        num: Draws.
    """
    cumulative = np.cumsum(weights)
    bounds, total = cumulative[:-1], float(cumulative[-1])
    found = np.empty(num, np.int64)
    native = library.library() is not None
    # The guide of a part of [0, total] counts the bounds of earlier parts. Products of floats keep
    # their order, so a number in a part exceeds every one of those bounds.
    num_parts = _GUIDES_PER_BOUND * len(weights)
    scale = num_parts / total
    parts = (cumulative * scale).astype(np.int64)
    guide = np.searchsorted(parts[:-1], np.arange(parts[-1] + 1), side="left")
    for start in range(0, num, _CHUNK):
        chances = generator.random(min(_CHUNK, num - start))
        chunk = found[start : start + len(chances)]
        if native:
            arguments = (chances, len(chances), total, bounds, len(bounds), guide, scale, chunk)
            _call("fastssd_search", *arguments)
        else:
            chunk[:] = np.searchsorted(bounds, chances * total, side="right")
    return found


def within(
    classes: Int64, generator: np.random.Generator, starts: Int64, counts: Int64, order: Int64
) -> Int64:
    """Return an image of each class, uniformly, by one random number of the generator each.

    Args:
        classes: (N,) with an image each.
        generator: Gives N numbers.
        starts: (C,) where each class begins in `order`.
        counts: (C,) images of each class.
        order: Images, class after class.
    """
    samples = np.empty(len(classes), np.int64)
    native = library.library() is not None
    for start in range(0, len(classes), _CHUNK):
        some = classes[start : start + _CHUNK]
        chances = generator.random(len(some))
        chunk = samples[start : start + len(some)]
        if native:
            _call("fastssd_within", some, chances, len(some), starts, counts, order, chunk)
        else:
            chunk[:] = order[starts[some] + (chances * counts[some]).astype(np.int64)]
    return samples


def from_cycles(
    classes: Int64, ordinals: Int64, starts: Int64, counts: Int64, order: Int64, key: int
) -> Int64:
    """Return the ordinals-th image of each class, its images coming in shuffled cycles.

    Cycle k of a class is its images sorted by a random number of (key, image, k), so any part of
    the endless sequence can be had without what came before.

    Args:
        classes: (N,) with an image each.
        ordinals: (N,) not negative, ascending within each class.
        starts: (C,) where each class begins in `order`.
        counts: (C,) images of each class.
        order: Images, class after class.
        key: Of the shuffles.
    """
    if library.library() is None:
        return _from_cycles_in_numpy(classes, ordinals, starts, counts, order, key)
    num_draws = np.bincount(classes, minlength=len(counts))
    draw_starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(num_draws, out=draw_starts[1:])
    draws = group(classes, num_draws)
    samples = np.empty(len(classes), np.int64)
    threads = len(os.sched_getaffinity(0))
    arrays = (draws, draw_starts, ordinals, starts, counts, order)
    philox_key = ctypes.c_uint64(counter_rng.key_of(key, _CYCLE_STREAM))
    arguments = (*arrays, len(counts), philox_key, ctypes.c_int(threads), samples)
    if _call("fastssd_cycles", *arguments, result=ctypes.c_int):
        raise MemoryError("no memory to shuffle the images of a class")
    return samples


def _call(name: str, *arguments: Any, result: Any = None) -> Any:  # noqa: ANN401 - ctypes' own
    """Call a kernel with contiguous arrays, by their addresses, and numbers."""
    kinds, values = [], []
    for each in arguments:
        is_array = isinstance(each, np.ndarray)
        values.append(each.ctypes.data if is_array else each)
        kinds.append(_POINTER if is_array else _KINDS.get(type(each), type(each)))
    return library.function(name, arguments=kinds, result=result)(*values)


def _running_count_in_numpy(flat: Int64) -> Int64:
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    is_first = np.ones(len(flat), bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    positions = np.arange(len(flat))
    run_starts = np.maximum.accumulate(np.where(is_first, positions, 0))
    counts = np.empty(len(flat), np.int64)
    counts[order] = positions - run_starts
    return counts


def _from_cycles_in_numpy(
    classes: Int64, ordinals: Int64, starts: Int64, counts: Int64, order: Int64, key: int
) -> Int64:
    cycles, places = np.divmod(ordinals, counts[classes])
    num_cycles = int(cycles.max(initial=0)) + 1
    pairs, pair_of_draw = np.unique(classes * num_cycles + cycles, return_inverse=True)
    pair_classes, pair_cycles = np.divmod(pairs, num_cycles)
    sizes = counts[pair_classes]
    pair_starts = np.cumsum(sizes) - sizes
    segment = np.repeat(np.arange(len(sizes)), sizes)
    within_segment = np.arange(len(segment)) - pair_starts[segment]
    samples: Int64 = order[starts[pair_classes[segment]] + within_segment]
    cycle_of_image = pair_cycles[segment]
    chance = counter_rng.uniforms(key, _CYCLE_STREAM, samples, cycle_of_image, field=0, count=2)
    shuffled = samples[np.lexsort((chance[:, 1], chance[:, 0], segment))]
    drawn: Int64 = shuffled[pair_starts[pair_of_draw] + places]
    return drawn
