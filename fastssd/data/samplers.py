"""Samplers: which images an epoch draws, as pure functions of (index, seed, stream, epoch).

A sampler knows nothing of views, ranks, batches or pixels. A new one is one function here and one
line of `SAMPLERS`; its keyword-only arguments, whole numbers or floats with defaults, are what a
recipe may set: `class_aware:per_class=2`.
"""

from collections.abc import Callable

import numpy as np

from fastssd.core import counter_rng
from fastssd.core.class_frequency import Float64, effective_number, inverse_power
from fastssd.core.registry import Registry
from fastssd.data.class_index import ClassIndex
from fastssd.data.draw_kernels import from_cycles, running_count, search, within
from fastssd.data.draws import Int64
from fastssd.errors import ConfigError

IMAGES_PER_CLASS_VISIT = 4
"""`num_samples_cls` of Kang et al.: a batch of 512 holds 128 classes. SSD's code has 2."""
MAX_IMAGES_PER_CLASS_VISIT = 1_000
"""A table of so many draws a class is made at once."""

Sampler = Callable[..., Int64]
"""(index, seed, stream, epoch, num_epochs, *, options) -> (N,) samples."""


def instance_balanced(
    index: ClassIndex, seed: int, stream: str, epoch: int, num_epochs: int
) -> Int64:
    """Return every sample once, in an order of the epoch's own."""
    return counter_rng.generator(seed, stream, "instance", epoch).permutation(len(index))


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
    key = counter_rng.key_of(seed, stream, "class_cycles", epoch)
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
    return _by_cycle(
        index, classes, ordinals, counter_rng.key_of(seed, stream, "progressive", epoch)
    )


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
    if not 1 <= per_class <= MAX_IMAGES_PER_CLASS_VISIT:
        raise ConfigError(
            f"per_class={per_class} must be from 1 to {MAX_IMAGES_PER_CLASS_VISIT:,} images a visit"
        )
    key = counter_rng.key_of(seed, stream, "class_aware")
    first, last = epoch * len(index), (epoch + 1) * len(index)
    num_round = per_class * len(index.present)
    classes, ordinals = np.empty(len(index), np.int64), np.empty(len(index), np.int64)
    within_visit = np.tile(np.arange(per_class, dtype=np.int64), len(index.present))
    for number in range(first // num_round, -(-last // num_round)):
        order = counter_rng.generator(key, "classes", number).permutation(index.present)
        start = number * num_round
        wanted = slice(max(first, start) - start, min(last, start + num_round) - start)
        rows = slice(start + wanted.start - first, start + wanted.stop - first)
        classes[rows] = np.repeat(order, per_class)[wanted]
        ordinals[rows] = number * per_class + within_visit[wanted]
    return _by_cycle(index, classes, ordinals, key)


_HERE = "fastssd.data.samplers"

SAMPLERS: Registry[Sampler] = Registry(
    "sampler",
    {
        "instance": f"{_HERE}:instance_balanced",
        "class_balanced": f"{_HERE}:class_balanced",
        "class_aware": f"{_HERE}:class_aware",
        "square_root": f"{_HERE}:square_root",
        "progressive": f"{_HERE}:progressive",
        "reversed": f"{_HERE}:reversed_frequency",
        "effective_number": f"{_HERE}:effective",
        "weighted": f"{_HERE}:weighted",
        "deferred": f"{_HERE}:deferred",
        "class_cycles": f"{_HERE}:class_cycles",
    },
    group="fastssd.samplers",
)


def _with_replacement(
    index: ClassIndex, weights: Float64, seed: int, stream: str, epoch: int
) -> Int64:
    classes = _draw_classes(index, weights, seed, stream, epoch)
    generator = counter_rng.generator(seed, stream, "image", epoch)
    return within(classes, generator, index.starts, index.counts, index.order)


def _draw_classes(index: ClassIndex, weights: Float64, seed: int, stream: str, epoch: int) -> Int64:
    """Return N classes with replacement, in proportion to weights; empty classes have none."""
    generator = counter_rng.generator(seed, stream, "class", epoch)
    places = search(weights[index.present], generator, len(index))
    if len(index.present) == index.num_classes:
        return places
    classes: Int64 = index.present[places]
    return classes


def _by_cycle(index: ClassIndex, classes: Int64, ordinals: Int64, key: int) -> Int64:
    """Return the ordinals-th image of each class, its images coming in shuffled cycles."""
    return from_cycles(classes, ordinals, index.starts, index.counts, index.order, key)
