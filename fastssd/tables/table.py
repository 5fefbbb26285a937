"""A finished table, open for reading: what a frozen network said of (sample, view) pairs."""

from pathlib import Path

import numpy as np
import torch

from fastssd.data.draws import Draws
from fastssd.data.loader import HostBatch
from fastssd.errors import DataError
from fastssd.tables.files import REMEDY, TableFiles
from fastssd.tables.manifest import MANIFEST, columns_of, read_manifest
from fastssd.tables.rows import Rows

COLUMN = "table."
"""A table's arrays stand in a fetched batch under this and their names."""


class Table:
    """Rows of a finished table, by draw, as they are stored. Safe to read from several threads.

    Args:
        directory: Where it is.
        rows: Which row belongs to which draw.

    Raises:
        DataError: If files are missing, damaged or of another shape than the manifest says.
    """

    def __init__(self, directory: Path, rows: Rows) -> None:
        manifest = read_manifest(directory / MANIFEST)
        files = table_files(directory, manifest)
        if len(rows) != files.num_rows:
            raise DataError(f"{directory} has {files.num_rows} rows, not {len(rows)}; {REMEDY}")
        if problem := files.problem():
            raise DataError(f"{problem}; {REMEDY}")
        self.rows = rows
        self.num_bytes = files.num_bytes
        self._columns = [files.map(column) for column in files.columns]

    def read(self, draws: Draws) -> HostBatch:
        """Return the rows of B draws: (B, width) by column, in the stored types."""
        rows = self.rows.of(draws)
        return {
            COLUMN + column.name: torch.from_numpy(column.read(rows)) for column in self._columns
        }

    def announce(self, draws: Draws) -> None:
        """Have the system read the rows of later draws, without waiting."""
        rows = np.sort(self.rows.of(draws))
        for column in self._columns:
            column.ask_for(rows)


def table_files(directory: Path, manifest: dict[str, object]) -> TableFiles:
    """Return the files that a manifest, checked by `read_manifest`, tells of."""
    num_rows, block_rows = manifest["num_rows"], manifest["block_rows"]
    assert isinstance(num_rows, int)
    assert isinstance(block_rows, int)
    return TableFiles(directory, columns_of(manifest), num_rows=num_rows, block_rows=block_rows)
