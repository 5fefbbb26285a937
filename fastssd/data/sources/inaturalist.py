"""iNaturalist's annotation files, `train2018.json` and `val2018.json` (COCO's form)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastssd.core.reading import read_json
from fastssd.data.sources.image_files import FileSplit
from fastssd.data.sources.image_list import within_root
from fastssd.data.sources.listing import Listing, shared_images, without_repeats
from fastssd.data.sources.parts import find_parts, is_part, training_file
from fastssd.data.sources.rows import label_text, whole_number
from fastssd.data.sources.source import (
    TEST,
    TRAIN,
    VAL,
    OpenedSource,
    SourceOptions,
)
from fastssd.errors import ConfigError, DataError

_SUFFIX = ".json"


def is_inaturalist(path: Path) -> bool:
    """Return whether a path is an annotation file, or a folder with one for training."""
    return is_part(path, _SUFFIX)


def open_inaturalist(origin: str, options: SourceOptions) -> OpenedSource:
    """Read annotation files; no image is opened.

    The official validation set becomes the test split, as in all published numbers: it is the only
    one with labels besides the training set.

    Raises:
        ConfigError: If there is no such file.
        DataError: If a file is damaged or contradicts itself.
    """
    train = training_file(origin, _SUFFIX, "annotation file")
    parts, notes = find_parts(train, options)
    if VAL in parts and TEST not in parts and options.val is None:
        parts[TEST] = parts.pop(VAL)
        notes = [f"{parts[TEST]} is taken as the test split, as all published numbers do"]
    contents = {split: _load(path) for split, path in parts.items()}
    classes = _classes(contents[TRAIN], parts[TRAIN])
    root = options.root or train.parent
    if not root.is_dir():
        raise ConfigError(f"--root {root}: there is no such folder")
    numbers = {number: label for label, number in enumerate(classes)}
    splits, listings = {}, {}
    for split, path in parts.items():
        joined = _join(contents[split], path, root, classes)
        listing, _, repeats = without_repeats(joined)
        notes += repeats
        listings[split] = listing
        labels = np.array([numbers[int(label)] for label in listing.labels], dtype=np.int64)
        splits[split] = FileSplit(labels, listing.names, root)
    names = list(classes.values())
    if len(set(names)) < len(names):
        names = [f"{number} {name}" for number, name in classes.items()]
    return OpenedSource(
        name=train.stem,
        kind="inat",
        origin=origin,
        classes=names,
        splits=splits,
        notes=[*notes, *shared_images(listings)],
        taken_from={split: str(path) for split, path in parts.items()},
    )


def _load(path: Path) -> Mapping[str, Any]:
    keys = {"images": list, "annotations": list}
    return read_json(path, keys, remedy="expected is an annotation file in COCO's form")


def _classes(content: Mapping[str, Any], path: Path) -> dict[int, str]:
    """Return the categories' names by their number, in the order of the labels."""
    try:
        categories = {
            whole_number(c["id"]): label_text(c.get("name", c["id"])) for c in content["categories"]
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: its list of categories is missing or damaged: {error!r}") from (
            error
        )
    if len(categories) < len(content["categories"]) or not categories:
        reason = "has two categories of one id" if categories else "has no categories"
        raise DataError(f"{path}: {reason}")
    return dict(sorted(categories.items()))


def _join(
    content: Mapping[str, Any], path: Path, root: Path, classes: Mapping[int, str]
) -> Listing:
    """Match images with annotations by the image's number; the label is the category's number."""
    listing = Listing(str(path), within_root(root))
    try:
        labels: dict[int, int] = {}
        for annotation in content["annotations"]:
            number = whole_number(annotation["image_id"])
            category = whole_number(annotation["category_id"])
            if category not in classes:
                raise DataError(
                    f"{path}: image {number} is of category {category}, which is not among the "
                    f"{len(classes)} categories of the training set"
                )
            if labels.setdefault(number, category) != category:
                raise DataError(
                    f"{path}: image {number} has two categories, {labels[number]} and {category}"
                )
        for image in content["images"]:
            number, name = whole_number(image["id"]), image["file_name"]
            if not isinstance(name, str):
                raise DataError(f"{path}: image {number} has {str(name)[:40]!r} as its file_name")
            if number not in labels:
                raise DataError(f"{path}: image {number} ({name}) has no annotation")
            listing.add(name, labels[number], f"image {number}")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: an image or annotation lacks a field or has a wrong one: {error!r}"
        ) from error
    if not listing.names:
        raise DataError(f"{path}: lists no images")
    return listing
