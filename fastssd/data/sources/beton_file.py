"""`.beton` files that FFCV or something else wrote, with any fields besides image and label."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastssd.data.sources.image_csv import LABEL_COLUMNS, choose_column
from fastssd.data.sources.listing import Listing, classify, read_class_names
from fastssd.data.sources.parts import find_parts, is_part, training_file
from fastssd.data.sources.source import OpenedSource, SourceOptions
from fastssd.data.storage.beton import BetonStorage
from fastssd.data.storage.image import JPEG

_SUFFIX = ".beton"


@dataclass(frozen=True, slots=True)
class BetonSplit:
    """The samples of one file.

    Attributes:
        labels: (N,) int64.
        names: (N) ``FILE[sample]``.
        storage: The mapped file.
    """

    labels: NDArray[np.int64]
    names: Sequence[str]
    storage: BetonStorage

    def read(self, row: int) -> bytes | NDArray[np.uint8]:
        stored = self.storage.read(row)
        return stored.data.tobytes() if stored.mode == JPEG else stored.data

    def missing(self, rows: NDArray[np.int64]) -> Sequence[str]:
        return ()


def is_beton(path: Path) -> bool:
    """Return whether a path is a `.beton` file, or a folder with one for training."""
    return is_part(path, _SUFFIX)


def open_beton(origin: str, options: SourceOptions) -> OpenedSource:
    """Map `.beton` files; no image is opened.

    Raises:
        ConfigError: If there is no such file, or no field of a usual name holds the labels.
        DataError: If a file is damaged.
    """
    train = training_file(origin, _SUFFIX, ".beton file")
    parts, notes = find_parts(train, options)
    listings, storages = {}, {}
    for split, path in parts.items():
        storage = BetonStorage(path)
        fields = list(storage.integers)
        only = fields if len(fields) == 1 else LABEL_COLUMNS
        name = choose_column(
            fields, options.label_column, only, option="--label-column", file=str(path)
        )
        listing = Listing(str(path))
        for sample, label in enumerate(storage.integers[name].tolist()):
            listing.add(f"{path.name}[{sample}]", label, f"sample {sample}")
        listings[split], storages[split] = listing, storage
    named = read_class_names(options.classes) if options.classes else None
    classes, labels = classify(listings, named)
    return OpenedSource(
        name=train.stem,
        kind="beton",
        origin=origin,
        classes=classes,
        splits={
            split: BetonSplit(labels[split], listings[split].names, storage)
            for split, storage in storages.items()
        },
        notes=notes,
        taken_from={split: str(path) for split, path in parts.items()},
    )
