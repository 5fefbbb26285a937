"""CSV files with a header: an image's path, its label and, if there is one, its split."""

import csv
from collections.abc import Sequence
from pathlib import Path

from fastssd.data.sources.image_list import source_of_files
from fastssd.data.sources.listing import Listing
from fastssd.data.sources.parts import find_parts, has_one, training_file
from fastssd.data.sources.source import TEST, TRAIN, VAL, Source, SourceOptions
from fastssd.errors import ConfigError, DataError

IMAGE_COLUMNS = ("path", "image", "file", "filename", "file_name", "filepath", "image_path")
LABEL_COLUMNS = ("label", "class", "category", "target", "label_id", "class_id", "category_id")
_SPLIT_COLUMNS = ("split", "set", "partition", "subset")
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VAL),
    **dict.fromkeys(("test", "testing"), TEST),
}
_PATTERN = "*train*.csv"


def is_image_csv(path: Path) -> bool:
    """Return whether a path looks like a CSV file, or a folder with one for training."""
    return (path.is_file() and path.suffix.lower() == ".csv") or has_one(path, _PATTERN)


def open_image_csv(origin: str, options: SourceOptions) -> Source:
    """Read CSV files; no image is opened.

    Raises:
        ConfigError: If there is no such file, or no column of a usual name.
        DataError: If a file is damaged; names file and line.
    """
    train = training_file(origin, _PATTERN, "CSV file")
    parts, notes = find_parts(train, options)
    listings = _read(parts.pop(TRAIN), TRAIN, options)
    for split, path in parts.items():
        if split in listings:
            raise ConfigError(f"--{split} {path}: {train} has {split} images of its own")
        listings[split] = _read(path, split, options, mixed=False)[split]
    return source_of_files(
        listings,
        name=train.stem,
        kind="csv",
        origin=origin,
        root=options.root or train.parent,
        options=options,
        notes=notes,
    )


def choose_column(
    columns: Sequence[str], wanted: str | None, usual: Sequence[str], *, option: str, file: str
) -> str:
    """Return the column that the user named, or the only one of a usual name.

    Raises:
        ConfigError: If there is none; names the columns there are.
    """
    if wanted is not None:
        if wanted in columns:
            return wanted
        raise ConfigError(f"{option} {wanted}: {file} has the columns {', '.join(columns)}")
    found = [column for column in columns if column.strip().lower() in usual]
    if len(found) == 1:
        return found[0]
    reason = f"several of its columns ({', '.join(found)}) could be it" if found else "none is"
    raise ConfigError(
        f"{file}: has the columns {', '.join(columns) or '(none)'}; {reason} called like "
        f"{', '.join(usual[:4])}: name it with {option}"
    )


def _read(
    path: Path, split: str, options: SourceOptions, *, mixed: bool = True
) -> dict[str, Listing]:
    """Read a file into its splits; all into `split` where it has no column for them."""
    listings: dict[str, Listing] = {split: Listing(str(path))}
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
            image = choose_column(
                columns,
                options.image_column,
                IMAGE_COLUMNS,
                option="--image-column",
                file=str(path),
            )
            label = choose_column(
                columns,
                options.label_column,
                LABEL_COLUMNS,
                option="--label-column",
                file=str(path),
            )
            part = [c for c in columns if c.strip().lower() in _SPLIT_COLUMNS] if mixed else []
            for row in reader:
                place = f"line {reader.line_num}"
                if not row[image] or not row[label]:
                    raise DataError(f"{path}, {place}: has no {label if row[image] else image}")
                name = _split_name(row[part[0]], f"{path}, {place}") if part else split
                listing = listings.setdefault(name, Listing(str(path)))
                listing.add(row[image].strip(), row[label].strip(), place)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: is not CSV: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return listings


def _split_name(text: str | None, where: str) -> str:
    name = _SPLIT_NAMES.get((text or "").strip().lower())
    if name is None:
        raise DataError(f"{where}: the split {text!r} is none of {', '.join(_SPLIT_NAMES)}")
    return name
