"""A draw is (sample, view): what plans produce, loaders consume and tables are keyed by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int64 = NDArray[np.int64]

_REPETITION_SHIFT = 32


@dataclass(frozen=True, slots=True)
class Draws:
    """A sequence of draws, as two arrays of one shape: (N,), or (N, K) for K images a row.

    Attributes:
        samples: int64 rows of a split.
        views: int64 non-negative view numbers.
    """

    samples: Int64
    views: Int64

    def __post_init__(self) -> None:
        if self.samples.shape != self.views.shape:
            raise ValueError(f"{self.samples.shape} samples but {self.views.shape} views")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, rows: slice | Int64) -> Self:
        return type(self)(self.samples[rows], self.views[rows])

    @classmethod
    def joined(cls, parts: Sequence["Draws"]) -> Self:
        """Return draws one after another."""
        samples = np.concatenate([part.samples for part in parts])
        return cls(samples, np.concatenate([part.views for part in parts]))


def pack_view(epoch: ArrayLike, repetition: ArrayLike) -> Int64:
    """Return the view number of a sample's n-th repetition within an epoch.

    A sample drawn once an epoch has `view == epoch`.
    """
    return np.asarray(epoch, np.int64) + (np.asarray(repetition, np.int64) << _REPETITION_SHIFT)


def unpack_view(views: ArrayLike) -> tuple[Int64, Int64]:
    """Return (epoch, repetition) of packed view numbers."""
    views = np.asarray(views, np.int64)
    return views & ((1 << _REPETITION_SHIFT) - 1), views >> _REPETITION_SHIFT
