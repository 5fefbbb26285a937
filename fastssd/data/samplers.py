"""Samplers: which images an epoch draws, as pure functions of (index, seed, stream, epoch).

A sampler knows nothing of views, ranks, batches or pixels. A new one is one function here and one
entry of `SAMPLERS`; its keyword-only arguments, whole numbers or floats with defaults, are what a
recipe may set: `class_aware:per_class=2`.
"""

from collections.abc import Callable

import numpy as np

from fastssd import keyed
from fastssd.data.class_index import ClassIndex
from fastssd.data.class_weights import Float64, effective_number, inverse_power
from fastssd.data.draws import Int64
from fastssd.errors import ConfigError

IMAGES_PER_CLASS_VISIT = 4
"""`num_samples_cls` of Kang et al.: a batch of 512 holds 128 classes. SSD's code has 2."""

Sampler = Callable[..., Int64]
"""(index, seed, stream, epoch, num_epochs, *, options) -> (N,) samples."""


def instance_balanced(
    index: ClassIndex, seed: int, stream: str, epoch: int, num_epochs: int
) -> Int64:
    """Return every sample once, in an order of the epoch's own."""
    return keyed.generator(seed, stream, "instance", epoch).permutation(len(index))


def class_balanced(index: ClassIndex, seed: int, stream: str, epoch: int, num_epochs: int) -> Int64:
    """Return N draws with replacement: each class 1/C, then uniformly within the class."""
    return _with_replacement(index, np.ones(index.num_classes), seed, stream, epoch)


def square_root(index: ClassIndex, seed: int, stream: str, epoch: int, num_epochs: int) -> Int64:
    """Return N draws with replacement: class c in proportion to sqrt(n_c).

    Source: classifier-balancing:data/MixedPrioritizedSampler.py, nroot=2.
    """
    return _with_replacement(index, np.sqrt(index.counts.astype(np.float64)), seed, stream, epoch)


def weighted(
    index: ClassIndex,
    seed: int,
    stream: str,
    epoch: int,
    num_epochs: int,
    *,
    power: float = 0.2,
) -> Int64:
    """Return N draws with replacement, an image of class c in proportion to n_c**-power.

    Source: GLMC:main.py, second loader, --resample_weighting 0 or 0.2.
    """
    if not 0 <= power <= 10:
        raise ConfigError(f"power={power} must be from 0 (all images alike) to 10")
    weights = index.counts * inverse_power(index.counts, power)
    return _with_replacement(index, weights, seed, stream, epoch)


def reversed_frequency(
    index: ClassIndex, seed: int, stream: str, epoch: int, num_epochs: int
) -> Int64:
    """Return N draws with replacement: class c in proportion to n_max / n_c.

    Source: BBN:lib/dataset/imbalance_cifar.py, the sampler of its second branch.
    """
    return _with_replacement(index, inverse_power(index.counts, 1), seed, stream, epoch)


def effective(
    index: ClassIndex,
    seed: int,
    stream: str,
    epoch: int,
    num_epochs: int,
    *,
    beta: float = 0.9999,
) -> Int64:
    """Return N draws with replacement, an image in proportion to (1 - beta) / (1 - beta**n_c).

    Source: LDAM-DRW:utils.py, MiSLAS:datasets/sampler.py.
    """
    if not 0 <= beta < 1:
        raise ConfigError(f"beta={beta} must be at least 0 and below 1")
    weights = index.counts * effective_number(index.counts, beta)
    return _with_replacement(index, weights, seed, stream, epoch)


def deferred(
    index: ClassIndex,
    seed: int,
    stream: str,
    epoch: int,
    num_epochs: int,
    *,
    start: int = 160,
) -> Int64:
    """Return an instance-balanced epoch, and from epoch `start` (0-based) a class-balanced one.

    Source: BagofTricks-LT's DRS (its epoch > 160 is 1-based), M2m's --warm 160.

    Raises:
        ConfigError: If class balance would never begin, or begin at once.
    """
    if not 0 < start < num_epochs:
        raise ConfigError(
            f"start={start} must lie within the epochs, from 1 to {num_epochs - 1}: before, "
            "draws are instance-balanced, from there on class-balanced"
        )
    sampler = class_balanced if epoch >= start else instance_balanced
    return sampler(index, seed, stream, epoch, num_epochs)


def class_cycles(index: ClassIndex, seed: int, stream: str, epoch: int, num_epochs: int) -> Int64:
    """Return N draws: each class 1/C with replacement, its images in shuffled cycles.

    The cycles are new in each epoch; RIDE's go on, which needs all that was drawn before.

    Source: RIDE:data_loader/imbalance_data_loaders.py, BalancedSampler, retain_epoch_size.
    """
    classes = _draw_classes(index, np.ones(index.num_classes), seed, stream, epoch)
    key = keyed.key_of(seed, stream, "class_cycles", epoch)
    return _by_cycle(index, classes, running_count(classes), key)


