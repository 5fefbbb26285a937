"""The features of a split's images, read in parts so that memory stays bounded.

Shape letters: N images, D width of the feature, R rows of a part.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS_AT_ONCE = 1024
"""A constant: sums in other parts would round otherwise."""


@dataclass(frozen=True)
class FeatureSet:
    """Features and labels of images.

    Attributes:
        features: (N, D) float32 or float16, in memory or mapped from a file.
        labels: (N,) int64, the class of each row.

    Raises:
        ValueError: If they are not one label for each of one or more rows.
    """

    features: NDArray[np.floating]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.labels.shape != self.features.shape[:1]:
            raise ValueError(
                f"features of shape {self.features.shape} need one label a row, not "
                f"{self.labels.shape}"
            )
        if not len(self):
            raise ValueError("there are no rows of features")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def width(self) -> int:
        """D."""
        return int(self.features.shape[1])

    def parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (R, D) float32 features and (R,) int64 labels, all rows in order, on the CPU."""
        for start in range(0, len(self), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            # Copies: a mapped file may be read-only, which torch would warn of.
            yield (
                torch.from_numpy(np.array(self.features[rows], dtype=np.float32)),
                torch.from_numpy(np.array(self.labels[rows], dtype=np.int64)),
            )
