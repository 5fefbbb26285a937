"""Image datasets on disk in the layouts of torchvision's classes: `torchvision:Food101`.

torchvision finds the files and their labels; encoded files are then read as they are, and only
datasets that keep arrays are asked for their images.
"""

import difflib
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastssd.core.reading import reason_of
from fastssd.data.sources.image_files import FileSplit
from fastssd.data.sources.listing import Listing, without_repeats
from fastssd.data.sources.rows import Within
from fastssd.data.sources.source import (
    TEST,
    TRAIN,
    VAL,
    Content,
    OpenedSource,
    SourceOptions,
    SourceSplit,
)
from fastssd.errors import ConfigError, DataError

PREFIX = "torchvision:"
NAMES = (
    "Caltech101",
    "Caltech256",
    "Country211",
    "DTD",
    "EuroSAT",
    "FGVCAircraft",
    "FashionMNIST",
    "Flowers102",
    "Food101",
    "GTSRB",
    "Imagenette",
    "KMNIST",
    "MNIST",
    "OxfordIIITPet",
    "RenderedSST2",
    "STL10",
    "SUN397",
    "SVHN",
    "StanfordCars",
    "USPS",
)
"""Datasets of one label an image that torchvision reads without running anything from their files.
CIFAR, whose files are pickles, has a source of its own."""

_SPLITS = {TRAIN: (TRAIN,), VAL: (VAL, "valid", "validation"), TEST: (TEST,)}
_FILES = ("_image_files", "_images", "_samples", "samples")
_IN_FOLDERS = {
    "Caltech101": ("101_ObjectCategories", "image_{number:04d}.jpg"),
    "Caltech256": ("256_ObjectCategories", "{label:03d}_{number:04d}.jpg"),
}
"""Datasets that keep numbers of files: the folder of the classes' folders, and a file's name."""
_NO_SUCH_SPLIT = "Unknown value"
_LABELS = ("_labels", "targets", "labels", "y")


@dataclass(frozen=True, slots=True)
class ArraySplit:
    """One split of a torchvision dataset that keeps arrays.

    Attributes:
        labels: (N,) int64.
        names: (N) ``SPLIT[row]``.
        dataset: torchvision's.
    """

    labels: NDArray[np.int64]
    names: Sequence[str]
    dataset: Any

    def read(self, row: int) -> Content:
        try:
            image, _ = self.dataset[row]
        except Exception as error:  # whatever torchvision's own code makes of damaged arrays
            raise ValueError(reason_of(error)) from error
        return np.asarray(image.convert("RGB"))

    def missing(self, rows: NDArray[np.int64]) -> Sequence[str]:
        return ()


def open_torchvision(origin: str, options: SourceOptions) -> OpenedSource:
    """Open a dataset by the name of its torchvision class, in the folder `--root`.

    Raises:
        ConfigError: If there is no such class here, or no root was named.
        DataError: If torchvision does not find the files.
    """
    name = origin.removeprefix(PREFIX)
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
        raise ConfigError(f"SOURCE {origin}: choose one of {', '.join(NAMES)}{hint}")
    if options.root is None:
        raise ConfigError(f"SOURCE {origin}: say with --root in which folder it lies")
    kind: Callable[..., Any] = getattr(import_module("torchvision.datasets"), name)
    datasets = _datasets(kind, options.root, origin)
    notes: list[str] = []
    splits = {
        split: _split(split, dataset, options.root, notes) for split, dataset in datasets.items()
    }
    num_classes = 1 + max(int(split.labels.max(initial=0)) for split in splits.values())
    classes = [str(each) for each in getattr(datasets[TRAIN], "classes", None) or []]
    if len(classes) < num_classes:
        classes = [str(label) for label in range(num_classes)]
    return OpenedSource(
        name=name.lower(),
        kind="torchvision",
        origin=origin,
        classes=classes,
        splits=splits,
        notes=notes,
    )


def _datasets(kind: Callable[..., Any], root: Path, origin: str) -> dict[str, Any]:
    """Return torchvision's dataset of every split that the class knows."""
    accepted = inspect.signature(kind).parameters
    common: dict[str, Any] = {"root": str(root)}
    if "download" in accepted:
        common["download"] = False
    if "train" in accepted:
        choices: dict[str, list[dict[str, Any]]] = {
            TRAIN: [{"train": True}],
            TEST: [{"train": False}],
        }
    elif "split" in accepted:
        choices = {split: [{"split": n} for n in names] for split, names in _SPLITS.items()}
    else:
        choices = {TRAIN: [{}]}
    found = {}
    for split, alternatives in choices.items():
        for choice in alternatives:
            try:
                found[split] = kind(**common, **choice)
            except Exception as error:  # whatever its parsers and SciPy's make of damaged files
                if isinstance(error, ValueError) and _NO_SUCH_SPLIT in str(error):
                    continue
                reason = " ".join(str(error).replace("download=True", "--root").split())
                raise DataError(f"{origin}: not found in {root}: {reason}") from error
            break
    if TRAIN not in found:
        raise DataError(f"{origin}: has no training split in {root}")
    return found


def _split(
    split: str,
    dataset: Any,  # noqa: ANN401
    root: Path,
    notes: list[str],
) -> SourceSplit:
    num_images = len(dataset)
    listed = _listed(dataset) or _attribute(dataset, _FILES, num_images)
    labels = _attribute(dataset, _LABELS, num_images)
    pairs = [each if isinstance(each, tuple) else (each, None) for each in listed or ()]
    if labels is None and listed is not None:
        labels = [label for _, label in pairs]
    if labels is None:
        labels = [dataset[row][1] for row in range(num_images)]
    numbers = np.asarray(labels, dtype=np.int64)
    if listed is None:
        return ArraySplit(numbers, [f"{split}[{row}]" for row in range(num_images)], dataset)
    listing = Listing(str(root), Within(root))
    for row, (file, _) in enumerate(pairs):
        # torchvision's paths start from the current folder.
        path = os.path.abspath(file)  # noqa: PTH100 - keeps links
        listing.add(path, int(numbers[row]), f"image {row} of {split}")
    kept, rows, repeats = without_repeats(listing)
    notes += repeats
    return FileSplit(numbers[rows], kept.names, root)


def _listed(dataset: Any) -> list[Path]:  # noqa: ANN401
    """Return the files of a dataset that would open them itself, as any kind of image."""
    folder, name = _IN_FOLDERS.get(type(dataset).__name__, ("", ""))
    if not folder:
        return []
    return [
        Path(
            dataset.root, folder, dataset.categories[label], name.format(label=label + 1, number=n)
        )
        for label, n in zip(dataset.y, dataset.index, strict=True)
    ]


def _attribute(dataset: Any, names: Sequence[str], length: int) -> Sequence[Any] | None:  # noqa: ANN401
    """Return the first of some attributes that has one item an image."""
    for name in names:
        value: Sequence[Any] = getattr(dataset, name, ())
        if len(value) == length:
            return value
    return None
