"""Datasets of the long-tail literature by their usual names, with what their files must hold."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fastssd.core.reading import read_bytes, reading
from fastssd.data.sources import cifar
from fastssd.data.sources.image_list import read_list, source_of_files
from fastssd.data.sources.inaturalist import open_inaturalist
from fastssd.data.sources.listing import Listing
from fastssd.data.sources.source import TEST, TRAIN, VAL, OpenedSource, SourceOptions
from fastssd.errors import ConfigError, DataError

_CIFAR_LT = re.compile(r"(cifar100?)(?:_lt)?_(?:ir|if)?(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What the published files of a dataset hold.

    Attributes:
        classes: C.
        images: Images by split.
        largest: Training images of the largest class.
        smallest: Training images of the smallest class.
    """

    classes: int
    images: Mapping[str, int]
    largest: int
    smallest: int


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownLists:
    """A dataset that is published as lists of another dataset's images.

    Attributes:
        title: As papers write it.
        lists: The list of each split.
        blobs: The first digits of each list's git blob, by which copies are recognised: the same
            in SSD-LT, classifier-balancing, BALMS, PaCo and others. Several where copies differ in
            their last newline alone.
        folders: Where the lists may lie within the root.
        images: Where the images come from, for messages.
        expected: What the lists hold.
    """

    title: str
    lists: Mapping[str, str]
    blobs: Mapping[str, Sequence[str]]
    folders: Sequence[str]
    images: str
    expected: Expected


# Sources: docs/datasets.md.
CIFAR = {
    "cifar10": Expected(
        classes=10, images={TRAIN: 50_000, TEST: 10_000}, largest=5000, smallest=5000
    ),
    "cifar100": Expected(
        classes=100, images={TRAIN: 50_000, TEST: 10_000}, largest=500, smallest=500
    ),
}
LISTS = {
    "imagenet_lt": KnownLists(
        title="ImageNet-LT",
        lists={split: f"ImageNet_LT_{split}.txt" for split in (TRAIN, VAL, TEST)},
        blobs={TRAIN: ["a063f095"], VAL: ["3ed3188b", "20570e9a"], TEST: ["76a2fb97"]},
        folders=("ImageNet_LT", "data/ImageNet_LT"),
        images="ILSVRC 2012 from image-net.org: its train/ and val/",
        expected=Expected(
            classes=1000,
            images={TRAIN: 115_846, VAL: 20_000, TEST: 50_000},
            largest=1280,
            smallest=5,
        ),
    ),
    "places_lt": KnownLists(
        title="Places-LT",
        lists={split: f"Places_LT_{split}.txt" for split in (TRAIN, VAL, TEST)},
        blobs={TRAIN: ["6392252f"], VAL: ["b93a2ca5"], TEST: ["e732e58b"]},
        folders=("Places_LT", "data/Places_LT"),
        images="places365standard_easyformat.tar from places2.csail.mit.edu: its train/ and val/",
        expected=Expected(
            classes=365, images={TRAIN: 62_500, VAL: 7_300, TEST: 36_500}, largest=4980, smallest=5
        ),
    ),
    "inat18": KnownLists(
        title="iNaturalist 2018",
        lists={TRAIN: "iNaturalist18_train.txt", TEST: "iNaturalist18_val.txt"},
        blobs={TRAIN: ["4accdb75"], TEST: ["4c239008"]},
        folders=("iNaturalist18", "data/iNaturalist18"),
        images="train_val2018.tar.gz of the iNaturalist 2018 competition: its train_val2018/",
        expected=Expected(
            classes=8142, images={TRAIN: 437_513, TEST: 24_426}, largest=1000, smallest=2
        ),
    ),
}
_OTHER_NAMES = {
    "imagenetlt": "imagenet_lt",
    "placeslt": "places_lt",
    "inaturalist18": "inat18",
    "inaturalist2018": "inat18",
    "inat2018": "inat18",
}
DESCRIPTIONS = {
    "cifar10": "CIFAR-10, python or binary files, also within their .tar.gz",
    "cifar100": "CIFAR-100, likewise",
    "cifar100_lt_100": "CIFAR-100-LT of imbalance 100; likewise any cifar10_lt_N, cifar100_lt_N",
    "imagenet_lt": "ImageNet-LT: its three lists, and ImageNet's train/ and val/",
    "places_lt": "Places-LT: its three lists, and Places365's train/ and val/",
    "inat18": "iNaturalist 2018: its lists or train2018.json, and train_val2018/",
}


@dataclass(frozen=True, slots=True)
class Known:
    """A dataset that was asked for by name.

    Attributes:
        key: In `CIFAR` or `LISTS`.
        imbalance: Of the long tail that the name asks for, if any.
    """

    key: str
    imbalance: float | None = None


def find_known(text: str) -> Known | None:
    """Return the dataset that a name stands for, whatever its case and dashes; None for others."""
    name = text.lower().replace("-", "_")
    name = _OTHER_NAMES.get(name, name)
    if name in CIFAR or name in LISTS:
        return Known(name)
    match = _CIFAR_LT.fullmatch(name)
    if match and int(match[2]) >= 1:
        return Known(match[1], float(match[2]))
    return None