def progressive(index: ClassIndex, seed: int, stream: str, epoch: int, num_epochs: int) -> Int64:
    """Return N draws that move from the images' frequencies to equal classes over the epochs.

    Class c has weight `l * N/C + (1 - l) * n_c` with l = epoch / (num_epochs - 1), with
    replacement; the images of a class come by shuffled cycles, new in each epoch.

    Source: classifier-balancing:data/ClassPrioritySampler.py, lam=null.
    """
    share = epoch / (num_epochs - 1) if num_epochs > 1 else 0.0
    counts = index.counts.astype(np.float64)
    weights = share * len(index) / len(index.present) + (1 - share) * counts
    classes = _draw_classes(index, weights, seed, stream, epoch)
    ordinals = running_count(classes)
    return _by_cycle(index, classes, ordinals, keyed.key_of(seed, stream, "progressive", epoch))


def class_aware(
    index: ClassIndex,
    seed: int,
    stream: str,
    epoch: int,
    num_epochs: int,
    *,
    per_class: int = IMAGES_PER_CLASS_VISIT,
) -> Int64:
    """Return N draws in which classes take turns and so do the images of a class.

    All classes come in shuffled cycles without replacement; each visit takes the next `per_class`
    images of the class's own shuffled cycle. The sequence runs on over epochs: epoch e is its
    draws e*N to (e+1)*N, so nothing has to be remembered.

    Source: classifier-balancing:data/ClassAwareSampler.py.
    """
    if per_class < 1:
        raise ConfigError(f"per_class={per_class} must be at least 1 image a visit")
    key = keyed.key_of(seed, stream, "class_aware")
    positions = np.arange(epoch * len(index), (epoch + 1) * len(index), dtype=np.int64)
    visits, within_visit = np.divmod(positions, per_class)
    rounds, turns = np.divmod(visits, len(index.present))
    classes = np.empty(len(positions), np.int64)
    numbers, begins = np.unique(rounds, return_index=True)
    for number, begin, end in zip(numbers, begins, [*begins[1:], len(rounds)], strict=True):
        order = keyed.generator(key, "classes", int(number)).permutation(index.present)
        classes[begin:end] = order[turns[begin:end]]
    ordinals = rounds * per_class + within_visit
    return _by_cycle(index, classes, ordinals, key)


SAMPLERS: dict[str, Sampler] = {
    "instance": instance_balanced,
    "class_balanced": class_balanced,
    "class_aware": class_aware,
    "square_root": square_root,
    "progressive": progressive,
    "reversed": reversed_frequency,
    "effective_number": effective,
    "weighted": weighted,
    "deferred": deferred,
    "class_cycles": class_cycles,
}


def running_count(values: Int64) -> Int64:
    """Return how often each value has occurred before, at every position in reading order.

    Args:
        values: Of any shape, which the result has too: rows of several columns are read one after
            the other.
    """
    flat = values.ravel()
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    is_first = np.ones(len(flat), bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    positions = np.arange(len(flat))
    run_starts = np.maximum.accumulate(np.where(is_first, positions, 0))
    counts = np.empty(len(flat), np.int64)
    counts[order] = positions - run_starts
    return counts.reshape(values.shape)


def _with_replacement(
    index: ClassIndex, weights: Float64, seed: int, stream: str, epoch: int
) -> Int64:
    classes = _draw_classes(index, weights, seed, stream, epoch)
    chance = keyed.generator(seed, stream, "image", epoch).random(len(classes))
    within = (chance * index.counts[classes]).astype(np.int64)
    samples: Int64 = index.order[index.starts[classes] + within]
    return samples


def _draw_classes(index: ClassIndex, weights: Float64, seed: int, stream: str, epoch: int) -> Int64:
    """Return N classes with replacement, in proportion to weights; empty classes have none."""
    cumulative = np.cumsum(weights[index.present])
    chance = keyed.generator(seed, stream, "class", epoch).random(len(index)) * cumulative[-1]
    classes: Int64 = index.present[np.searchsorted(cumulative[:-1], chance, side="right")]
    return classes


def _by_cycle(index: ClassIndex, classes: Int64, ordinals: Int64, key: int) -> Int64:
    """Return the ordinals-th image of each class, its images coming in shuffled cycles.

    Cycle k of a class is its images sorted by a random number of (key, image, k), so any part of
    the endless sequence can be had without what came before.
    """
    cycles, within = np.divmod(ordinals, index.counts[classes])
    num_cycles = int(cycles.max(initial=0)) + 1
    pairs, pair_of_draw = np.unique(classes * num_cycles + cycles, return_inverse=True)
    pair_classes, pair_cycles = np.divmod(pairs, num_cycles)
    sizes = index.counts[pair_classes]
    pair_starts = np.cumsum(sizes) - sizes
    segment = np.repeat(np.arange(len(sizes)), sizes)
    within_segment = np.arange(len(segment)) - pair_starts[segment]
    samples: Int64 = index.order[index.starts[pair_classes[segment]] + within_segment]
    chance = keyed.uniforms(key, "cycle", samples, pair_cycles[segment], field=0, count=2)
    shuffled = samples[np.lexsort((chance[:, 1], chance[:, 0], segment))]
    drawn: Int64 = shuffled[pair_starts[pair_of_draw] + within]
    return drawn
