"""A table's manifest: all that its numbers depend on, and whether a table is the one wanted."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastssd.core.files import write_atomically
from fastssd.core.reading import read_json, reading
from fastssd.errors import DataError
from fastssd.tables.files import FEATURES, IDS, LOGITS, REMEDY, REST, Column

MANIFEST, UNFINISHED = "manifest.json", "unfinished.json"
"""The manifest is written last; until then the table is the one that `unfinished.json` tells of."""

_DIGEST = "digest"
_OF_THE_FILES = ("block_rows", "checksums", "versions")
"""Keys that may differ from what is wanted: they are of the files, or checked by an audit."""

Manifest = dict[str, Any]

_FLOATS = ("float16", "float32")
_KNOWN = {LOGITS: _FLOATS, FEATURES: _FLOATS, IDS: ("uint16", "int32"), REST: ("float32",)}
"""The types that each column may have; a name also becomes that of a file."""


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest with its own digest."""
    content = {**manifest, _DIGEST: _digest(manifest)}
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def read_manifest(path: Path) -> Manifest:
    """Return a manifest.

    Raises:
        DataError: If it is missing, damaged or altered.
    """
    manifest: Manifest = read_json(path, {_DIGEST: str}, remedy=REMEDY)
    with reading(path, REMEDY):  # what can be read may still be nested too deep for its digest
        altered = manifest.pop(_DIGEST) != _digest(manifest)
    if altered:
        raise DataError(f"{path}: damaged or altered: its digest is of another content; {REMEDY}")
    if not _is_complete(manifest, finished=path.name == MANIFEST):
        raise DataError(f"{path}: of another version of fastssd, or of no table; {REMEDY}")
    return manifest


def found_manifest(directory: Path) -> tuple[Manifest | None, bool]:
    """Return the manifest of a directory and whether its table is finished; None without any."""
    for name in (MANIFEST, UNFINISHED):
        if (directory / name).exists():
            return read_manifest(directory / name), name == MANIFEST
    return None, False


def check_manifest(directory: Path, found: Manifest, wanted: Manifest) -> None:
    """Raise DataError, naming what differs, if a table is of something else.

    Library versions may differ: they change numbers by rounding at most, which an audit checks.
    """
    differing = [
        f"{key} is {old!r:.80}, not {new!r:.80}"
        for key, old, new in _differences("", found, wanted)
        if key.partition(".")[0] not in _OF_THE_FILES
    ]
    if differing:
        # The table alone made anew would be of one thing, and the stage's checkpoint of another.
        raise DataError(
            f"{directory}: a table of something else: {'; '.join(differing)}; delete "
            f"{directory.parent} and start again: the stage is trained anew, and its table made"
        )


def version_changes(found: Manifest, wanted: Manifest) -> list[str]:
    """Return which library versions a table was made with that are others now."""
    return [
        f"{library} {old}, now {new}"
        for library, old, new in _differences("", found["versions"], wanted["versions"])
    ]


def columns_of(manifest: Manifest) -> list[Column]:
    """Return the arrays of a table."""
    return [Column(name, dtype, width) for name, (dtype, width) in manifest["columns"].items()]


def _is_complete(manifest: Manifest, *, finished: bool) -> bool:
    """Return whether what this module and the files' need of a manifest is there."""
    try:
        columns = columns_of(manifest)
        sums = manifest["checksums"] if finished else {}
        num_blocks = -(-manifest["num_rows"] // manifest["block_rows"])
        return (
            manifest["num_rows"] >= 0
            and manifest["block_rows"] > 0
            and isinstance(manifest["versions"], dict)
            and all(column.name in _KNOWN and column.width > 0 for column in columns)
            and all(column.dtype in _KNOWN[column.name] for column in columns)
            and (not finished or all(len(sums[column.name]) == num_blocks for column in columns))
        )
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        return False


def _differences(prefix: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401
    """Yield (key, old, new) of what differs, keys of inner mappings after a dot."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            name = f"{prefix}.{key}" if prefix else key
            yield from _differences(name, old.get(key), new.get(key))
    elif old != new:
        yield prefix, old, new


def _digest(manifest: Manifest) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
