"""Samplers: which images an epoch draws, as pure functions of (labels, seed, stream, epoch).

A plan speaks of the global sequence of draws and knows nothing of ranks, batches or pixels. A new
sampler is one function here and one entry of `SAMPLERS`.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastssd import keyed
from fastssd.data.draws import Draws, Int64, pack_view, unpack_view
from fastssd.errors import ConfigError

Float64 = NDArray[np.float64]

IMAGES_PER_CLASS_VISIT = 4
"""`num_samples_cls` of Kang et al.: a batch of 512 holds 128 classes."""


@dataclass(frozen=True)
class ClassIndex:
    """The samples of a split, grouped by class."""

    labels: Int64
    num_classes: int

    @cached_property
    def counts(self) -> Int64:
        """(C,) images of each class."""
        return np.bincount(self.labels, minlength=self.num_classes).astype(np.int64)

    @cached_property
    def order(self) -> Int64:
        """(N,) samples, class after class, ascending within each."""
        return np.argsort(self.labels, kind="stable").astype(np.int64)

    @cached_property
    def starts(self) -> Int64:
        """(C,) where each class begins in `order`."""
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def present(self) -> Int64:
        """Classes with at least one image; no plan draws another."""
        return np.flatnonzero(self.counts)

    def __len__(self) -> int:
        return len(self.labels)


Sampler = Callable[[ClassIndex, int, str, int, int], Int64]
"""(index, seed, stream, epoch, num_epochs) -> (N,) samples."""


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


def class_aware(index: ClassIndex, seed: int, stream: str, epoch: int, num_epochs: int) -> Int64:
    """Return N draws in which classes take turns and so do the images of a class.

    All classes come in shuffled cycles without replacement; each visit takes the next
    `IMAGES_PER_CLASS_VISIT` images of the class's own shuffled cycle. The sequence runs on over
    epochs: epoch e is its draws e*N to (e+1)*N, so nothing has to be remembered.

    Source: classifier-balancing:data/ClassAwareSampler.py.
    """
    key = keyed.key_of(seed, stream, "class_aware")
    positions = np.arange(epoch * len(index), (epoch + 1) * len(index), dtype=np.int64)
    visits, within_visit = np.divmod(positions, IMAGES_PER_CLASS_VISIT)
    rounds, turns = np.divmod(visits, len(index.present))
    classes = np.empty(len(positions), np.int64)
    for number in np.unique(rounds):
        in_round = rounds == number
        order = keyed.generator(key, "classes", int(number)).permutation(index.present)
        classes[in_round] = order[turns[in_round]]
    ordinals = rounds * IMAGES_PER_CLASS_VISIT + within_visit
    return _by_cycle(index, classes, ordinals, key)


SAMPLERS: dict[str, Sampler] = {
    "instance": instance_balanced,
    "class_balanced": class_balanced,
    "class_aware": class_aware,
    "square_root": square_root,
    "progressive": progressive,
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The draws of every epoch of one use of the images.

    Attributes:
        index: The split's labels.
        sampler: A name of `SAMPLERS`.
        seed: The run's seed.
        stream: What the draws are for; plans of different streams are independent.
        num_epochs: Epochs that will be drawn in all.
        num_views: If not None, every sample's views are mapped to this many, evenly over epochs:
            those of a table.
    """

    index: ClassIndex
    sampler: str
    seed: int
    stream: str
    num_epochs: int
    num_views: int | None = None

    def __post_init__(self) -> None:
        check_sampler(self.sampler, key="plan")

    def epoch(self, epoch: int) -> Draws:
        """Return the N draws of one epoch; all are different over all epochs unless bound."""
        sampler = SAMPLERS[self.sampler]
        samples = sampler(self.index, self.seed, self.stream, epoch, self.num_epochs)
        draws = Draws(samples, pack_view(epoch, running_count(samples)))
        return draws if self.num_views is None else bind(draws, self.num_views, self.seed)


def check_sampler(name: str, *, key: str) -> None:
    """Raise ConfigError with the nearest name if there is no such sampler.

    Args:
        name: The sampler asked for.
        key: The config's key that names it.
    """
    if name not in SAMPLERS:
        nearest = difflib.get_close_matches(name, SAMPLERS, n=1, cutoff=0.0)[0]
        names = ", ".join(SAMPLERS)
        raise ConfigError(f"{key}={name} is none of {names}; did you mean {nearest}?")


def bind(draws: Draws, num_views: int, seed: int) -> Draws:
    """Return the draws with views below `num_views`: (epoch + repetition + hash(sample)) mod K.

    A sample drawn once an epoch visits its K views in turn; the hash keeps the samples of a batch
    from all being at the same view.
    """
    epochs, repetitions = unpack_view(draws.views)
    offsets = keyed.uniforms(
        seed, "view offset", draws.samples, np.zeros(len(draws), np.int64), field=0, count=1
    )[:, 0]
    shift = (offsets * num_views).astype(np.int64)
    return Draws(draws.samples, (epochs + repetitions + shift) % num_views)


def running_count(values: Int64) -> Int64:
    """Return how often each value has occurred before, at every position."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    is_first = np.ones(len(values), bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    positions = np.arange(len(values))
    run_starts = np.maximum.accumulate(np.where(is_first, positions, 0))
    counts = np.empty(len(values), np.int64)
    counts[order] = positions - run_starts
    return counts


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
