"""What a conversion needs of a source: its classes, its splits, and each image's content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
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
            ValueError: If the source holds no image there; the message is the reason alone.
        """

    def missing(self, rows: NDArray[np.int64]) -> Sequence[str]:
        """Return the names of those rows whose files are not there, without opening any.

        Raises:
            DataError: If a row names a pipe, a socket or a device.
        """


class Source(Protocol):
    """Something that can be converted.

    `name` becomes the dataset's; `kind` is the key of the registry; `origin` is what the user
    named; `notes` are lines to show the user, such as what was left aside; `imbalance` is the one
    that the source's name asks for (``cifar100_lt_100``), if any.
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

    @property
    def imbalance(self) -> float | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedSource:
    """A source as its module found it; see `Source`.

    `taken_from` says by split which folder, files or the like it was taken from, for the user.
    """

    name: str
    kind: str
    origin: str
    classes: Sequence[str]
    splits: Mapping[str, SourceSplit]
    notes: Sequence[str] = ()
    imbalance: float | None = None
    taken_from: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """What a person says about a source besides its name or path. None where it was not said.

    Attributes:
        root: The folder that the paths of a list start from, or that holds a known dataset.
        lists: The folder with a known dataset's lists, where they are not in `root`.
        val: The validation part: a file of the same kind.
        test: The test part: a file of the same kind.
        split_names: By split, the folder, shards or value of a column that is that split.
        classes: A file with the name of one class a line, in the order of the labels.
        image_column: The column, feature or extension that holds the image.
        label_column: The column, feature, field or key that holds the label.
    """

    root: Path | None = None
    lists: Path | None = None
    val: str | None = None
    test: str | None = None
    split_names: Mapping[str, str] | None = None
    classes: Path | None = None
    image_column: str | None = None
    label_column: str | None = None
