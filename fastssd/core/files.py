"""Files that are written whole or not at all; a write that fails names its file."""

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fastssd.core.reading import open_regular
from fastssd.errors import DataError

CHECKSUM = "sha256"
"""Key of sealed content's own checksum."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What file systems answer that have no way to bring a file, or a folder's names, to the disk."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say which file could not be written, and why, where the block fails to write it.

    Every write of a run goes through here: making and removing files, and folders, too.

    Raises:
        DataError: In place of an OSError of the block.
    """
    try:
        yield
    except OSError as error:
        remedy = "make room there" if error.errno in _NO_ROOM else "mend that"
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}; {remedy} and start the same "
            "command again: what was finished before is as it was"
        ) from error


def write_atomically(path: Path, content: str | bytes | memoryview) -> None:
    """Write a whole file, safely on the disk, or leave what was there.

    Args:
        path: The file. Another process may write it at the same time: one of the two stays.
        content: All of it.

    Raises:
        DataError: If it cannot be written, as on a full disk.
    """
    # Processes of two hosts, or containers, may have one number, and even one host's name.
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")
    with writing(path):
        try:
            with partial.open("xb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        sync_path(path.parent)


def seal(content: dict[str, Any]) -> str:
    """Return JSON that holds the content and, under `sha256`, its checksum."""
    return json.dumps({**content, CHECKSUM: _checksum(content)}, indent=1) + "\n"


def check_seal(content: object) -> None:
    """Check the checksum that `seal` gave; content that has none is taken as it stands.

    Raises:
        ValueError: If the content was altered since.
    """
    if isinstance(content, dict) and CHECKSUM in content:
        rest = {key: value for key, value in content.items() if key != CHECKSUM}
        try:
            differs = content[CHECKSUM] != _checksum(rest)
        except RecursionError:  # what was written is not nested so deep
            differs = True
        if differs:
            raise ValueError("it was altered since it was written: its sha256 differs")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append(path: Path, text: str) -> None:
    """Add text to the end of a file, which is made if it is not there.

    Raises:
        DataError: If it cannot be written; part of the text may be in the file.
    """
    with writing(path), path.open("ab", buffering=0) as file:
        write_all(file, text.encode())


def write_all(file: BinaryIO, content: bytes) -> None:
    """Write to a file without a buffer, which may take a part at a time as its disk fills up.

    Raises:
        OSError: If it cannot be written; nothing waits in a buffer to fail a second time.
    """
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def sync(path: Path) -> None:
    """Wait until a file is on the disk; nothing to do where there is none.

    Raises:
        DataError: If it can't be brought there.
    """
    if path.exists():
        with writing(path):
            sync_path(path)


def fsync(descriptor: int) -> None:
    """Wait until a file or a folder is on the disk, where its file system can do that.

    Raises:
        OSError: If the disk failed.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def sync_path(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, where that can be done.

    Raises:
        OSError: If the disk failed.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial(folder: Path) -> None:
    """Remove what killed writers left half-written in a folder and below; none may be writing.

    Raises:
        DataError: If something can't be removed.
    """
    for path in folder.rglob("*.partial-*"):
        if path.is_file():
            with writing(path):
                path.unlink(missing_ok=True)


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
