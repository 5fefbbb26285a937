"""CIFAR-10 and CIFAR-100 as published: python or binary files, in a folder or a `.tar.gz`."""

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from fastssd.core.reading import open_regular, read_bytes, reading
from fastssd.data.sources.plain_pickle import PlainPickleError, load_plain
from fastssd.data.sources.source import TEST, TRAIN, OpenedSource, SourceOptions
from fastssd.data.sources.tar_members import TarError, read_members
from fastssd.errors import ConfigError, DataError

_PIXELS = 3 * 32 * 32
_MAX_BYTES = 1 << 29  # of a file, and of an archive when it is unpacked: published ones have 186 MB
_MAX_MEMBERS = 1000  # of an archive: published ones have 10
_REMEDY = "fetch the file again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One of the published forms.

    Attributes:
        name: The dataset's.
        folder: The folder that its archive unpacks to.
        archive: The archive's name.
        num_classes: C.
        train: The training files, in order.
        test: The test file.
        meta: The file with the names of the classes.
        label: Python files: the key of the labels. Binary: the label's position in a record.
        label_bytes: Binary files: bytes before the pixels of a record; 0 for python files.
    """

    name: str
    folder: str
    archive: str
    num_classes: int
    train: tuple[str, ...]
    test: str
    meta: str
    label: str | int
    label_bytes: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        """All files that are read."""
        return (*self.train, self.test, self.meta)


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
LAYOUTS = (
    Layout(
        name="cifar10",
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        num_classes=10,
        train=_BATCHES,
        test="test_batch",
        meta="batches.meta",
        label="labels",
    ),
    Layout(
        name="cifar100",
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        num_classes=100,
        train=("train",),
        test="test",
        meta="meta",
        label="fine_labels",
    ),
    Layout(
        name="cifar10",
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        num_classes=10,
        train=tuple(f"{name}.bin" for name in _BATCHES),
        test="test_batch.bin",
        meta="batches.meta.txt",
        label=0,
        label_bytes=1,
    ),
    Layout(
        name="cifar100",
        folder="cifar-100-binary",
        archive="cifar-100-binary.tar.gz",
        num_classes=100,
        train=("train.bin",),
        test="test.bin",
        meta="fine_label_names.txt",
        label=1,
        label_bytes=2,
    ),
)


@dataclass(frozen=True, slots=True)
class CifarSplit:
    """The images of one split.

    Attributes:
        labels: (N,) int64.
        names: (N) ``FILE[row]``.
        planes: (N, 3072) uint8, red, green and blue planes.
    """

    labels: NDArray[np.int64]
    names: Sequence[str]
    planes: NDArray[np.uint8]

    def read(self, row: int) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self.planes[row].reshape(3, 32, 32).transpose(1, 2, 0))

    def missing(self, rows: NDArray[np.int64]) -> Sequence[str]:
        return ()


def is_cifar(path: Path) -> bool:
    """Return whether a path is one of the archives by name, or a folder with published files."""
    if path.is_file():
        return path.name in {layout.archive for layout in LAYOUTS}
    return any((path / f).is_file() for layout in LAYOUTS for f in (*layout.train, layout.test))


def open_cifar(origin: str, options: SourceOptions) -> OpenedSource:
    """Read the images of an archive or folder into memory (180 MB).

    Nothing is unpacked to disk, and pickles are read without running anything.

    Raises:
        ConfigError: If there is no such file or folder.
        DataError: If files are missing or damaged; names them.
    """
    path = Path(origin)
    if path.is_dir():
        layout, files = _from_folder(path)
    elif path.is_file():
        layout, files = _from_archive(path)
    else:
        raise ConfigError(f"SOURCE {origin}: there is no such file or folder")
    splits = {}
    for split, names in ((TRAIN, layout.train), (TEST, (layout.test,))):
        parts = [_read(layout, name, files[name], f"{path}: {name}") for name in names]
        splits[split] = CifarSplit(
            np.concatenate([labels for _, labels in parts]),
            [
                f"{name}[{row}]"
                for name, (_, labels) in zip(names, parts, strict=True)
                for row in range(len(labels))
            ],
            np.concatenate([planes for planes, _ in parts]),
        )
    return OpenedSource(
        name=layout.name,
        kind="cifar",
        origin=origin,
        classes=_classes(layout, files[layout.meta], f"{path}: {layout.meta}"),
        splits=splits,
    )


def _from_folder(folder: Path) -> tuple[Layout, dict[str, bytes]]:
    layout = _best(lambda name: (folder / name).is_file(), str(folder))
    files = {}
    for name in layout.files:
        with reading(folder / name, _REMEDY):
            files[name] = read_bytes(folder / name, limit=_MAX_BYTES)
    return layout, files


def _from_archive(archive: Path) -> tuple[Layout, dict[str, bytes]]:
    wanted = {name for layout in LAYOUTS for name in layout.files}
    files: dict[str, bytes] = {}
    with reading(archive, _REMEDY), open_regular(archive) as packed:
        is_gzip = packed.read(2) == b"\x1f\x8b"
        packed.seek(0)
        tar = cast(BinaryIO, gzip.GzipFile(fileobj=packed)) if is_gzip else packed
        for number, member in enumerate(read_members(tar, limit=_MAX_BYTES)):
            if number >= _MAX_MEMBERS:
                raise TarError(f"it has more than {_MAX_MEMBERS:,} members")
            name = member.name.rpartition("/")[2]
            if name in wanted and member.is_file:
                files[name] = tar.read(member.size)
                if len(files[name]) < member.size:
                    raise TarError(f"it is cut short within {member.name}")
    return _best(files.__contains__, str(archive)), files


def _best(has: Callable[[str], bool], where: str) -> Layout:
    """Return the layout that has most of its files; all of them must be there."""
    layout = max(LAYOUTS, key=lambda layout: sum(map(has, layout.files)) / len(layout.files))
    absent = [name for name in layout.files if not has(name)]
    if absent:
        raise DataError(
            f"{where}: lacks {', '.join(absent)}; {layout.archive} (which unpacks to "
            f"{layout.folder}/) holds {', '.join(layout.files)}"
        )
    return layout


def _read(
    layout: Layout, name: str, content: bytes, where: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return (N, 3072) planes and (N,) labels of one file."""
    planes, labels = (_read_binary if layout.label_bytes else _read_python)(layout, content, where)
    if not len(labels):
        raise DataError(f"{where}: holds no images")
    row = next((i for i, one in enumerate(labels) if not 0 <= one < layout.num_classes), None)
    if row is not None:
        shown = labels[row] if abs(labels[row]) < 1 << 63 else "a number of more than 64 bits"
        raise DataError(
            f"{where}: label {shown} of image {row} is not one of the {layout.num_classes} "
            f"classes; {_REMEDY}"
        )
    return planes, np.array(labels, dtype=np.int64)


