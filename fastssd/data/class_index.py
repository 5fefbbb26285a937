"""The samples of a split, grouped by class: what samplers draw from."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastssd.data.draw_kernels import group
from fastssd.data.draws import Int64


@dataclass(frozen=True)
class ClassIndex:
    """The samples of a split, grouped by class."""

    labels: Int64
    num_classes: int

    @cached_property
    def counts(self) -> Int64:
        """(C,) images of each class."""
        return np.bincount(self.labels, minlength=self.num_classes).astype(np.int64)

    @cached_property
    def order(self) -> Int64:
        """(N,) samples, class after class, ascending within each."""
        return group(self.labels, self.counts)

    @cached_property
    def starts(self) -> Int64:
        """(C,) where each class begins in `order`."""
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def present(self) -> Int64:
        """Classes with at least one image; no plan draws another."""
        return np.flatnonzero(self.counts)

    def __len__(self) -> int:
        return len(self.labels)
