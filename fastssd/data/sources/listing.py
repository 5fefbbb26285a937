"""From lists of (image, label as written) to classes and labels, whatever the kind of list."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastssd.data.sources.source import TRAIN
from fastssd.errors import ConfigError, DataError

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Listing:
    """What a file says about one split.

    Attributes:
        file: The file, for messages.
        names: (N) images.
        labels: (N) labels as they are written: numbers or names.
        places: (N) where each stands in the file, such as ``line 7``; empty where that says
            nothing.
    """

    file: str
    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def add(self, name: str, label: str, place: str) -> None:
        """Append an image."""
        self.names.append(name)
        self.labels.append(label)
        self.places.append(place)

    def where(self, row: int) -> str:
        """Return file and place of a row, for messages."""
        return f"{self.file}, {self.places[row]}"


def without_repeats(listing: Listing) -> tuple[Listing, list[str]]:
    """Keep each image once.

    Returns:
        The listing without the repeats, and notes that say how many there were.

    Raises:
        DataError: If an image is listed with two labels.
    """
    first: dict[str, int] = {}
    repeated = None
    for row, name in enumerate(listing.names):
        before = first.setdefault(name, row)
        if before == row:
            continue
        if listing.labels[before] != listing.labels[row]:
            raise DataError(
                f"{listing.where(row)}: {name} has the label {listing.labels[row]}, and the label "
                f"{listing.labels[before]} in {listing.places[before]}: keep one of them"
            )
        repeated = row if repeated is None else repeated
    if repeated is None:
        return listing, []
    kept = Listing(listing.file)
    for row in first.values():
        kept.add(listing.names[row], listing.labels[row], listing.places[row])
    note = (
        f"{len(listing.names) - len(first)} images are listed more than once and kept once, the "
        f"first in {listing.where(repeated)}: {listing.names[repeated]}"
    )
    return kept, [note]


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
    listings: Mapping[str, Listing], class_names: Sequence[str] | None = None
) -> tuple[list[str], dict[str, NDArray[np.int64]]]:
    """Decide the classes and the number of each.

    Labels that are all whole numbers are taken as they are: 0 to C - 1 without gaps in the
    training list. Other labels are names; their classes are the names in sorted order. Numbered
    classes are called after the folders of their training images, where each class has a folder of
    its own, else after their numbers.

    Args:
        listings: By split; ``train`` must be there.
        class_names: (C) names in the order of the labels, if they are known.

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
        classes, labels = _named(listings, class_names)
    _check_gaps(listings[TRAIN], labels[TRAIN], classes)
    if numbered and class_names is None:
        classes = _folder_names(listings[TRAIN].names, labels[TRAIN]) or classes
    return classes, labels


def read_class_names(path: Path) -> list[str]:
    """Read a file with the name of one class a line.

    Raises:
        ConfigError: If it cannot be read, or a name is there twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--classes {path}: cannot be read: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not names:
        reason = f"has {twice[0]!r} more than once" if twice else "is empty"
        raise ConfigError(f"--classes {path}: {reason}; expected is one name a line")
    return names


def _is_number(label: str) -> bool:
    return label.removeprefix("-").isascii() and label.removeprefix("-").isdigit()


def _numbered(
    listings: Mapping[str, Listing], class_names: Sequence[str] | None
) -> tuple[list[str], dict[str, NDArray[np.int64]]]:
    largest = max(map(int, set(listings[TRAIN].labels)))
    num_classes = largest + 1 if class_names is None else len(class_names)
    for listing in listings.values():
        numbers = {label: int(label) for label in set(listing.labels)}
        wrong = {label for label, number in numbers.items() if not 0 <= number < num_classes}
        if wrong:
            row = next(row for row, label in enumerate(listing.labels) if label in wrong)
            known = "the class names" if class_names else "the training images"
            raise DataError(
                f"{listing.where(row)}: label {listing.labels[row]} of {listing.names[row]} is not "
                f"among the labels of {known}, 0 to {num_classes - 1}"
            )
    train = set(map(int, set(listings[TRAIN].labels)))
    if num_classes > 2 * len(train) + 1000:
        # A label like 10**12 must not make as many class names.
        raise _gaps(listings[TRAIN], num_classes, len(train), [])
    labels = {
        split: np.array([int(label) for label in listing.labels], dtype=np.int64)
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
                f"{listing.where(row)}: label {listing.labels[row]!r} of {listing.names[row]} is "
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
