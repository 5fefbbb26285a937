"""Whether the files of a dataset directory are those that its conversion wrote.

`meta.json` holds the size and a checksum of every file, and a checksum of itself. At opening
every file's size is compared, and the content of those that are read whole then or are small;
`tools/check_dataset.py` compares everything.

The checksum is XXH3 with 128 bits, as fast as memory: conversion spends no time on it, and files of
some size can be compared at every opening. It is against accidents; it is no protection against
someone who alters a file and wants that unnoticed. Datasets of earlier versions have SHA-256.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import xxhash

from fastssd.core.files import sha256_of
from fastssd.core.reading import open_regular
from fastssd.errors import DataError

FILES = "files"
SMALL = 1 << 28
"""Bytes up to which a file's content is compared at opening: 0.04 s of one core."""
_OLD_BLOCK = 1 << 22

_REMEDY = "convert the dataset again, or copy it again from where it is whole"


def xxh3_128_of(path: Path) -> str:
    """Return the 128 bits of XXH3 of a file, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def _sha256_of_blocks(path: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        for block in iter(partial(file.read, _OLD_BLOCK), b""):
            digest.update(hashlib.sha256(block).digest())
    return digest.hexdigest()


WRITTEN = "xxh3_128"
KINDS: dict[str, Callable[[Path], str]] = {
    WRITTEN: xxh3_128_of,
    "sha256": sha256_of,
    "sha256_of_4mib_blocks": _sha256_of_blocks,
}
"""Kinds of a file's checksum by their key in `meta.json`; those behind the first are older ones."""


def describe_files(folder: Path, *, but: str) -> dict[str, dict[str, Any]]:
    """Return size and checksum of the files in a folder, by name.

    Args:
        folder: Files whose names begin with a dot are left out.
        but: A name that is left out too.
    """
    return {
        path.name: {"bytes": path.stat().st_size, WRITTEN: xxh3_128_of(path)}
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
        if not isinstance(written, Mapping) or not isinstance(written.get("bytes"), int):
            yield f"{path}: `meta.json` does not say how many bytes it has"
        elif not os.path.isfile(path):  # noqa: PTH113 - False also where no path can be so long
            yield f"{path}: missing"
        elif path.stat().st_size != written["bytes"]:
            yield f"{path}: has {path.stat().st_size} bytes, but {written['bytes']} were written"
        elif whole or written["bytes"] <= SMALL:
            kind = next((kind for kind in KINDS if kind in written), None)
            if kind is None:
                yield f"{path}: `meta.json` has no checksum of it that this version knows"
            elif KINDS[kind](path) != written[kind]:
                yield f"{path}: was altered since it was written: its checksum ({kind}) differs"
