"""Whether the files of a dataset directory are those that its conversion wrote.

`meta.json` holds the size and a checksum of every file, and a checksum of itself. At opening
every file's size is compared, and the content of those that are read whole then or are small;
`tools/check_dataset.py` compares everything.

The checksum of a file of one block is its SHA-256. That of a larger one is the SHA-256 of the
SHA-256s of its blocks, one after another, so that all cores can work at it. Datasets of earlier
versions have the plain SHA-256 of large files too.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastssd.errors import DataError
from fastssd.files import sha256_of

FILES = "files"
BLOCK = 1 << 22
"""Bytes of a block."""
PLAIN, OF_BLOCKS = "sha256", "sha256_of_4mib_blocks"
"""Keys of a file's checksum: of all its bytes, or of its blocks' checksums."""
SMALL = 1 << 26
"""Bytes up to which a file's content is compared at opening: 0.04 s of one core."""

_REMEDY = "convert the dataset again, or copy it again from where it is whole"


def sha256_of_blocks(path: Path) -> str:
    """Return the SHA-256 of the SHA-256s of a file's blocks, in hexadecimal."""
    with path.open("rb") as file, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:

        def digest(start: int) -> bytes:
            return hashlib.sha256(os.pread(file.fileno(), BLOCK, start)).digest()

        starts = range(0, os.fstat(file.fileno()).st_size, BLOCK)
        return hashlib.sha256(b"".join(pool.map(digest, starts))).hexdigest()


def describe_files(folder: Path, *, but: str) -> dict[str, dict[str, Any]]:
    """Return size and checksum of the files in a folder, by name.

    Args:
        folder: Files whose names begin with a dot are left out.
        but: A name that is left out too.
    """
    return {
        path.name: _description(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != but and not path.name.startswith(".")
    }


def _description(path: Path) -> dict[str, Any]:
    num_bytes = path.stat().st_size
    if num_bytes <= BLOCK:
        return {"bytes": num_bytes, PLAIN: sha256_of(path)}
    return {"bytes": num_bytes, OF_BLOCKS: sha256_of_blocks(path)}


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
        elif (whole or written["bytes"] <= SMALL) and not _is_as_written(path, written):
            yield f"{path}: was altered since it was written: its SHA-256 differs"


def _is_as_written(path: Path, written: Mapping[str, Any]) -> bool:
    if OF_BLOCKS in written:
        return bool(sha256_of_blocks(path) == written[OF_BLOCKS])
    return bool(sha256_of(path) == written[PLAIN])
