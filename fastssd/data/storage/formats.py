"""The storage formats by the name that `meta.json` and `--format` give them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastssd.data.storage.beton import BetonStorage, BetonWriter
from fastssd.data.storage.memory import MemoryWriter, open_memory
from fastssd.data.storage.storage import Storage, StorageWriter
from fastssd.data.storage.webdataset import WebDatasetStorage, WebDatasetWriter


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageFormat:
    """How the images of a split are written and read.

    Attributes:
        description: One line for `--help`.
        keeps_jpeg: Whether JPEG files are stored as they are; otherwise as pixels.
        open: (folder, split) -> Storage; raises DataError for missing or damaged files.
        create: (folder, split, capacity) -> StorageWriter for at most `capacity` samples.
    """

    description: str
    keeps_jpeg: bool
    open: Callable[[Path, str], Storage]
    create: Callable[[Path, str, int], StorageWriter]


STORAGES: dict[str, StorageFormat] = {
    "memory": StorageFormat(
        description="pixels, mapped from disk and read without decoding: small images",
        keeps_jpeg=False,
        open=open_memory,
        create=MemoryWriter,
    ),
    "ffcv": StorageFormat(
        description="one .beton a split, JPEG bytes kept as they are; FFCV's Loader opens it",
        keeps_jpeg=True,
        open=lambda folder, split: BetonStorage(folder / f"{split}.beton"),
        create=lambda folder, split, capacity: BetonWriter(
            folder / f"{split}.beton", capacity=capacity
        ),
    ),
    "webdataset": StorageFormat(
        description=".tar shards, JPEG bytes kept as they are; DALI's own reader opens them",
        keeps_jpeg=True,
        open=WebDatasetStorage,
        create=lambda folder, split, capacity: WebDatasetWriter(folder, split),
    ),
}
