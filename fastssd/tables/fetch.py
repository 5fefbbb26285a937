"""Reading a table's rows as a loader's batches are read: in threads, ahead."""

from dataclasses import dataclass

import torch

from fastssd.data.class_index import ClassIndex
from fastssd.data.draws import Draws
from fastssd.data.images import LABELS
from fastssd.data.loader import HostBatch
from fastssd.tables.table import Table


@dataclass(frozen=True)
class TableFetch:
    """A fetch of draws' rows of a table, and of the labels."""

    table: Table
    index: ClassIndex

    def __call__(self, draws: Draws) -> HostBatch:
        labels = torch.from_numpy(self.index.labels[draws.samples])
        return {**self.table.read(draws), LABELS: labels}

    def announce(self, draws: Draws) -> None:
        """Have the system read these draws' rows."""
        self.table.announce(draws)
