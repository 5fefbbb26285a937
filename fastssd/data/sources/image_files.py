"""Images that are files under one folder, each with a label."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastssd.core.reading import read_bytes
from fastssd.errors import DataError


@dataclass(frozen=True, slots=True)
class FileSplit:
    """The files of one split, in the order of their list.

    Attributes:
        labels: (N,) int64.
        names: (N) paths relative to the root.
        root: The folder that they start from.
    """

    labels: NDArray[np.int64]
    names: Sequence[str]
    root: Path

    def read(self, row: int) -> bytes:
        return read_bytes(self.root / self.names[row])

    def missing(self, rows: NDArray[np.int64]) -> Sequence[str]:
        # Folder by folder: asking for each of a million files takes minutes on a network disk.
        folders: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
        absent = []
        for row in rows:
            folder, _, file = self.names[row].rpartition("/")
            if folder not in folders:
                folders[folder] = _files_of(self.root, folder)
            files, special = folders[folder]
            if file in special:
                raise DataError(
                    f"{self.root / self.names[row]}: is a pipe, a socket or a device, which is "
                    "never opened; remove it from the list"
                )
            if file not in files:
                absent.append(self.names[row])
        return absent


def names_in(folder: Path) -> list[str]:
    """Return the names of what a folder holds and does not hide, sorted.

    Raises:
        DataError: If it cannot be listed.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names alone
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error
    return sorted(name for name in names if not name.startswith("."))


def _files_of(root: Path, folder: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return what may be files in a folder, and what must not be opened."""
    files, special = set(), set()
    try:
        with os.scandir(root / folder) as entries:
            for entry in entries:
                # Told by the folder itself. What a link leads to is found when it is read.
                if entry.is_symlink() or entry.is_file(follow_symlinks=False):
                    files.add(entry.name)
                elif not entry.is_dir(follow_symlinks=False):
                    special.add(entry.name)
    except OSError:  # no such folder, or one that must not be read
        pass
    return frozenset(files), frozenset(special)
