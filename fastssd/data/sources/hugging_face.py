"""Image datasets on disk in Hugging Face's forms: `save_to_disk` folders and Parquet files.

Both are Arrow tables that describe their columns, so pyarrow reads them: the library `datasets`,
which caches, hashes and looks for a network, is not needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastssd.core.reading import parse_json, read_json
from fastssd.data.sources.arrow_files import read_arrow, read_parquet, value_of
from fastssd.data.sources.image_csv import choose_column
from fastssd.data.sources.image_files import FileSplit, names_in
from fastssd.data.sources.left_out import UNUSED, LeftOut
from fastssd.data.sources.listing import (
    Listing,
    checked_names,
    classify,
    read_class_names,
    shared_images,
    without_repeats,
)
from fastssd.data.sources.rows import Within
from fastssd.data.sources.shard_names import check_complete, find_shards
from fastssd.data.sources.source import TRAIN, OpenedSource, SourceOptions
from fastssd.data.sources.split_names import choose_splits, unclear, usual_split
from fastssd.errors import ConfigError, DataError

_LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "category", "target")
_PARQUET = ".parquet"
_DICT, _STATE = "dataset_dict.json", "state.json"
_REMEDY = "fetch or save the dataset again"


@dataclass(frozen=True, slots=True)
class TableSplit:
    """The rows of one split.

    Attributes:
        labels: (N,) int64.
        names: (N) ``SPLIT[row]``, or the path of a row that holds one in place of its image.
        images: A pyarrow column of bytes, or of structures with `bytes` and `path`.
        rows: (N,) int64 rows of the column.
        paths: The rows that hold a path in place of their image, among the N.
        folder: Where their paths start.
    """

    labels: NDArray[np.int64]
    names: Sequence[str]
    images: Any
    rows: NDArray[np.int64]
    paths: frozenset[int]
    folder: Path

    def read(self, row: int) -> bytes:
        if row in self.paths:
            return self._files().read(row)
        value = value_of(self.images, int(self.rows[row]))
        if isinstance(value, Mapping):
            value = value.get("bytes")
        if isinstance(value, bytes):
            return bytes(value)
        raise ValueError("the row holds neither an image nor its path")

    def missing(self, rows: NDArray[np.int64]) -> Sequence[str]:
        by_path = [row for row in rows.tolist() if row in self.paths] if self.paths else []
        return self._files().missing(np.array(by_path, dtype=np.int64))

    def _files(self) -> FileSplit:
        return FileSplit(self.labels, self.names, self.folder)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tables:
    """What was found on the disk.

    Attributes:
        tables: pyarrow's, by split.
        taken_from: By split, what it was, for the user.
        notes: Lines to show the user.
    """

    tables: Mapping[str, Any]
    taken_from: Mapping[str, str]
    notes: Sequence[str]


def is_hugging_face(path: Path) -> bool:
    """Return whether a folder was written by `save_to_disk`, or holds Parquet files."""
    if not path.is_dir():
        return False
    saved = (path / _DICT).is_file() or (path / _STATE).is_file()
    return saved or bool(_parquet_folders(path))


def open_hugging_face(origin: str, options: SourceOptions) -> OpenedSource:
    """Open a dataset on disk. Arrow files are mapped; Parquet files are read into memory.

    Raises:
        ConfigError: If pyarrow is not installed, no column is known to hold images or labels, or
            it cannot be told which split some files are.
        DataError: If files are missing or damaged, or lie outside of the folder.
    """
    path = Path(origin)
    if not path.is_dir():
        raise ConfigError(f"SOURCE {origin}: there is no such folder")
    try:
        arrow = import_module("pyarrow")
    except ImportError as error:
        raise ConfigError(
            f"SOURCE {origin}: reading it needs pyarrow, which is missing: "
            "`pip install fastssd[hf]`"
        ) from error
    try:
        if (path / _DICT).is_file() or (path / _STATE).is_file():
            found = _saved(arrow, path, options.split_names)
        else:
            found = _parquet(arrow, path, options.split_names)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{origin}: is not a whole dataset: {error}") from error
    return _source(arrow, found, path, options)


def _saved(
    arrow: Any,  # noqa: ANN401 - an optional library
    folder: Path,
    wanted: Mapping[str, str] | None,
) -> _Tables:
    """Map what `save_to_disk` wrote: a folder a split, or one split alone."""
    left_out = LeftOut()
    if (folder / _DICT).is_file():
        names = read_json(folder / _DICT, {"splits": list}, remedy=_REMEDY)["splits"]
        names = [Within(folder).relative(str(name)) for name in names]
        chosen, left = choose_splits(names, wanted, where=str(folder / _DICT), exact=True)
        if TRAIN not in chosen:
            raise unclear(str(folder), f"has {', '.join(names)} but no {TRAIN} split", "NAME")
        taken_from = {split: several[0] for split, several in chosen.items()}
        for name in left:
            left_out.add(UNUSED, name)
    elif wanted is not None:
        raise ConfigError(f"--split-names: {folder} is one split alone, by its {_STATE}")
    else:
        taken_from = {TRAIN: ""}
    tables, notes = {}, []
    for split, name in taken_from.items():
        part = folder / name
        state = read_json(part / _STATE, {"_data_files": list}, remedy=_REMEDY)
        within = Within(part)
        files = [part / within.relative(str(one["filename"])) for one in state["_data_files"]]
        notes += check_complete(files)
        read = [read_arrow(file) for file in files]
        tables[split] = arrow.concat_tables(read)
        called = state.get("_split")
        if not name and called is not None and usual_split(str(called)) != split:
            notes.append(f"{folder} is the split {called!r}, and is taken as the {split} split")
    return _Tables(tables=tables, taken_from=taken_from, notes=[*notes, *left_out.lines()])


def _parquet(
    arrow: Any,  # noqa: ANN401
    folder: Path,
    wanted: Mapping[str, str] | None,
) -> _Tables:
    """Read Parquet files as the Hub has them: `SPLIT.parquet`, `SPLIT-00000-of-00002.parquet`."""
    places = _parquet_folders(folder)
    if len(places) != 1:
        listed = " and in ".join(map(str, places)) or str(folder)
        raise ConfigError(f"SOURCE {folder}: {_PARQUET} files are in {listed}: name one of them")
    found = find_shards(places[0], _PARQUET, wanted, exact=True)
    left_out = LeftOut()
    for name, files in found.left.items():
        left_out.add(UNUSED, name, len(files))
    notes = [note for files in found.files.values() for note in check_complete(files)]
    tables = {
        split: arrow.concat_tables([read_parquet(file) for file in files])
        for split, files in found.files.items()
    }
    return _Tables(tables=tables, taken_from=found.taken_from, notes=[*notes, *left_out.lines()])


def _source(
    arrow: Any,  # noqa: ANN401
    found: _Tables,
    folder: Path,
    options: SourceOptions,
) -> OpenedSource:
    schema = found.tables[TRAIN].schema
    features = _features(schema)
    images = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    images = images or [field.name for field in schema if _holds_bytes(arrow, field.type)]
    image = choose_column(
        schema.names if options.image_column else images,
        options.image_column,
        images[:1],
        option="--image-column",
        file=str(folder),
    )
    label = choose_column(
        [name for name in schema.names if name != image],
        options.label_column,
        _LABEL_COLUMNS,
        option="--label-column",
        file=str(folder),
    )
    named = _class_names(features.get(label, {}).get("names"), f"{folder}: the column {label}")
    if options.classes:
        named = read_class_names(options.classes)
    listings, columns, rows, notes = {}, {}, {}, list(found.notes)
    within = Within(folder)
    for split, table in found.tables.items():
        if not {image, label} <= set(table.schema.names):
            raise DataError(f"{folder}: the split {split} lacks the column {image} or {label}")
        columns[split] = _paths(arrow, table[image])
        listing = Listing(str(folder))
        for row, value in enumerate(table[label].to_pylist()):
            place = f"row {row} of {split}"
            path = columns[split].get(row)
            try:
                name = f"{split}[{row}]" if path is None else within.relative(path)
            except ValueError as error:
                raise DataError(f"{folder}, {place}: {error}") from error
            listing.add(name, value, place)
        listings[split], rows[split], repeats = without_repeats(listing)
        notes += repeats
    classes, labels = classify(listings, named)
    return OpenedSource(
        name=folder.resolve().name,
        kind="hf",
        origin=str(folder),
        classes=classes,
        splits={
            split: TableSplit(
                labels[split],
                listings[split].names,
                table[image],
                rows[split],
                frozenset(np.flatnonzero(np.isin(rows[split], list(columns[split]))).tolist()),
                folder,
            )
            for split, table in found.tables.items()
        },
        notes=[*notes, *shared_images(listings)],
        taken_from={split: f"{name or '.'}" for split, name in found.taken_from.items()},
    )


def _paths(arrow: Any, column: Any) -> dict[int, str]:  # noqa: ANN401
    """Return the paths of those rows that hold one and no image."""
    fields = {column.type.field(i).name for i in range(column.type.num_fields)}
    if not arrow.types.is_struct(column.type) or not {"bytes", "path"} <= fields:
        return {}
    compute = import_module("pyarrow.compute")
    absent = compute.is_null(compute.struct_field(column, "bytes"))
    if not compute.any(absent).as_py():
        return {}
    paths = compute.struct_field(column, "path")
    rows = np.flatnonzero(absent.to_numpy()).tolist()
    return {row: str(path) for row in rows if (path := paths[row].as_py()) is not None}


def _class_names(names: object, where: str) -> list[str] | None:
    if names is None:
        return None
    try:
        if not isinstance(names, list):
            raise ValueError(f"a {type(names).__name__} in place of a list")
        return checked_names(names)
    except ValueError as error:
        raise DataError(f"{where} has no sound names of classes: {error}") from error


def _features(schema: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what Hugging Face's library noted about the columns."""
    try:
        note = parse_json((schema.metadata or {})[b"huggingface"], dict)["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: entry for name, entry in note.items() if isinstance(entry, dict)}


def _holds_bytes(arrow: Any, kind: Any) -> bool:  # noqa: ANN401
    if arrow.types.is_struct(kind):
        return {"bytes", "path"} <= {kind.field(i).name for i in range(kind.num_fields)}
    return bool(arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind))


def _parquet_folders(path: Path) -> list[Path]:
    """Return the folders that hold Parquet files: of the dataset itself and its `data`."""
    places = []
    for place in (path, path / "data"):
        names = names_in(place) if place.is_dir() else []
        inner = [place / name for name in names if usual_split(name) and (place / name).is_dir()]
        names += [name for folder in inner for name in names_in(folder)]
        if any(name.endswith(_PARQUET) for name in names):
            places.append(place)
    return places