def open_known(origin: str, options: SourceOptions) -> OpenedSource:
    """Open a dataset by name and check that it is the published one.

    Raises:
        ConfigError: If it was not said where its files are.
        DataError: If files are missing or hold something else; names them.
    """
    known = find_known(origin)
    if known is None:
        raise ConfigError(f"SOURCE {origin}: known datasets are {', '.join(DESCRIPTIONS)}")
    if options.root is None or not options.root.exists():
        reason = "there is no such folder" if options.root else "say where its files are"
        raise ConfigError(
            f"--root {options.root or 'DIR'}: {reason}; for {origin} it holds {_wanted(known)}"
        )
    root = options.root
    name = origin.lower().replace("-", "_")
    if known.key in CIFAR:
        source = _open_cifar(known, origin, root, options)
        _check(source, CIFAR[known.key])
        return replace(source, name=name, origin=origin, imbalance=known.imbalance)
    source = _open_lists(LISTS[known.key], known, origin, root, options)
    _check(source, LISTS[known.key].expected)
    return replace(source, name=name, origin=origin)


def _wanted(known: Known) -> str:
    if known.key in CIFAR:
        layouts = [layout for layout in cifar.LAYOUTS if layout.name == known.key]
        return " or ".join(f"{layout.archive} (or {layout.folder}/)" for layout in layouts)
    lists = LISTS[known.key]
    return f"{', '.join(lists.lists.values())} and the images ({lists.images})"


def _open_cifar(known: Known, origin: str, root: Path, options: SourceOptions) -> OpenedSource:
    places = [root]
    for layout in cifar.LAYOUTS:
        if layout.name == known.key:
            places += [root / layout.folder, root / layout.archive]
    # A damaged copy is named rather than passed over: the first that is there is the one.
    place = next((p for p in places if cifar.is_cifar(p)), None)
    if place is None:
        raise DataError(f"{root}: {origin} is not there; expected is {_wanted(known)}")
    source = cifar.open_cifar(str(place), options)
    if source.name != known.key:
        raise DataError(f"{place}: holds {source.name}, not {known.key}")
    return source


def _open_lists(
    lists: KnownLists, known: Known, origin: str, root: Path, options: SourceOptions
) -> OpenedSource:
    folders = [options.lists] if options.lists else [root, *(root / f for f in lists.folders)]
    for folder in folders:
        if all((folder / name).is_file() for name in lists.lists.values()):
            break
    else:
        if known.key == "inat18" and (folders[0] / "train2018.json").is_file():
            options = replace(options, root=root)
            return open_inaturalist(str(folders[0] / "train2018.json"), options)
        absent = [n for n in lists.lists.values() if not any((f / n).is_file() for f in folders)]
        other = " (or train2018.json and val2018.json)" if known.key == "inat18" else ""
        raise DataError(
            f"{origin}: missing are {', '.join(absent or lists.lists.values())}{other}, looked for "
            f"together in {', '.join(map(str, folders))}; they are published in the folder "
            f"data/{lists.folders[0]} of facebookresearch/classifier-balancing; say where they "
            "are with --lists DIR"
        )
    notes = []
    listings = {}
    for split, name in lists.lists.items():
        notes += _identity_note(folder / name, lists.blobs[split])
        listings[split] = _flattened(read_list(folder / name, root), root)
    if known.key == "inat18":
        notes.append("the official validation set is the test split, as in all published numbers")
    _check_folders(lists, listings, root)
    return source_of_files(
        listings,
        name=known.key,
        kind="known",
        origin=origin,
        root=root,
        options=options,
        notes=notes,
    )


def _identity_note(path: Path, blobs: Sequence[str]) -> list[str]:
    with reading(path):
        content = read_bytes(path)
    # Not for security: the name that git gives a file's content.
    digest = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    if digest[:8] in blobs:
        return []
    return [
        f"{path} is not the file behind the published numbers (its git blob is {digest[:8]}, that "
        f"one's {' or '.join(blobs)})"
    ]


def _flattened(listing: Listing, root: Path) -> Listing:
    """Drop the class folders of ImageNet's val/, which unpacks without them, if they are absent."""
    first = listing.names[0] if listing.names else ""
    parts = first.split("/")
    flat = len(parts) == 3 and parts[0] == VAL and not (root / VAL / parts[1]).exists()
    if not flat or not (root / VAL / parts[2]).exists():
        return listing
    names = [f"{VAL}/{name.rpartition('/')[2]}" for name in listing.names]
    return replace(listing, names=names)


def _check_folders(lists: KnownLists, listings: Mapping[str, Listing], root: Path) -> None:
    examples: dict[str, str] = {}
    for listing in listings.values():
        for name in listing.names:
            examples.setdefault(name.split("/")[0], name)
    absent = [folder for folder in examples if not (root / folder).exists()]
    if absent:
        raise DataError(
            f"--root {root}: lacks the folders {', '.join(absent[:5])} of the lists (such as "
            f"{examples[absent[0]]}); the images of {lists.title} are {lists.images}"
        )


def _check(source: OpenedSource, expected: Expected) -> None:
    """Check a source against the published counts.

    Raises:
        DataError: Names every count that differs.
    """
    wrong = []
    if len(source.classes) != expected.classes:
        wrong.append(f"{len(source.classes):,} classes for {expected.classes:,}")
    for split, images in expected.images.items():
        found = len(source.splits[split].labels) if split in source.splits else 0
        if found != images:
            wrong.append(f"{found:,} {split} images for {images:,}")
    counts = np.bincount(source.splits[TRAIN].labels)
    for what, count, wanted in (
        ("largest", counts.max(), expected.largest),
        ("smallest", counts.min(), expected.smallest),
    ):
        if count != wanted:
            wrong.append(f"{count:,} images in the {what} class for {wanted:,}")
    if wrong:
        raise DataError(
            f"{source.origin}: is not what was published: {'; '.join(wrong)}. Fetch the files "
            "again, or convert what there is by its own path instead of the name"
        )
