"""CSV files with a header: an image's path, its label and, if there is one, its split."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastssd.core.reading import open_text
from fastssd.data.sources.image_list import source_of_files, within_root
from fastssd.data.sources.left_out import UNUSED, LeftOut
from fastssd.data.sources.listing import Listing
from fastssd.data.sources.parts import find_parts, is_part, training_file
from fastssd.data.sources.source import TRAIN, OpenedSource, SourceOptions
from fastssd.data.sources.split_names import USUAL, usual_split
from fastssd.errors import ConfigError, DataError

IMAGE_COLUMNS = ("path", "image", "file", "filename", "file_name", "filepath", "image_path")
LABEL_COLUMNS = ("label", "class", "category", "target", "label_id", "class_id", "category_id")
_MAX_COLUMNS = 1000
_SPLIT_COLUMNS = ("split", "set", "partition", "subset")
_SUFFIX = ".csv"


def is_image_csv(path: Path) -> bool:
    """Return whether a path looks like a CSV file, or a folder with one for training."""
    return is_part(path, _SUFFIX)


def open_image_csv(origin: str, options: SourceOptions) -> OpenedSource:
    """Read CSV files; no image is opened.

    Raises:
        ConfigError: If there is no such file, or no column of a usual name.
        DataError: If a file is damaged; names file and line.
    """
    train = training_file(origin, _SUFFIX, "CSV file")
    parts, notes = find_parts(train, options)
    root = options.root or train.parent
    left_out = LeftOut()
    listings = _read(parts.pop(TRAIN), TRAIN, root, options, left_out)
    for split, path in parts.items():
        if split in listings:
            raise ConfigError(f"--{split} {path}: {train} has {split} images of its own")
        listings[split] = _read(path, split, root, options)[split]
    return source_of_files(
        listings,
        name=train.stem,
        kind="csv",
        origin=origin,
        root=root,
        options=options,
        notes=[*notes, *left_out.lines()],
    )


def choose_column(
    columns: Sequence[str], wanted: str | None, usual: Sequence[str], *, option: str, file: str
) -> str:
    """Return the column that the user named, or the only one of a usual name.

    Raises:
        ConfigError: If there is none; names the columns there are.
    """
    if wanted is not None:
        if columns.count(wanted) == 1:
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
    path: Path,
    split: str,
    root: Path,
    options: SourceOptions,
    left_out: LeftOut | None = None,
) -> dict[str, Listing]:
    """Read a file into its splits; all into `split` where it has no column for them.

    Without `left_out` such a column is not looked at.
    """
    within = within_root(root)
    listings: dict[str, Listing] = {split: Listing(str(path), within)}
    try:
        with open_text(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
            if len(columns) > _MAX_COLUMNS:  # the reader fills every short row up to as many
                raise DataError(f"{path}: has {len(columns):,} columns, more than {_MAX_COLUMNS:,}")
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
            part = None if left_out is None else _split_column(columns, path, options.split_names)
            for row in reader:
                place = f"line {reader.line_num}"
                if None in row:
                    raise DataError(
                        f"{path}, {place}: has more fields than the header; put a field with a "
                        "comma in quotes"
                    )
                if not row[image] or not row[label]:
                    raise DataError(f"{path}, {place}: has no {label if row[image] else image}")
                name: str | None = split
                if part is not None and left_out is not None:
                    text = (row[part] or "").strip()
                    name = _split_of(text, options.split_names, f"{path}, {place}")
                    if name is None:
                        left_out.add(UNUSED, f"{text!r} of the column {part}")
                        continue
                listing = listings.setdefault(str(name), Listing(str(path), within))
                listing.add(row[image].strip(), row[label], place)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: is not CSV: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return listings


def _split_column(
    columns: Sequence[str], path: Path, wanted: Mapping[str, str] | None
) -> str | None:
    found = [column for column in columns if column.strip().lower() in _SPLIT_COLUMNS]
    if len(found) > 1:
        raise ConfigError(f"{path}: {', '.join(found)} could each say the split: rename one")
    if wanted is not None and not found:
        raise ConfigError(
            f"--split-names: {path} has no column called like {', '.join(_SPLIT_COLUMNS)}"
        )
    return found[0] if found else None


def _split_of(text: str, wanted: Mapping[str, str] | None, where: str) -> str | None:
    """Return the split of a row; None where the user named others."""
    if wanted is not None:
        return next((split for split, name in wanted.items() if name == text), None)
    name = usual_split(text)
    if name is None:
        raise DataError(
            f"{where}: the split {text!r} is none of {', '.join(USUAL)}; say with --split-names "
            f"what is what, such as --split-names {TRAIN}=NAME"
        )
    return name
