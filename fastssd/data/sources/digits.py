"""The embedded source: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastssd.data.sources.source import TEST, TRAIN, OpenedSource, SourceOptions
from fastssd.errors import ConfigError

TEST_PER_CLASS = 36
_LARGEST_GREY = 16


@dataclass(frozen=True, slots=True)
class DigitsSplit:
    """Some rows of the digits.

    Attributes:
        labels: (N,) int64.
        names: (N) ``digits[row]``.
        pixels: (N, 8, 8, 3) uint8.
    """

    labels: NDArray[np.int64]
    names: Sequence[str]
    pixels: NDArray[np.uint8]

    def read(self, row: int) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = self.pixels[row]
        return pixels

    def missing(self, rows: NDArray[np.int64]) -> Sequence[str]:
        return ()


def open_digits(origin: str, options: SourceOptions) -> OpenedSource:
    """Return the digits, with the last 36 of each class as the test set.

    The data set is in the order of its writers, so the test digits are by other people than the
    training digits.

    Raises:
        ConfigError: If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConfigError(
            "the digits come with scikit-learn, which is missing: `pip install scikit-learn`"
        ) from error
    images, labels = load_digits().images, load_digits().target.astype(np.int64)
    grey = np.rint(images * (255 / _LARGEST_GREY)).astype(np.uint8)
    pixels = np.repeat(grey[..., None], 3, axis=3)

    test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        test[np.flatnonzero(labels == label)[-TEST_PER_CLASS:]] = True

    def split(mask: NDArray[np.bool_]) -> DigitsSplit:
        rows = np.flatnonzero(mask)
        return DigitsSplit(labels[rows], [f"digits[{row}]" for row in rows], pixels[rows])

    return OpenedSource(
        name="digits",
        kind="digits",
        origin=origin,
        classes=tuple("0123456789"),
        splits={TRAIN: split(~test), TEST: split(test)},
    )
