"""Image datasets on disk in Hugging Face's forms: `save_to_disk` folders and Parquet files.

Both are Arrow tables that describe their columns, so pyarrow reads them: the library `datasets`,
which caches, hashes and looks for a network, is not needed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastssd.data.sources.image_csv import choose_column
from fastssd.data.sources.listing import Listing, classify, read_class_names
from fastssd.data.sources.source import TEST, TRAIN, VAL, OpenedSource, Source, SourceOptions
from fastssd.errors import ConfigError, DataError

_LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "category", "target")
_SPLIT_NAMES = {TRAIN: TRAIN, "validation": VAL, "valid": VAL, VAL: VAL, TEST: TEST}
_DICT, _STATE = "dataset_dict.json", "state.json"


@dataclass(frozen=True, slots=True)
class TableSplit:
    """The rows of one split.

    Attributes:
        labels: (N,) int64.
        names: (N) ``SPLIT[row]``.
        images: A pyarrow column of bytes, or of structures with `bytes` and `path`.
        folder: Where relative paths start.
    """

    labels: NDArray[np.int64]
    names: Sequence[str]
    images: Any
    folder: Path

    def read(self, row: int) -> bytes:
        value = self.images[row].as_py()
        if isinstance(value, Mapping):
            path = value.get("path")
            value = value.get("bytes")
            if value is None and path:
                return (self.folder / str(path)).read_bytes()
        if isinstance(value, bytes):
            return bytes(value)
        raise ValueError("the row holds neither an image nor its path")

    def missing(self, rows: NDArray[np.int64]) -> Sequence[str]:
        return ()


def is_hugging_face(path: Path) -> bool:
    """Return whether a folder was written by `save_to_disk`, or holds Parquet files."""
    saved = (path / _DICT).is_file() or (path / _STATE).is_file()
    return saved or (path.is_dir() and bool(_parquet_files(path)))


def open_hugging_face(origin: str, options: SourceOptions) -> Source:
    """Open a dataset on disk. Arrow files are mapped; Parquet files are read into memory.

    Raises:
        ConfigError: If pyarrow is not installed, or no column is known to hold images or labels.
        DataError: If files are missing or damaged.
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
        tables = _saved(arrow, path) or _parquet(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        # Arrow's own errors are kinds of ValueError, TypeError, KeyError and OSError.
        raise DataError(f"{origin}: is not a whole dataset: {error}") from error
    aside = [name for name in tables if name not in _SPLIT_NAMES]
    splits = {_SPLIT_NAMES[name]: tables[name] for name in tables if name in _SPLIT_NAMES}
    if TRAIN not in splits:
        raise DataError(f"{origin}: has the splits {', '.join(tables)}, but no {TRAIN}")
    return _source(arrow, splits, path, options, aside)


def _saved(arrow: Any, folder: Path) -> dict[str, Any]:  # noqa: ANN401 - an optional library
    """Map what `save_to_disk` wrote: a folder a split, or one split alone."""
    if (folder / _DICT).is_file():
        names = json.loads((folder / _DICT).read_text(encoding="utf-8"))["splits"]
        folders = {str(name): folder / str(name) for name in names}
    elif (folder / _STATE).is_file():
        folders = {TRAIN: folder}
    else:
        return {}
    tables = {}
    for split, part in folders.items():
        state = json.loads((part / _STATE).read_text(encoding="utf-8"))
        files = [part / file["filename"] for file in state["_data_files"]]
        read = [arrow.ipc.open_stream(arrow.memory_map(str(file))).read_all() for file in files]
        tables[split] = arrow.concat_tables(read)
    return tables


def _parquet(folder: Path) -> dict[str, Any]:
    """Read Parquet files as the Hub has them: `SPLIT.parquet`, `SPLIT-00000-of-00002.parquet`."""
    parquet = import_module("pyarrow.parquet")
    files: dict[str, list[str]] = {}
    for file in sorted(_parquet_files(folder)):
        files.setdefault(file.stem.split("-")[0], []).append(str(file))
    arrow = import_module("pyarrow")
    return {
        split: arrow.concat_tables([parquet.ParquetFile(name).read() for name in names])
        for split, names in files.items()
    }


def _source(
    arrow: Any,  # noqa: ANN401
    tables: Mapping[str, Any],
    folder: Path,
    options: SourceOptions,
    aside: Iterable[str],
) -> Source:
    schema = tables[TRAIN].schema
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
    named = features.get(label, {}).get("names")
    if options.classes:
        named = read_class_names(options.classes)
    listings = {}
    for split, table in tables.items():
        if not {image, label} <= set(table.schema.names):
            raise DataError(f"{folder}: the split {split} lacks the column {image} or {label}")
        listings[split] = Listing(str(folder))
        for row, value in enumerate(table[label].to_pylist()):
            listings[split].add(f"{split}[{row}]", str(value), f"row {row} of {split}")
    classes, labels = classify(listings, named)
    left = list(aside)
    return OpenedSource(
        name=folder.resolve().name,
        kind="hf",
        origin=str(folder),
        classes=classes,
        splits={
            split: TableSplit(labels[split], listings[split].names, table[image], folder)
            for split, table in tables.items()
        },
        notes=[f"not used: the splits {', '.join(left)}"] if left else (),
    )


def _features(schema: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what Hugging Face's library noted about the columns."""
    try:
        note = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: entry for name, entry in note.items() if isinstance(entry, dict)}


def _holds_bytes(arrow: Any, kind: Any) -> bool:  # noqa: ANN401
    if arrow.types.is_struct(kind):
        return {"bytes", "path"} <= {kind.field(i).name for i in range(kind.num_fields)}
    return bool(arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind))


def _parquet_files(path: Path) -> list[Path]:
    return [*path.glob("*.parquet"), *path.glob("data/*.parquet")]
