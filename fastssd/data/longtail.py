"""Long-tailed subsets: how many images each class keeps, and which.

Source:
    The construction of LDAM (Cao et al., NeurIPS 2019) that most published CIFAR-LT numbers use.
    Counts, order and selection follow it exactly, so that seed 0 gives the published subsets.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

EXPONENTIAL, STEP = "exp", "step"
KINDS = (EXPONENTIAL, STEP)


def class_counts(
    num_classes: int, max_images: float, imbalance: float, kind: str = EXPONENTIAL
) -> Int64:
    """Return how many images each class keeps; class 0 is the largest.

    Args:
        num_classes: C.
        max_images: Images of the largest class. LDAM's is images / classes, which need not be
            whole; the counts are truncated.
        imbalance: Largest count over smallest, at least 1.
        kind: ``exp``: max_images * imbalance^(-c / (C - 1)). ``step``: the first half of the
            classes (rounded down) keeps max_images, the others max_images / imbalance.

    Returns:
        (C,) int64; 0 where not a single image is left.

    Raises:
        ValueError: For an imbalance below 1 or an unknown kind.
    """
    if imbalance < 1:
        raise ValueError(f"imbalance {imbalance}: largest over smallest class is at least 1")
    factor = 1 / imbalance  # as a factor, since x * (1 / r) and x / r may truncate differently
    if kind == EXPONENTIAL:
        last = max(num_classes - 1.0, 1.0)
        counts = [int(max_images * factor ** (c / last)) for c in range(num_classes)]
    elif kind == STEP:
        many = num_classes // 2
        counts = [int(max_images)] * many + [int(max_images * factor)] * (num_classes - many)
    else:
        raise ValueError(f"unknown kind of imbalance {kind!r}: choose one of {', '.join(KINDS)}")
    return np.array(counts, dtype=np.int64)


def select(labels: Int64, counts: Int64, seed: int = 0) -> Int64:
    """Choose which images each class keeps.

    Args:
        labels: (N,) labels below C.
        counts: (C,) images to keep per class.
        seed: LDAM's is 0.

    Returns:
        Rows of `labels`, class after class, in the order drawn.

    Raises:
        ValueError: If a class has fewer images than it should keep.
    """
    # LDAM seeds NumPy's global generator; a generator of our own with the same algorithm draws
    # the same permutations.
    random = np.random.RandomState(seed)
    chosen = []
    for label, (rows, count) in enumerate(zip(_by_class(labels, len(counts)), counts, strict=True)):
        if len(rows) < count:
            raise ValueError(f"class {label} has {len(rows)} images, fewer than {count}")
        random.shuffle(rows)
        chosen.append(rows[:count])
    return np.concatenate(chosen).astype(np.int64) if chosen else np.empty(0, dtype=np.int64)


def hold_out(
    labels: Int64, rows: Int64, *, per_class: int, num_classes: int, random: np.random.Generator
) -> tuple[Int64, Int64]:
    """Split rows into those held out, the same number of each class, and the rest.

    Args:
        labels: (N,) labels of all images.
        rows: Rows of `labels` to draw from.
        per_class: How many to hold out of each class.
        num_classes: C.
        random: Where the choice comes from.

    Returns:
        (held out, rest): rows in the order of `rows`.

    Raises:
        ValueError: If nothing of a class would be left; names the class's number.
    """
    held = np.zeros(len(rows), dtype=bool)
    for label, positions in enumerate(_by_class(labels[rows], num_classes)):
        if len(positions) <= per_class:
            raise ValueError(f"class {label} has {len(positions)} images")
        held[random.permutation(positions)[:per_class]] = True
    return rows[held], rows[~held]


def _by_class(labels: Int64, num_classes: int) -> list[Int64]:
    """Return the rows of each class, ascending: one sort, where a search for each takes C x N."""
    order = np.argsort(labels, kind="stable")
    edges = np.searchsorted(labels[order], np.arange(num_classes + 1))
    return [order[start:end] for start, end in pairwise(edges)]
