"""The array files of a table: plain `.npy`, reserved at once, written block by block, checked.

Every file begins with the same 128 bytes that NumPy's format 1.0 has, written here, so that they
are compared and never parsed: what a file claims to be is not believed.
"""

import errno
import mmap
import os
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastssd.core.files import fsync, sync_path, write_all, writing
from fastssd.core.reading import open_regular
from fastssd.data.draws import Int64
from fastssd.errors import DataError
from fastssd.native import mapped

LOGITS, FEATURES, IDS, REST = "logits", "features", "ids", "rest"
"""Columns that tables may have."""
HEADER_BYTES = 128
REMEDY = "delete the table's folder and start again: it is made anew"

_READ_BYTES = 1 << 22
_RESIDENT_BYTES = 1 << 20
"""Of a mapped file: pages are let go after so many bytes of rows, which else count as ours. With
one that is touched the kernel maps its neighbours in the page cache, up to megabytes of them."""

Arrays = dict[str, NDArray[Any]]
Checksums = dict[str, str]
"""CRC-32 of a block by column, eight hexadecimal digits."""


@dataclass(frozen=True)
class Column:
    """One array of a table.

    Attributes:
        name: Its file is NAME.npy.
        dtype: NumPy's name of the type.
        width: Numbers a row.
    """

    name: str
    dtype: str
    width: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return np.dtype(self.dtype).itemsize * self.width


