"""What is checked and said of every source, whatever its kind, before any work."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastssd.data.sources.listing import MISSING_WORDS
from fastssd.data.sources.source import TRAIN, OpenedSource
from fastssd.errors import DataError

_SHOWN = 25


def checked(source: OpenedSource) -> OpenedSource:
    """Check what all sources have in common, and note what a user should know of it.

    Raises:
        DataError: If a part besides the training part holds no images.
    """
    notes = list(source.notes)
    for split, part in source.splits.items():
        if split == TRAIN:
            continue
        if not len(part.labels):
            taken_from = source.taken_from.get(split)
            raise DataError(
                f"{source.origin}: its {split} part{f' ({taken_from})' if taken_from else ''} "
                "holds no images; add them, or remove or leave out that part"
            )
        counts = np.bincount(part.labels, minlength=len(source.classes))
        notes += lacking(split, source.classes, counts.tolist())
    words = [name for name in source.classes if name.lower() in MISSING_WORDS]
    if words:
        notes.append(f"taken as a class, though it may mean that there is no label: {words[0]!r}")
    return replace(source, notes=[*notes, *_alike(source.classes)])


def lines(source: OpenedSource) -> list[str]:
    """Return what was taken for what: a line for the source and one for each split."""
    said = [f"source: {source.origin} ({source.kind}), {len(source.classes):,} classes"]
    for split, part in source.splits.items():
        num_classes = len(np.unique(part.labels))
        taken_from = source.taken_from.get(split)
        said.append(
            f"  {split}: {len(part.labels):,} images of {num_classes:,} "
            + ("class" if num_classes == 1 else "classes")
            + (f", from {taken_from}" if taken_from else "")
        )
    return said


def lacking(split: str, classes: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Return a line that names the classes which have no image in a split, if there are some.

    Args:
        split: Its name.
        classes: (C) names.
        counts: (C) images.
    """
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if not empty:
        return []
    listed = ", ".join(empty[:_SHOWN]) + (", ..." if len(empty) > _SHOWN else "")
    return [f"{len(empty):,} of {len(classes):,} classes have no {split} image: {listed}"]


def _alike(classes: Sequence[str]) -> list[str]:
    """Return a note on classes whose names differ in case and blanks alone."""
    first: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for name in classes:
        other = first.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            pairs[name] = other
    if not pairs:
        return []
    name, other = next(iter(pairs.items()))
    return [
        f"{len(pairs):,} classes are called like another but for case or blanks, such as "
        f"{other!r} and {name!r}"
    ]
