"""Image datasets on disk in the layouts of torchvision's classes: `torchvision:Food101`.

torchvision finds the files and their labels; encoded files are then read as they are, and only
datasets that keep arrays are asked for their images.
"""

import difflib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastssd.data.sources.source import (
    TEST,
    TRAIN,
    VAL,
    Content,
    OpenedSource,
    Source,
    SourceOptions,
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
_LABELS = ("_labels", "targets", "labels", "y")


@dataclass(frozen=True, slots=True)
class TorchvisionSplit:
    """One split of a torchvision dataset.

    Attributes:
        labels: (N,) int64.
        names: (N) paths of the files, or ``SPLIT[row]``.
        files: (N) the files, or None where the dataset keeps arrays.
        dataset: torchvision's.
    """

    labels: NDArray[np.int64]
    names: Sequence[str]
    files: Sequence[Path] | None
    dataset: Any

    def read(self, row: int) -> Content:
        if self.files is not None:
            return self.files[row].read_bytes()
        image, _ = self.dataset[row]
        return np.asarray(image.convert("RGB"))

    def missing(self, rows: NDArray[np.int64]) -> Sequence[str]:
        if self.files is None:
            return ()
        return [self.names[row] for row in rows if not self.files[row].is_file()]


def open_torchvision(origin: str, options: SourceOptions) -> Source:
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
    splits = {split: _split(split, dataset, options.root) for split, dataset in datasets.items()}
    num_classes = 1 + max(int(split.labels.max(initial=0)) for split in splits.values())
    classes = [str(each) for each in getattr(datasets[TRAIN], "classes", None) or []]
    if len(classes) < num_classes:
        classes = [str(label) for label in range(num_classes)]
    return OpenedSource(
        name=name.lower(), kind="torchvision", origin=origin, classes=classes, splits=splits
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
            except ValueError:  # torchvision's answer to a split that a dataset has not
                continue
            except (RuntimeError, OSError) as error:
                reason = " ".join(str(error).replace("download=True", "--root").split())
                raise DataError(f"{origin}: not found in {root}: {reason}") from error
            break
    if TRAIN not in found:
        raise DataError(f"{origin}: has no training split in {root}")
    return found


def _split(split: str, dataset: Any, root: Path) -> TorchvisionSplit:  # noqa: ANN401
    num_images = len(dataset)
    listed = _attribute(dataset, _FILES, num_images)
    files, labels = None, _attribute(dataset, _LABELS, num_images)
    if listed is not None:
        pairs = [each if isinstance(each, tuple) else (each, None) for each in listed]
        files = [Path(file) for file, _ in pairs]
        if labels is None:
            labels = [label for _, label in pairs]
    if labels is None:
        labels = [dataset[row][1] for row in range(num_images)]
    names = [f"{split}[{row}]" for row in range(num_images)]
    if files is not None:
        names = [str(file.relative_to(root) if root in file.parents else file) for file in files]
    return TorchvisionSplit(np.asarray(labels, dtype=np.int64), names, files, dataset)


def _attribute(dataset: Any, names: Sequence[str], length: int) -> Sequence[Any] | None:  # noqa: ANN401
    """Return the first of some attributes that has one item an image."""
    for name in names:
        value: Sequence[Any] = getattr(dataset, name, ())
        if len(value) == length:
            return value
    return None
