"""A tree of image files: ROOT/train/CLASS/*, also val and test; or ROOT/CLASS/* as train alone."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fastssd.data.sources.image_files import FileSplit
from fastssd.data.sources.source import SPLITS, TRAIN, OpenedSource, Source, SourceOptions
from fastssd.errors import ConfigError, DataError

EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".png",
    ".bmp",
    ".gif",
    ".ppm",
    ".pgm",
    ".tif",
    ".tiff",
    ".webp",
)


def is_image_folder(path: Path) -> bool:
    """Return whether a path holds a training folder with folders in it."""
    return (path / TRAIN).is_dir() and bool(_folders(path / TRAIN))


def open_image_folder(origin: str, options: SourceOptions) -> Source:
    """List the images of a tree; none is opened. The classes are its folders' names, sorted.

    Raises:
        ConfigError: If there is no such folder or it holds no classes.
        DataError: If a split has a class that the training split lacks.
    """
    root = Path(origin)
    if not root.is_dir():
        raise ConfigError(f"{origin}: there is no such folder")
    notes: list[str] = []
    if (root / TRAIN).is_dir():
        folders = {name: root / name for name in SPLITS if (root / name).is_dir()}
        aside = [name for name in _folders(root) if name not in folders]
        if aside:
            notes.append(f"not used: {', '.join(aside)} (the splits are {', '.join(SPLITS)})")
    else:
        folders = {TRAIN: root}
        present = [name for name in SPLITS if (root / name).is_dir()]
        if present:
            raise ConfigError(f"{root}: has {', '.join(present)} but no {TRAIN} folder")
    classes = _folders(folders[TRAIN])
    if not classes:
        raise ConfigError(
            f"{folders[TRAIN]}: holds no folders; expected are {root}/train/CLASS/IMAGE, or "
            f"{root}/CLASS/IMAGE"
        )
    splits = {name: _list(root, folder, classes, notes) for name, folder in folders.items()}
    name = root.resolve().name
    return OpenedSource(
        name=name, kind="folder", origin=origin, classes=classes, splits=splits, notes=notes
    )


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _list(root: Path, folder: Path, classes: Sequence[str], notes: list[str]) -> FileSplit:
    unknown = sorted(set(_folders(folder)) - set(classes))
    if unknown:
        raise DataError(
            f"{folder}: its classes {', '.join(unknown[:5])} are not among the training classes; "
            f"add them to {root / TRAIN} or remove them"
        )
    names: list[str] = []
    labels: list[int] = []
    num_others = 0
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            continue
        files = sorted(_files(folder / name))
        images = [file for file in files if file.lower().endswith(EXTENSIONS)]
        num_others += len(files) - len(images)
        names.extend(Path(file).relative_to(root).as_posix() for file in images)
        labels.extend([label] * len(images))
    if num_others:
        notes.append(f"not used: {num_others} files in {folder} that are not named like images")
    return FileSplit(np.array(labels, dtype=np.int64), names, root)


def _files(folder: Path) -> Iterator[str]:
    # os.walk, since Path.rglob follows no links to folders and is several times slower.
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for file in files:
            if not file.startswith("."):
                yield os.path.join(parent, file)  # noqa: PTH118 - a million of them
