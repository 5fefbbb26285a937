"""Opening a dataset directory: `meta.json` and the splits, checked against each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastssd.core.files import check_seal
from fastssd.core.places import usable
from fastssd.core.reading import read_json, read_json_lines
from fastssd.data.checksums import check_files
from fastssd.data.identity import DatasetIdentity
from fastssd.data.orientation import upright_sizes
from fastssd.data.storage.files import load_array
from fastssd.data.storage.formats import STORAGES
from fastssd.data.storage.storage import Int32, Storage
from fastssd.errors import ConfigError, DataError

Int64 = NDArray[np.int64]

META_FILE = "meta.json"
LAYOUT_VERSION = 1

_KEYS = {"layout": int, "name": str, "format": str, "classes": list, "splits": dict}
_REMEDY = "convert the dataset again"


class Split:
    """The samples of one split.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        labels: (N,) int64.
        counts: (C,) int64 images per class.
        storage: The images, by sample, as they lie in their files.
        orientations: (N,) uint8 Exif orientation of the stored images, or None where all are
            upright.
        sizes: (N, 2) int32 height and width of the upright images.
        names_file: Its source files' names, a line of JSON each.
    """

    def __init__(
        self,
        name: str,
        *,
        labels: Int64,
        counts: Int64,
        storage: Storage,
        names_file: Path,
        orientations: NDArray[np.uint8] | None = None,
    ) -> None:
        self.name = name
        self.labels = labels
        self.counts = counts
        self.storage = storage
        self.orientations = orientations
        self.sizes: Int32 = upright_sizes(storage.sizes, orientations)
        self.names_file = names_file
        self._names: list[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def describe(self, sample: int) -> str:
        """Return the name of the source file that a sample came from, for messages.

        The names are read at the first call. It never fails, since it is called to report
        another failure: without names it returns the dataset directory.
        """
        if self._names is None:
            try:
                self._names = read_json_lines(self.names_file, str, remedy=_REMEDY)
            except DataError:
                self._names = []
        if 0 <= sample < len(self._names):
            return self._names[sample]
        return str(self.names_file.parent)


class Dataset:
    """A dataset directory. Splits are opened, and checked, when they are asked for.

    Attributes:
        path: The directory.
        meta: The content of `meta.json`.
        name: The dataset's name.
        format: The storage format's name.
        classes: (C) names, in the order of the labels.
        splits: The names of the splits there are.
        identity: What tells it from others.
    """

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path = path
        self.meta = meta
        self.name: str = meta["name"]
        self.format: str = meta["format"]
        self.classes: list[str] = meta["classes"]
        self.splits: list[str] = list(meta["splits"])
        self.identity = DatasetIdentity.of(meta)
        self._opened: dict[str, Split] = {}
        self._relabelled: Int64 | None = None

    def with_classes(self, classes: Sequence[str], labels: Int64) -> "Dataset":
        """Return the dataset with labels of other classes.

        Args:
            classes: (C) names.
            labels: The new label, below C, of each label that there is now.
        """
        splits = {}
        for name, entry in self.meta["splits"].items():
            counts = np.bincount(labels, weights=entry["per_class"], minlength=len(classes))
            splits[name] = {**entry, "per_class": counts.astype(np.int64).tolist()}
        other = Dataset(self.path, {**self.meta, "classes": list(classes), "splits": splits})
        other.identity, other._relabelled = self.identity, labels
        return other

    def split(self, name: str) -> Split:
        """Return a split.

        Raises:
            ConfigError: If there is none of that name.
            DataError: If its files are missing, damaged or contradict `meta.json`.
        """
        if name not in self.splits:
            raise ConfigError(f"{self.path} has no split {name!r}; it has {', '.join(self.splits)}")
        if name not in self._opened:
            self._opened[name] = self._open(name)
        return self._opened[name]

    def _open(self, name: str) -> Split:
        check_files(self.path, self.meta, split=name)
        labels: Int64 = load_array(self.path / f"{name}.labels.npy", dtype=np.int64, ndim=1)
        entry = self.meta["splits"][name]
        num_classes = len(self.classes if self._relabelled is None else self._relabelled)
        if len(labels) and not (labels.min() >= 0 and labels.max() < num_classes):
            raise DataError(
                f"{self.path / f'{name}.labels.npy'}: labels from {labels.min()} to "
                f"{labels.max()} for {num_classes} classes; convert the dataset again"
            )
        if self._relabelled is not None:
            labels = self._relabelled[labels]
        counts = np.bincount(labels, minlength=len(self.classes)).astype(np.int64)
        if len(labels) != entry["images"] or counts.tolist() != entry["per_class"]:
            raise DataError(
                f"{self.path}: {name}.labels.npy ({len(labels)} images) contradicts {META_FILE} "
                f"({entry['images']} images) in its number of images or of images per class; "
                "convert the dataset again"
            )
        names_file = self.path / f"{name}.names.jsonl"
        if not names_file.is_file():
            raise DataError(f"{names_file}: missing; convert the dataset again")
        storage = STORAGES[self.format].open(self.path, name)
        if len(storage) != len(labels):
            raise DataError(
                f"{self.path}: split {name!r} stores {len(storage)} images for {len(labels)} "
                "labels; convert the dataset again"
            )
        return Split(
            name,
            labels=labels,
            counts=counts,
            storage=storage,
            names_file=names_file,
            orientations=self._orientations(name, len(labels)),
        )

    def _orientations(self, name: str, num_images: int) -> NDArray[np.uint8] | None:
        """Load the orientations of a split's images, if `meta.json` says that some are turned."""
        if not self.meta["splits"][name].get("turned"):
            return None
        path = self.path / f"{name}.orientations.npy"
        orientations: NDArray[np.uint8] = load_array(path, dtype=np.uint8, ndim=1)
        valid = len(orientations) == num_images and orientations.min() >= 1
        if not valid or orientations.max() > 8:
            raise DataError(
                f"{path}: holds no Exif orientation (1 to 8) for each of the {num_images} images; "
                "convert the dataset again"
            )
        return orientations


