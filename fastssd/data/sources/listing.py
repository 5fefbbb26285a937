"""From lists of (image, label as written) to classes and labels, whatever the kind of list."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastssd.core.reading import read_text, reason_of
from fastssd.data.sources.rows import Within, label_text
from fastssd.data.sources.source import TRAIN
from fastssd.errors import ConfigError, DataError

MISSING_WORDS = frozenset({"nan", "none", "null", "na", "n/a", "<na>"})
"""What programs write, in any case of the letters, where there is no label."""

_NUMBER = re.compile(r"-?\d+(\.0*)?", re.ASCII)
_LARGEST = 10**18  # of a number; what is larger is no class
_LONGEST = 40  # of a label in a message
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Listing:
    """What a file says about one split.

    Attributes:
        file: The file, for messages.
        within: Where the images are, if their names are paths of files.
        names: (N) images: paths from that folder, or what messages call them.
        labels: (N) labels: numbers or names; see `label_text`.
        places: (N) where each stands in the file, such as ``line 7``.
    """

    file: str
    within: Within | None = None
    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def add(self, name: str, label: object, place: str) -> None:
        """Append an image.

        Args:
            name: The image as it is written.
            label: Its label as it is written.
            place: Where.

        Raises:
            DataError: If that is no label, or no path within the folder.
        """
        try:
            path = name if self.within is None else self.within.relative(name)
            self.labels.append(label_text(label))
        except ValueError as error:
            raise DataError(f"{self.file}, {place}: {name}: {error}") from error
        self.names.append(path)
        self.places.append(place)

    def where(self, row: int) -> str:
        """Return file and place of a row, for messages."""
        return f"{self.file}, {self.places[row]}"


def without_repeats(listing: Listing) -> tuple[Listing, NDArray[np.int64], list[str]]:
    """Keep each image once.

    Returns:
        The listing without the repeats, the (M,) rows that were kept, and notes that say how many
        were not.

    Raises:
        DataError: If an image is listed with two labels.
    """
    first: dict[str, int] = {}
    repeated = None
    for row, name in enumerate(listing.names):
        before = first.setdefault(name, row)
        if before == row:
            continue
        label, other = listing.labels[row], listing.labels[before]
        if label != other and not (_is_number(label) and _is_number(other) and _same(label, other)):
            raise DataError(
                f"{listing.where(row)}: {name} has the label {label}, and the label {other} in "
                f"{listing.places[before]}: keep one of them"
            )
        repeated = row if repeated is None else repeated
    if repeated is None:
        return listing, np.arange(len(listing.names)), []
    kept = list(first.values())
    note = (
        f"{len(listing.names) - len(first):,} images are listed more than once and kept once, the "
        f"first in {listing.where(repeated)}: {listing.names[repeated]}"
    )
    once = replace(
        listing,
        names=[listing.names[row] for row in kept],
        labels=[listing.labels[row] for row in kept],
        places=[listing.places[row] for row in kept],
    )
    return once, np.array(kept, dtype=np.int64), [note]


def shared_images(listings: Mapping[str, Listing]) -> list[str]:
    """Return a note for every two splits that have images in common."""
    notes = []
    names = {split: set(listing.names) for split, listing in listings.items()}
    splits = list(names)
    for i, first in enumerate(splits):
        for second in splits[i + 1 :]:
            shared = names[first] & names[second]
            if shared:
                notes.append(
                    f"{len(shared)} images are in {first} and in {second}, such as {min(shared)}"
                )
    return notes


def classify(
    listings: Mapping[str, Listing],
    class_names: Sequence[str] | None = None,
    *,
    by_folder: bool = False,
) -> tuple[list[str], dict[str, NDArray[np.int64]]]:
    """Decide the classes and the number of each.

    Labels that are all whole numbers are taken as they are: 0 to C - 1 without gaps in the
    training list. Other labels are names; their classes are the names in sorted order.

    Args:
        listings: By split; ``train`` must be there.
        class_names: (C) names in the order of the labels, if they are known.
        by_folder: Whether numbered classes are called after the folders of their training images,
            where each class has a folder of its own. Otherwise they are called by their numbers.

    Returns:
        (C) class names, and by split (N,) int64 labels.

    Raises:
        DataError: If the training list is empty, or a label is out of range, unknown, or without a
            training image; names file and line.
    """
    if not listings[TRAIN].names:
        raise DataError(f"{listings[TRAIN].file}: lists no images")
    numbered = all(_is_number(label) for one in listings.values() for label in set(one.labels))
    if numbered:
        classes, labels = _numbered(listings, class_names)
    else:
        _check_missing_words(listings)
        classes, labels = _named(listings, class_names)
    _check_gaps(listings[TRAIN], labels[TRAIN], classes)
    if numbered and class_names is None and by_folder:
        classes = _folder_names(listings[TRAIN].names, labels[TRAIN]) or classes
    return classes, labels


def read_class_names(path: Path) -> list[str]:
    """Read a file with the name of one class a line.

    Raises:
        ConfigError: If it cannot be read, or a name is there twice.
    """
    try:
        lines = read_text(path, encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--classes {path}: cannot be read: {reason_of(error)}") from error
    try:
        return checked_names([line for line in lines if line.strip()])
    except ValueError as error:
        raise ConfigError(f"--classes {path}: {error}; expected is one name a line") from error


def checked_names(names: Sequence[object]) -> list[str]:
    """Return the names of classes as text.

    Raises:
        ValueError: If one is no name, or is there twice, or there are none; the message is the
            reason.
    """
    texts = [label_text(name) for name in names]
    twice = [name for name, count in Counter(texts).items() if count > 1]
    if twice or not texts:
        raise ValueError(f"has {twice[0]!r} more than once" if twice else "is empty")
    return texts


def _is_number(label: str) -> bool:
    return _NUMBER.fullmatch(label) is not None


def _number(label: str) -> int:
    # No further than it matters: larger ones could be chosen to collide as keys.
    return max(-_LARGEST, min(int(label.partition(".")[0]), _LARGEST))


def _same(label: str, other: str) -> bool:
    return _number(label) == _number(other)


def _check_missing_words(listings: Mapping[str, Listing]) -> None:
    """Check that no word such as ``nan`` stands among numbers, where it would be a class.

    Raises:
        DataError: If one does; names file and line.
    """
    labels = {label for listing in listings.values() for label in listing.labels}
    words = {label for label in labels if label.lower() in MISSING_WORDS}
    others = labels - words
    if not words or not others or not all(map(_is_number, others)):
        return
    for listing in listings.values():
        for row, label in enumerate(listing.labels):
            if label in words:
                raise DataError(
                    f"{listing.where(row)}: {listing.names[row]} has no label, but {label!r} where "
                    "the others have numbers; give it one or leave the image out"
                )


def _numbered(
    listings: Mapping[str, Listing], class_names: Sequence[str] | None
) -> tuple[list[str], dict[str, NDArray[np.int64]]]:
    numbers = {label: _number(label) for one in listings.values() for label in set(one.labels)}
    train = {numbers[label] for label in set(listings[TRAIN].labels)}
    num_classes = max(train) + 1 if class_names is None else len(class_names)
    for listing in listings.values():
        limit = min(num_classes, _LARGEST)
        wrong = {label for label in set(listing.labels) if not 0 <= numbers[label] < limit}
        if wrong:
            row = next(row for row, label in enumerate(listing.labels) if label in wrong)
            label = listing.labels[row]
            if numbers[label] >= _LARGEST:
                raise DataError(
                    f"{listing.where(row)}: label {label[:_LONGEST]} of {listing.names[row]} is "
                    "too large for the number of a class"
                )
            known = "the class names" if class_names else "the training images"
            hint = ""
            if numbers[label] == -1:
                hint = "; -1 often means that an image has no label: leave such images or parts out"
            raise DataError(
                f"{listing.where(row)}: label {label[:_LONGEST]} of {listing.names[row]} is not "
                f"among the labels of {known}, 0 to {num_classes - 1}{hint}"
            )
    if num_classes > 2 * len(train) + 1000:
        # A label like 10**12 must not make as many class names.
        raise _gaps(listings[TRAIN], num_classes, len(train), [])
    labels = {
        split: np.array([numbers[label] for label in listing.labels], dtype=np.int64)
        for split, listing in listings.items()
    }
    return list(class_names or map(str, range(num_classes))), labels


def _named(
    listings: Mapping[str, Listing], class_names: Sequence[str] | None
) -> tuple[list[str], dict[str, NDArray[np.int64]]]:
    classes = list(class_names or sorted(set(listings[TRAIN].labels)))
    numbers = {name: number for number, name in enumerate(classes)}
    labels = {}
    for split, listing in listings.items():
        unknown = set(listing.labels) - numbers.keys()
        if unknown:
            row = next(row for row, label in enumerate(listing.labels) if label in unknown)
            known = "the class names" if class_names else "the training labels"
            raise DataError(
                f"{listing.where(row)}: label {listing.labels[row][:_LONGEST]!r} of "
                f"{listing.names[row]} is "
                f"not among {known} ({', '.join(classes[:_SHOWN])}"
                f"{', ...' if len(classes) > _SHOWN else ''})"
            )
        labels[split] = np.array([numbers[label] for label in listing.labels], dtype=np.int64)
    return classes, labels


def _check_gaps(listing: Listing, labels: NDArray[np.int64], classes: Sequence[str]) -> None:
    counts = np.bincount(labels, minlength=len(classes))
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        names = [classes[label] for label in empty[:_SHOWN]]
        raise _gaps(listing, len(classes), len(classes) - len(empty), names)


def _gaps(listing: Listing, num_classes: int, num_used: int, names: list[str]) -> DataError:
    listed = f": {', '.join(names)}{', ...' if num_classes - num_used > _SHOWN else ''}"
    if names == ["0"] and num_classes - num_used == 1:
        remedy = "the labels seem to start at 1, and must start at 0"
    else:
        remedy = "number the classes 0 to C - 1 without gaps, or list images for each of them"
    return DataError(
        f"{listing.file}: {num_classes - num_used:,} of {num_classes:,} classes have no training "
        f"image{listed if names else ''}; {remedy}"
    )


def _folder_names(names: Sequence[str], labels: NDArray[np.int64]) -> list[str] | None:
    """Return the folder of each class's images, if each class has exactly one of its own."""
    folders: dict[int, str] = {}
    for name, label in zip(names, labels.tolist(), strict=True):
        folder = name.rpartition("/")[0].rpartition("/")[2]
        if not folder or folders.setdefault(label, folder) != folder:
            return None
    if len(set(folders.values())) < len(folders):
        return None
    return [folders[label] for label in sorted(folders)]