class TableFiles:
    """The files of one table directory.

    Args:
        directory: The table's.
        columns: Its arrays.
        num_rows: Of every array.
        block_rows: Rows of a block, the last of which may be shorter.
    """

    def __init__(
        self, directory: Path, columns: list[Column], *, num_rows: int, block_rows: int
    ) -> None:
        self.directory = directory
        self.columns = columns
        self.num_rows = num_rows
        self.block_rows = block_rows

    @property
    def num_blocks(self) -> int:
        """Blocks of every array."""
        return -(-self.num_rows // self.block_rows)

    def rows(self, block: int) -> range:
        """Return the rows of a block."""
        start = block * self.block_rows
        return range(start, min(start + self.block_rows, self.num_rows))

    def path(self, column: Column) -> Path:
        """Return a column's file."""
        return self.directory / f"{column.name}.npy"

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays on the disk."""
        return sum(HEADER_BYTES + self.num_rows * column.row_bytes for column in self.columns)

    def create(self) -> None:
        """Make the files and reserve their room, so that a full disk is found out now.

        Raises:
            DataError: If there is no room for them, or they cannot be written.
        """
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        for column in self.columns:
            path = self.path(column)
            with writing(path):
                path.unlink(missing_ok=True)  # not truncated: another process may have it mapped
        # Asking for what there is not would first take all there is, from everyone on the disk.
        free = shutil.disk_usage(self.directory).free
        if self.num_bytes > free:
            raise self._no_room(os.strerror(errno.ENOSPC), free)
        for column in self.columns:
            path = self.path(column)
            with writing(path), path.open("wb", buffering=0) as file:
                write_all(file, self._header(column))
                self._reserve(file.fileno(), HEADER_BYTES + self.num_rows * column.row_bytes)
                fsync(file.fileno())
        with writing(self.directory):
            sync_path(self.directory)

    def problem(self) -> str:
        """Return which file is missing, cut or of another header; empty if none is."""
        for column in self.columns:
            path = self.path(column)
            try:
                with open_regular(path) as file:
                    header = file.read(HEADER_BYTES)
                    size = os.fstat(file.fileno()).st_size
            except OSError as error:
                return f"{path}: {error.strerror}"
            if header != self._header(column):
                shape = (self.num_rows, column.width)
                return f"{path}: not the header of a {column.dtype} array {shape}"
            if size != HEADER_BYTES + self.num_rows * column.row_bytes:
                return f"{path}: of {size} bytes, which is not what its header says"
        return ""

    def write(self, block: int, arrays: Arrays) -> Checksums:
        """Write a block and wait until the disk has it; return its checksums."""
        checksums = {}
        for column in self.columns:
            values = np.ascontiguousarray(arrays[column.name], dtype=column.dtype)
            if values.shape != (len(self.rows(block)), column.width):
                raise ValueError(f"block {block} of {column.name} has no {values.shape} values")
            content = values.reshape(-1).view(np.uint8).data
            path = self.path(column)
            with writing(path), path.open("rb+", buffering=0) as file:
                _write_at(file.fileno(), content, self._offset(column, block))
                fsync(file.fileno())
            checksums[column.name] = f"{zlib.crc32(content):08x}"
        return checksums

    def damaged(self, block: int, checksums: Checksums) -> str:
        """Return which file's block is not as its checksum says; empty if none is.

        The blocks are read, not mapped, so that checking a large table takes little memory.
        """
        for column in self.columns:
            expected = checksums.get(column.name)
            if expected is None or self._checksum(column, block) != expected:
                rows = self.rows(block)
                return f"{self.path(column)}: block {block} (rows {rows.start} to {rows.stop - 1})"
        return ""

    def map(self, column: Column) -> "MappedColumn":
        """Return a column for reading."""
        return MappedColumn(self.path(column), column, self.num_rows)

    def _checksum(self, column: Column, block: int) -> str:
        left = len(self.rows(block)) * column.row_bytes
        checksum = 0
        with open_regular(self.path(column)) as file:
            file.seek(self._offset(column, block))
            while left:
                part = file.read(min(left, _READ_BYTES))
                if not part:
                    return "cut"
                checksum = zlib.crc32(part, checksum)
                left -= len(part)
        return f"{checksum:08x}"

    def _offset(self, column: Column, block: int) -> int:
        return HEADER_BYTES + self.rows(block).start * column.row_bytes

    def _header(self, column: Column) -> bytes:
        descr = np.dtype(column.dtype).newbyteorder("<").str
        shape = (self.num_rows, column.width)
        text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
        magic = b"\x93NUMPY\x01\x00"
        padded = text.ljust(HEADER_BYTES - len(magic) - 3) + "\n"
        return magic + len(padded).to_bytes(2, "little") + padded.encode("ascii")

    def _reserve(self, descriptor: int, num_bytes: int) -> None:
        try:
            os.posix_fallocate(descriptor, 0, num_bytes)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                os.ftruncate(descriptor, num_bytes)  # a file system that reserves nothing
                return
            free = shutil.disk_usage(self.directory).free
            for column in self.columns:
                with writing(self.path(column)):
                    self.path(column).unlink(missing_ok=True)
            raise self._no_room(error.strerror or str(error), free) from error

    def _no_room(self, reason: str, free: int) -> DataError:
        return DataError(
            f"{self.directory}: a table of {self.num_bytes:,} bytes has no room here "
            f"({reason}; {free:,} bytes free): make room, or choose fewer tables.views or a "
            "smaller tables.store"
        )


class MappedColumn:
    """An array file mapped for random reading by several threads.

    Args:
        path: The file, whose header was checked.
        column: What it holds.
        num_rows: Its rows.
    """

    def __init__(self, path: Path, column: Column, num_rows: int) -> None:
        self.name = column.name
        with open_regular(path) as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # Rows are read in no order: what the kernel would read around each is of no use.
        self._map.madvise(mmap.MADV_RANDOM)
        values = np.frombuffer(self._map, dtype=column.dtype, offset=HEADER_BYTES)
        mapped.guard(self._map, values.__array_interface__["data"][0] - HEADER_BYTES, path)
        self.values = values.reshape(num_rows, column.width)
        self._row_bytes = column.row_bytes
        self._touched = 0

    def ask_for(self, sorted_rows: Int64) -> None:
        """Ask the kernel for rows ahead of their reading, all at once."""
        starts = (HEADER_BYTES + sorted_rows * self._row_bytes) // mmap.PAGESIZE
        ends = (HEADER_BYTES + (sorted_rows + 1) * self._row_bytes - 1) // mmap.PAGESIZE + 1
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            self._map.madvise(
                mmap.MADV_WILLNEED, start * mmap.PAGESIZE, (end - start) * mmap.PAGESIZE
            )

    def read(self, rows: Int64) -> NDArray[Any]:
        """Return (len(rows), width) values, copied.

        Raises:
            DataError: If the file was cut short meanwhile.
        """
        values = self.values.take(rows, axis=0)
        mapped.check()
        self._touched += values.nbytes
        if self._touched > _RESIDENT_BYTES:
            self._touched = 0
            # They stay in the page cache; only this process no longer holds them.
            self._map.madvise(mmap.MADV_DONTNEED)
        return values


def _write_at(descriptor: int, content: memoryview, offset: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written
