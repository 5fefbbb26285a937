"""Which rows of a source become which split: held-out images first, then the long tail."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastssd.core.counter_rng import generator
from fastssd.data.longtail import EXPONENTIAL, class_counts, hold_out, select
from fastssd.data.sources.source import SPLITS, TEST, TRAIN, VAL, Source
from fastssd.errors import ConfigError

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Subset:
    """The rows that make a split.

    Attributes:
        source_split: The split of the source that they are rows of.
        rows: (N,) int64, in the order in which they are stored.
    """

    source_split: str
    rows: Int64


def plan_subsets(
    source: Source,
    *,
    imbalance: float | None = None,
    imbalance_type: str = EXPONENTIAL,
    max_per_class: int | None = None,
    seed: int = 0,
    val_per_class: int = 0,
    test_per_class: int = 0,
) -> dict[str, Subset]:
    """Decide the rows of every split.

    Args:
        source: Where they come from.
        imbalance: Largest class over smallest of the long tail; None keeps every class whole.
        imbalance_type: ``exp`` or ``step``.
        max_per_class: Size of the largest class of the long tail; by default images / classes.
            Without an imbalance, no class keeps more than that.
        seed: Of the choice of images.
        val_per_class: Training images of each class that become the validation split.
        test_per_class: Training images of each class that become the test split.

    Returns:
        By split name, in the order train, val, test.

    Raises:
        ConfigError: If the source cannot give what is asked for, or a class of the training split
            would be empty.
    """
    if source.splits[TRAIN].labels.size == 0:
        raise ConfigError(f"{source.origin}: its training split holds no images")
    subsets = {
        name: Subset(name, np.arange(len(source.splits[name].labels)))
        for name in SPLITS
        if name in source.splits
    }
    rows = subsets[TRAIN].rows
    for name, per_class in ((TEST, test_per_class), (VAL, val_per_class)):
        if per_class == 0:
            continue
        if name in subsets:
            raise ConfigError(f"--{name}-per-class: {source.origin} has a {name} split of its own")
        held, rows = _hold_out(source, rows, name, per_class, seed)
        subsets[name] = Subset(TRAIN, held)
    if imbalance is not None:
        rows = _long_tail(source, rows, imbalance, imbalance_type, max_per_class, seed)
    elif max_per_class is not None:
        rows = _capped(source, rows, max_per_class, seed)
    check_no_class_empty(
        source.classes,
        np.bincount(source.splits[TRAIN].labels[rows], minlength=len(source.classes)),
    )
    subsets[TRAIN] = Subset(TRAIN, rows)
    return {name: subsets[name] for name in SPLITS if name in subsets}


def check_no_class_empty(classes: Sequence[str], counts: Int64) -> None:
    """Check that every class has a training image.

    Raises:
        ConfigError: Names the classes that have none.
    """
    empty = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if empty:
        listed = ", ".join(repr(name) for name in empty[:5]) + (", ..." if len(empty) > 5 else "")
        raise ConfigError(
            f"{len(empty)} of {len(classes)} classes would have no training image: {listed}; "
            "lower --imbalance, raise --max-per-class, or leave the class out of the source"
        )


def _hold_out(
    source: Source, rows: Int64, name: str, per_class: int, seed: int
) -> tuple[Int64, Int64]:
    labels = source.splits[TRAIN].labels
    smallest = int(np.bincount(labels[rows], minlength=len(source.classes)).argmin())
    available = int((labels[rows] == smallest).sum())
    if available <= per_class:
        raise ConfigError(
            f"--{name}-per-class {per_class}: class {source.classes[smallest]!r} has only "
            f"{available} images left, and one must remain for training"
        )
    return hold_out(
        labels,
        rows,
        per_class=per_class,
        num_classes=len(source.classes),
        random=generator(seed, "convert", name),
    )


def _long_tail(
    source: Source,
    rows: Int64,
    imbalance: float,
    kind: str,
    max_per_class: int | None,
    seed: int,
) -> Int64:
    labels = source.splits[TRAIN].labels[rows]
    num_classes = len(source.classes)
    max_images = len(rows) / num_classes if max_per_class is None else float(max_per_class)
    try:
        counts = class_counts(num_classes, max_images, imbalance, kind)
    except ValueError as error:
        raise ConfigError(f"--imbalance: {error}") from error
    available = np.bincount(labels, minlength=num_classes)
    short = np.flatnonzero(available < counts)
    if len(short):
        raise ConfigError(
            f"--imbalance {imbalance:g}: class {source.classes[int(short[0])]!r} has "
            f"{available[short[0]]} images, but its place in the long tail asks for "
            f"{counts[short[0]]}; --max-per-class {_largest_fit(available, imbalance, kind)} fits"
        )
    return rows[select(labels, counts, seed)]


def _largest_fit(available: Int64, imbalance: float, kind: str) -> int:
    fits = 0
    for candidate in range(1, int(available.max()) + 1):
        if (class_counts(len(available), candidate, imbalance, kind) > available).any():
            break
        fits = candidate
    return fits


def _capped(source: Source, rows: Int64, max_per_class: int, seed: int) -> Int64:
    labels = source.splits[TRAIN].labels[rows]
    available = np.bincount(labels, minlength=len(source.classes))
    return rows[np.sort(select(labels, np.minimum(available, max_per_class), seed))]
