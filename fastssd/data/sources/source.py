"""What a conversion needs of a source: its classes, its splits, and each image's content."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Content = bytes | NDArray[np.uint8]
"""An encoded file (JPEG, PNG, ...), or RGB pixels (height, width, 3) uint8."""

TRAIN, VAL, TEST = "train", "val", "test"
SPLITS = (TRAIN, VAL, TEST)


class SourceSplit(Protocol):
    """The images of one split, in an order that is the same at every opening."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) int64."""

    @property
    def names(self) -> Sequence[str]:
        """(N) what messages call each image: a path relative to the source, or the like."""

    def read(self, row: int) -> Content:
        """Return one image. Called from several threads.

        Raises:
            OSError: If the file cannot be read.
        """


class Source(Protocol):
    """Something that can be converted.

    `name` becomes the dataset's; `kind` is the key of the registry; `origin` is what the user
    named; `notes` are lines to show the user, such as what was left aside.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def origin(self) -> str: ...

    @property
    def classes(self) -> Sequence[str]: ...

    @property
    def splits(self) -> Mapping[str, SourceSplit]:
        """By ``train``, ``val``, ``test``; ``train`` is always there."""

    @property
    def notes(self) -> Sequence[str]: ...
