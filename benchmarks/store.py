"""The same stored JPEG bytes for every loader: a dataset directory, and its bytes as files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from photographs import Photograph

from fastssd.data.convert import convert
from fastssd.data.dataset import Split, open_dataset
from fastssd.data.sources.source import Content, OpenedSource


@dataclass(frozen=True, slots=True)
class Store:
    """Photographs as they are stored; each is a class of its own, so labels tell samples.

    Attributes:
        photographs: What was stored.
        split: The opened dataset directory, of format `ffcv`.
        beton: Its file, which FFCV's Loader opens.
        root: A folder with a folder for each photograph, for ImageFolder.
        files: The JPEG file in each, the stored bytes.
    """

    photographs: Sequence[Photograph]
    split: Split
    beton: Path
    root: Path
    files: Sequence[Path]

    def samples(self, subsampling: str | None = None) -> NDArray[np.int64]:
        """Return the samples whose chroma is so; all for None."""
        kinds = np.array([photograph.subsampling for photograph in self.photographs])
        chosen = kinds == subsampling if subsampling else np.ones(len(kinds), bool)
        return np.flatnonzero(chosen)


def make_store(folder: Path, photographs: Sequence[Photograph], *, jpeg: str = "restart") -> Store:
    """Convert photographs to a dataset directory and write what it stores as files.

    Args:
        folder: Where both are written.
        photographs: JPEG files.
        jpeg: How the conversion prepares them: ``restart`` or ``keep``.
    """
    dataset = folder / "dataset"
    split = make_dataset(dataset, photographs, jpeg=jpeg)
    root = folder / "files"
    files = []
    for sample in range(len(split)):
        file = root / f"{sample:05d}" / "photograph.jpg"
        file.parent.mkdir(parents=True)
        file.write_bytes(split.storage.read(sample).data.tobytes())
        files.append(file)
    return Store(photographs, split, dataset / "train.beton", root, files)


def make_dataset(
    folder: Path, photographs: Sequence[Photograph], *, jpeg: str = "restart"
) -> Split:
    """Convert photographs to a dataset directory of format `ffcv`; return its only split."""
    convert(_source(photographs), folder, format="ffcv", jpeg=jpeg)
    return open_dataset(folder).split("train")


def make_large_dataset(folder: Path, photographs: Sequence[Photograph], count: int) -> Split:
    """Store so many images as `make_dataset` does, the photographs in turns, each prepared once."""
    with TemporaryDirectory(dir=folder.parent) as once:
        stored = make_dataset(Path(once) / "dataset", photographs[:count]).storage
        contents = [stored.read(sample).data.tobytes() for sample in range(len(stored))]
    prepared = [
        replace(photograph, content=content)
        for photograph, content in zip(photographs, contents, strict=False)
    ]
    in_turns = [prepared[number % len(prepared)] for number in range(count)]
    return make_dataset(folder, in_turns, jpeg="keep")


class _Photographs:
    """The split of a source that is in memory."""

    def __init__(self, photographs: Sequence[Photograph]) -> None:
        self.photographs = photographs
        self.labels = np.arange(len(photographs))
        self.names: Sequence[str] = [f"photograph {number}" for number in range(len(photographs))]

    def read(self, row: int) -> Content:
        return self.photographs[row].content

    def missing(self, rows: NDArray[np.int64]) -> Sequence[str]:
        return []


def _source(photographs: Sequence[Photograph]) -> OpenedSource:
    return OpenedSource(
        name="photographs",
        kind="folder",
        origin="photographs",
        classes=[f"{number:05d}" for number in range(len(photographs))],
        splits={"train": _Photographs(photographs)},
    )
