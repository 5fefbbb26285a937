"""Which blocks of an unfinished table are on the disk: one journal for each process that writes.

A line is written once its block is on the disk. Nothing in a journal is believed: a block counts
only if its content has the checksum that the line names.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from fastssd.core.files import fsync, write_all, write_atomically, writing
from fastssd.core.reading import parse_json, read_bytes, reading, value_at
from fastssd.tables.files import REMEDY, Checksums

_PATTERN = "blocks-*.jsonl"
_EARLIER = "blocks-earlier.jsonl"

Finished = dict[int, Checksums]
"""Checksums of finished blocks, by their numbers."""


class Journal:
    """One process's journal, begun anew.

    Args:
        directory: The table's.
        rank: This process.

    Raises:
        DataError: If it cannot be written.
    """

    def __init__(self, directory: Path, rank: int) -> None:
        self._path = directory / f"blocks-{rank:05d}.jsonl"
        with writing(self._path):
            self._file = self._path.open("wb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def note(self, block: int, checksums: Checksums) -> None:
        """Note a block that is on the disk, and wait until the note is.

        Raises:
            DataError: If it cannot be written.
        """
        with writing(self._path):
            write_all(self._file, _line(block, checksums).encode())
            fsync(self._file.fileno())


def read_journals(directory: Path, num_blocks: int) -> Finished:
    """Return what all journals say; lines that a kill has cut, or that say nothing, are no help."""
    finished: Finished = {}
    for path in sorted(directory.glob(_PATTERN)):
        with reading(path, REMEDY):
            lines = read_bytes(path).splitlines()
        for line in lines:
            try:
                entry = parse_json(line, dict)
                block, checksums = value_at(entry, "block", int), value_at(entry, "crc32", dict)
            except ValueError:
                continue
            if 0 <= block < num_blocks and all(
                isinstance(value, str) for value in checksums.values()
            ):
                finished[block] = checksums
    return finished


def replace_journals(directory: Path, finished: Finished) -> None:
    """Put what is known to be right into one journal in place of all that there are."""
    lines = [_line(block, checksums) for block, checksums in sorted(finished.items())]
    write_atomically(directory / _EARLIER, "".join(lines))
    _remove(path for path in directory.glob(_PATTERN) if path.name != _EARLIER)


def remove_journals(directory: Path) -> None:
    """Remove the journals of a finished table."""
    _remove(directory.glob(_PATTERN))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with writing(path):
            path.unlink()


def _line(block: int, checksums: Checksums) -> str:
    return json.dumps({"block": block, "crc32": checksums}) + "\n"