def open_dataset(path: str | Path) -> Dataset:
    """Open a dataset directory.

    Raises:
        ConfigError: If no directory can have such a name.
        DataError: If it is missing or its `meta.json` is missing, damaged or of a format that is
            not known here.
    """
    path = Path(path)
    usable(path, "the dataset directory ")
    if not path.is_dir():
        raise DataError(
            f"{path}: there is no such dataset directory; make one with "
            f"`python tools/convert_dataset.py SOURCE {path}`"
        )
    meta_file = path / META_FILE
    if not meta_file.is_file():
        raise DataError(
            f"{path}: not a dataset directory: it has no {META_FILE}; make one with "
            "`python tools/convert_dataset.py SOURCE OUT`"
        )
    meta = read_json(meta_file, _KEYS, remedy=_REMEDY)
    problem = _meta_problem(meta)
    if problem:
        raise DataError(f"{meta_file}: {problem}; {_REMEDY}")
    if meta["format"] not in STORAGES:
        raise DataError(
            f"{meta_file}: the format {meta['format']!r} is not known to this version of fastssd, "
            f"which reads {', '.join(STORAGES)}"
        )
    try:
        check_seal(meta)
    except ValueError as error:
        raise DataError(f"{meta_file}: {error}; {_REMEDY}") from error
    return Dataset(path, meta)


def _meta_problem(meta: Mapping[str, Any]) -> str | None:
    if meta["layout"] != LAYOUT_VERSION:
        return f"layout {meta['layout']} where {LAYOUT_VERSION} is expected"
    if not meta["classes"] or not all(isinstance(name, str) for name in meta["classes"]):
        return "'classes' holds no names"
    for split, entry in meta["splits"].items():
        if Path(split).name != split:
            return f"{split!r} is no name of a split"
        if not isinstance(entry, Mapping):
            return f"split {split!r} is not an object"
        per_class = entry.get("per_class")
        if not isinstance(entry.get("images"), int) or not isinstance(per_class, list):
            return f"split {split!r} lacks 'images' or 'per_class'"
        if len(per_class) != len(meta["classes"]):
            return f"split {split!r} counts {len(per_class)} of {len(meta['classes'])} classes"
    return None
