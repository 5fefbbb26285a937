"""Lists of `PATH LABEL` lines and a root, as ImageNet-LT, Places-LT and iNaturalist18 have them."""

from pathlib import Path

from fastssd.core.reading import open_text
from fastssd.data.sources.image_files import FileSplit
from fastssd.data.sources.listing import (
    Listing,
    classify,
    read_class_names,
    shared_images,
    without_repeats,
)
from fastssd.data.sources.parts import find_parts, is_part, training_file
from fastssd.data.sources.rows import Within
from fastssd.data.sources.source import OpenedSource, SourceOptions
from fastssd.errors import ConfigError, DataError

_SUFFIX = ".txt"


def is_image_list(path: Path) -> bool:
    """Return whether a path looks like a list, or a folder with a training list."""
    return is_part(path, _SUFFIX)


def open_image_list(origin: str, options: SourceOptions) -> OpenedSource:
    """Read lists of images; no image is opened.

    Raises:
        ConfigError: If there is no such list.
        DataError: If a list is damaged; names file and line.
    """
    train = training_file(origin, _SUFFIX, "list of images")
    parts, notes = find_parts(train, options)
    root = options.root or train.parent
    listings = {split: read_list(path, root) for split, path in parts.items()}
    return source_of_files(
        listings,
        name=train.stem,
        kind="list",
        origin=origin,
        root=root,
        options=options,
        notes=notes,
    )


def within_root(root: Path) -> Within:
    """Return what the paths of a list may be, if they start from a folder."""
    return Within(root, "; name the folder that holds all images with --root")


def read_list(path: Path, root: Path) -> Listing:
    """Read the lines of a list; the label is what stands behind the last blank.

    Args:
        path: The list.
        root: Where its paths start.

    Raises:
        DataError: If the file cannot be read, a line is not `PATH LABEL`, or a path leads out of
            the root.
    """
    listing = Listing(str(path), within_root(root))
    try:
        # File names are bytes; those that are not UTF-8 must reach the file system unchanged.
        with open_text(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, line in enumerate(file, 1):
                parts = line.rsplit(None, 1)
                if len(parts) == 2:
                    listing.add(parts[0].strip(), parts[1], f"line {number}")
                elif parts:
                    raise DataError(
                        f"{path}, line {number}: {line.strip()[:80]!r} is not `PATH LABEL`"
                    )
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return listing


def source_of_files(
    listings: dict[str, Listing],
    *,
    name: str,
    kind: str,
    origin: str,
    root: Path,
    options: SourceOptions,
    notes: list[str],
) -> OpenedSource:
    """Make a source of listed image files.

    Args:
        listings: By split.
        name: The dataset's name.
        kind: The registry's key.
        origin: What the user named.
        root: The folder that the listed paths start from.
        options: What the user said.
        notes: Lines to show the user; those about the lists are added.

    Raises:
        ConfigError: If the root is not a folder.
        DataError: If the lists contradict themselves or each other.
    """
    if not root.is_dir():
        raise ConfigError(f"--root {root}: there is no such folder")
    kept: dict[str, Listing] = {}
    for split, listing in listings.items():
        kept[split], _, repeats = without_repeats(listing)
        notes = [*notes, *repeats]
    class_names = read_class_names(options.classes) if options.classes else None
    classes, labels = classify(kept, class_names, by_folder=True)
    return OpenedSource(
        name=name,
        kind=kind,
        origin=origin,
        classes=classes,
        splits={s: FileSplit(labels[s], listing.names, root) for s, listing in kept.items()},
        notes=[*notes, *shared_images(kept)],
        taken_from={split: listing.file for split, listing in kept.items()},
    )
