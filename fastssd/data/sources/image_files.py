"""Images that are files under one folder, each with a label."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


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
        return (self.root / self.names[row]).read_bytes()

    def missing(self, rows: NDArray[np.int64]) -> Sequence[str]:
        # Folder by folder: asking for each of a million files takes minutes on a network disk.
        folders: dict[str, frozenset[str]] = {}
        absent = []
        for row in rows:
            folder, _, file = self.names[row].rpartition("/")
            if folder not in folders:
                folders[folder] = _files_of(self.root, folder)
            if file not in folders[folder]:
                absent.append(self.names[row])
        return absent


def _files_of(root: Path, folder: str) -> frozenset[str]:
    # An absolute path in a list makes an absolute folder here, and an empty one is the root itself.
    try:
        return frozenset(os.listdir(root / folder))  # noqa: PTH208 - names alone
    except OSError:  # no such folder, or one that must not be read
        return frozenset()
