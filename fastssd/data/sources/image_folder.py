"""A tree of image files: ROOT/train/CLASS/*, also val and test; or ROOT/CLASS/* as train alone."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fastssd.data.sources.file_tree import ClassFiles, SplitTree, entries_of
from fastssd.data.sources.image_files import FileSplit
from fastssd.data.sources.left_out import BESIDE, SPECIAL, UNUSED, LeftOut, unwanted
from fastssd.data.sources.rows import Within
from fastssd.data.sources.source import TRAIN, OpenedSource, SourceOptions
from fastssd.data.sources.split_names import choose_splits, is_like_a_split, unclear, usual_split
from fastssd.errors import ConfigError, DataError

_SHOWN = 3


def is_image_folder(path: Path) -> bool:
    """Return whether a path holds a training folder with folders in it."""
    if not path.is_dir():
        return False
    training = [name for name in _folders(path) if usual_split(name) == TRAIN]
    return any(_folders(path / name) for name in training)


def open_image_folder(origin: str, options: SourceOptions) -> OpenedSource:
    """List the images of a tree; none is opened. The classes are its folders' names, sorted.

    Raises:
        ConfigError: If there is no such folder, it holds no classes, or it could be read in two
            ways.
        DataError: If a folder cannot be listed, a split has a class that the training split
            lacks, or an image is of two classes.
    """
    root = Path(origin)
    if not root.is_dir():
        raise ConfigError(f"{origin}: there is no such folder")
    left_out = LeftOut()
    wanted = options.split_names
    parts = _parts(root, wanted)
    aside = _beside(root, parts, left_out)
    excluded = frozenset(parts.values())
    trees = {split: SplitTree(root, folder, left_out, excluded) for split, folder in parts.items()}
    classes = sorted(trees[TRAIN].folders)
    if not classes:
        raise ConfigError(
            f"{root / parts[TRAIN]}: holds no folders; expected are {root}/train/CLASS/IMAGE, or "
            f"{root}/CLASS/IMAGE; say with --split-names which folder is what"
        )
    for name in aside:
        if wanted is None and set(classes) & set(_folders(root / name)):
            raise unclear(str(root), f"{name} holds class folders too, and is no known split", name)
        left_out.add(UNUSED, name)
    for split, tree in trees.items():
        if tree.num_loose and not tree.folders:
            raise DataError(
                f"{root / parts[split]}: holds {tree.num_loose:,} images but no class folders, "
                f"which say their labels; sort them into folders as in {root / parts[TRAIN]}, or "
                "leave that part out with --split-names"
            )
        unknown = sorted(tree.folders.keys() - set(classes))
        if unknown:
            raise DataError(
                f"{root / parts[split]}: its classes {_listed(unknown)} are not among the training "
                f"classes; add them to {root / parts[TRAIN]} or remove them"
            )
    listed = {split: tree.list_images(classes) for split, tree in trees.items()}
    _check_level(root / parts[TRAIN], parts[TRAIN], listed[TRAIN], wanted)
    renamed = [
        f"{folder or 'SOURCE itself'} is taken as the {split} split"
        for split, folder in parts.items()
        if folder != split and (folder or wanted)
    ]
    notes = [*renamed, *_remarks(trees, listed), *left_out.lines()]
    return OpenedSource(
        name=root.resolve().name,
        kind="folder",
        origin=origin,
        classes=classes,
        splits={split: _split(root, classes, files) for split, files in listed.items()},
        notes=notes,
        taken_from={split: f"{folder or '.'}/" for split, folder in parts.items()},
    )


def _folders(folder: Path) -> list[str]:
    return [e.name for e in entries_of(str(folder)) if not unwanted(e.name) and e.is_dir()]


def _parts(root: Path, wanted: Mapping[str, str] | None) -> dict[str, str]:
    """Return the folder of each split as a path from the root; empty for the root itself."""
    folders = _folders(root)
    if wanted is not None:
        return {split: _wanted_folder(root, split, name) for split, name in wanted.items()}
    if any(usual_split(name) and _folders(root / name) for name in folders):
        chosen, _ = choose_splits(folders, None, where=str(root), exact=True)
        if TRAIN not in chosen:
            others = ", ".join(name for names in chosen.values() for name in names)
            raise unclear(str(root), f"has {others} but no {TRAIN} folder", folders[0])
        return {split: names[0] for split, names in chosen.items()}
    like = [name for name in folders if is_like_a_split(name)]
    if like:
        raise unclear(
            str(root),
            f"{_listed(like)} could be classes or splits (if all folders in it are classes: "
            f"--split-names {TRAIN}=.)",
            like[0],
        )
    return {TRAIN: ""}


def _wanted_folder(root: Path, split: str, name: str) -> str:
    option = f"--split-names {split}={name}"
    if os.path.normpath(name) == ".":
        return ""
    try:
        folder = Within(root).relative(name)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error
    if not (root / folder).is_dir():
        raise ConfigError(
            f"{option}: there is no such folder in {root}, which holds {', '.join(_folders(root))}"
        )
    return folder


def _beside(root: Path, parts: Mapping[str, str], left_out: LeftOut) -> list[str]:
    """Return the folders of the root that are no part of a split; note the rest as left out."""
    if "" in parts.values():
        return []  # what is in the root is then in a part
    used = {folder.split("/")[0] for folder in parts.values()}
    aside = []
    for entry in entries_of(str(root)):
        if reason := unwanted(entry.name):
            left_out.add(reason, entry.name)
        elif entry.is_dir():
            aside += [entry.name] if entry.name not in used else []
        else:
            left_out.add(BESIDE if entry.is_file() else SPECIAL, entry.name)
    return aside


def _check_level(
    folder: Path,
    part: str,
    files: Mapping[str, ClassFiles],
    wanted: Mapping[str, str] | None,
) -> None:
    """Check that the class folders are those that hold the images.

    Raises:
        ConfigError: If the images lie deeper in all of them: then the classes may be there too.
    """
    if not any(one.nested for one in files.values()):
        return
    if any(len(one.names) > one.nested for one in files.values()):
        return
    deeper = next(one.example for one in files.values() if one.nested)
    if len(files) == 1:
        raise ConfigError(
            f"{folder}: holds one folder, {next(iter(files))}, and its images lie deeper, such as "
            f"{deeper}; name the folder that holds the class folders, as SOURCE or as "
            f"--split-names {TRAIN}=FOLDER"
        )
    if wanted is None:
        raise ConfigError(
            f"{folder}: its folders {_listed(list(files))} hold no images themselves, but the "
            f"folders in them do, such as {deeper}; if they are the classes all the same, say "
            f"--split-names {TRAIN}={part or '.'}; otherwise name the folder that holds the class "
            f"folders, as SOURCE or as --split-names {TRAIN}=FOLDER"
        )


def _remarks(
    trees: Mapping[str, SplitTree], listed: Mapping[str, Mapping[str, ClassFiles]]
) -> list[str]:
    """Return what a user should know of folders and links that were taken."""
    notes = []
    for split, files in listed.items():
        nested = {name: one for name, one in files.items() if one.nested}
        if nested:
            notes.append(
                f"{sum(one.nested for one in nested.values()):,} {split} images lie in folders "
                f"within the folders of {len(nested):,} classes and belong to these classes, such "
                f"as {next(iter(nested.values())).example}"
            )
    outside = [link for tree in trees.values() for link in tree.outside]
    if outside:
        notes.append(f"{len(outside):,} links lead out of SOURCE: {_listed(outside)}")
    splits = list(trees)
    for i, first in enumerate(splits):
        for second in splits[i + 1 :]:
            shared = trees[first].shared_with(trees[second])
            if shared:
                notes.append(
                    f"by links, {first} and {second} share {len(shared):,} folders or images, such "
                    f"as {min(shared)}"
                )
    return notes


def _split(root: Path, classes: Sequence[str], files: Mapping[str, ClassFiles]) -> FileSplit:
    names = [name for one in files.values() for name in one.names]
    counts = [len(files[name].names) if name in files else 0 for name in classes]
    return FileSplit(np.repeat(np.arange(len(classes)), counts), names, root)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