def _read_python(
    layout: Layout, content: bytes, where: str
) -> tuple[NDArray[np.uint8], Sequence[int]]:
    batch = _unpickle(content, where)
    planes, labels = batch.get("data"), batch.get(str(layout.label))
    if isinstance(labels, np.ndarray):
        labels = labels.tolist()
    if (
        isinstance(planes, np.ndarray)
        and planes.dtype == np.uint8
        and planes.ndim == 2
        and planes.shape[1] == _PIXELS
        and isinstance(labels, list)
        and len(labels) == len(planes)
        and all(isinstance(label, int | np.integer) for label in labels)
    ):
        return planes, labels
    raise DataError(
        f"{where}: does not hold (N, {_PIXELS}) bytes as 'data' and as many whole numbers as "
        f"{layout.label!r}; {_REMEDY}"
    )


def _read_binary(
    layout: Layout, content: bytes, where: str
) -> tuple[NDArray[np.uint8], Sequence[int]]:
    record = layout.label_bytes + _PIXELS
    if len(content) % record:
        raise DataError(
            f"{where}: {len(content)} bytes are not a whole number of records of {record}: the "
            "file is cut short; fetch it again"
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, record)
    return records[:, layout.label_bytes :], records[:, int(layout.label)].tolist()


def _classes(layout: Layout, content: bytes, where: str) -> list[str]:
    if layout.label_bytes:
        names = [line.strip() for line in content.decode("latin-1").splitlines() if line.strip()]
    else:
        found = _unpickle(content, where).get(str(layout.label).removesuffix("s") + "_names")
        found = found if isinstance(found, list) else []
        names = [_text(name) for name in found if isinstance(name, str | bytes)]
    if len(set(names)) != layout.num_classes or len(names) != layout.num_classes:
        raise DataError(
            f"{where}: holds {len(names)} names where {layout.num_classes} classes are expected; "
            f"{_REMEDY}"
        )
    return names


def _unpickle(content: bytes, where: str) -> Mapping[str, Any]:
    try:
        value = load_plain(content)
    except PlainPickleError as error:
        raise DataError(f"{where}: {error}; {_REMEDY}") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: holds a {type(value).__name__} where a dictionary is expected")
    return {_text(key): entry for key, entry in value.items()}


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
