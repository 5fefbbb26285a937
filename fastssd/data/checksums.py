"""Whether the files of a dataset directory are those that its conversion wrote.

`meta.json` holds the size and the SHA-256 of every file, and a checksum of itself. At opening
every file's size is compared, and the content of those that are read whole then or are small;
`tools/check_dataset.py` compares everything.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastssd.errors import DataError
from fastssd.files import sha256_of

FILES = "files"
SMALL = 1 << 26
"""Bytes up to which a file's content is compared at opening: 0.04 s on one core."""

_REMEDY = "convert the dataset again, or copy it again from where it is whole"


def describe_files(folder: Path, *, but: str) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of the files in a folder, by name.

    Args:
        folder: Files whose names begin with a dot are left out.
        but: A name that is left out too.
    """
    return {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != but and not path.name.startswith(".")
    }


def check_files(
    folder: Path, meta: Mapping[str, Any], *, split: str | None = None, whole: bool = False
) -> None:
    """Check a dataset directory's files.

    Args:
        folder: The directory.
        meta: Its `meta.json`; one of an older version says nothing of files.
        split: Check this split's alone.
        whole: Compare the content of large files too.

    Raises:
        DataError: If a file is missing or not what was written.
    """
    for problem in damaged_files(folder, meta, split=split, whole=whole):
        raise DataError(f"{problem}; {_REMEDY}")


def damaged_files(
    folder: Path, meta: Mapping[str, Any], *, split: str | None = None, whole: bool = False
) -> Iterator[str]:
    """Yield what is wrong with each damaged file; the arguments are those of `check_files`."""
    files = meta.get(FILES, {})
    if not isinstance(files, Mapping):
        yield f"{folder}: its list of files is damaged"
        return
    for name, written in files.items():
        if split is not None and not name.startswith((f"{split}.", f"{split}-")):
            continue
        path = folder / Path(name).name  # never a file elsewhere
        if not path.is_file():
            yield f"{path}: missing"
        elif path.stat().st_size != written["bytes"]:
            yield f"{path}: has {path.stat().st_size} bytes, but {written['bytes']} were written"
        elif (whole or written["bytes"] <= SMALL) and sha256_of(path) != written["sha256"]:
            yield f"{path}: was altered since it was written: its SHA-256 differs"
