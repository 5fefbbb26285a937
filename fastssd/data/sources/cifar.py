"""CIFAR-10 and CIFAR-100 as published: python or binary files, in a folder or a `.tar.gz`."""

import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastssd.data.sources.plain_pickle import PlainPickleError, load_plain
from fastssd.data.sources.source import TEST, TRAIN, OpenedSource, SourceOptions
from fastssd.errors import ConfigError, DataError

_PIXELS = 3 * 32 * 32
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
_MAX_MEMBER_BYTES = 1 << 29  # the largest published file has 155 MB


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
        taken_from={TRAIN: ", ".join(layout.train), TEST: layout.test},
    )


def _from_folder(folder: Path) -> tuple[Layout, dict[str, bytes]]:
    layout = _best(lambda name: (folder / name).is_file(), str(folder))
    try:
        return layout, {name: (folder / name).read_bytes() for name in layout.files}
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _from_archive(archive: Path) -> tuple[Layout, dict[str, bytes]]:
    wanted = {name for layout in LAYOUTS for name in layout.files}
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                if name in wanted and member.isreg():
                    if member.size > _MAX_MEMBER_BYTES:
                        raise DataError(f"{archive}: {member.name} has {member.size} bytes")
                    file = tar.extractfile(member)
                    files[name] = file.read() if file else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{archive}: the archive is damaged or cut short: {reason}") from error
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
    if labels.min() < 0 or labels.max() >= layout.num_classes:
        row = int(np.flatnonzero((labels < 0) | (labels >= layout.num_classes))[0])
        raise DataError(
            f"{where}: label {labels[row]} of image {row} is not one of the {layout.num_classes} "
            "classes; fetch the file again"
        )
    return planes, labels


def _read_python(
    layout: Layout, content: bytes, where: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    batch = _unpickle(content, where)
    planes, labels = batch.get("data"), batch.get(str(layout.label))
    if (
        isinstance(planes, np.ndarray)
        and planes.dtype == np.uint8
        and planes.ndim == 2
        and planes.shape[1] == _PIXELS
        and isinstance(labels, list | np.ndarray)
        and len(labels) == len(planes)
        and all(isinstance(label, int | np.integer) for label in labels)
    ):
        return planes, np.array(labels, dtype=np.int64)
    raise DataError(
        f"{where}: does not hold (N, {_PIXELS}) bytes as 'data' and as many whole numbers as "
        f"{layout.label!r}; fetch the file again"
    )


def _read_binary(
    layout: Layout, content: bytes, where: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    record = layout.label_bytes + _PIXELS
    if len(content) % record:
        raise DataError(
            f"{where}: {len(content)} bytes are not a whole number of records of {record}: the "
            "file is cut short; fetch it again"
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, record)
    return records[:, layout.label_bytes :], records[:, int(layout.label)].astype(np.int64)


def _classes(layout: Layout, content: bytes, where: str) -> list[str]:
    if layout.label_bytes:
        names = [line.strip() for line in content.decode("latin-1").splitlines() if line.strip()]
    else:
        found = _unpickle(content, where).get(str(layout.label).removesuffix("s") + "_names")
        names = [_text(name) for name in found] if isinstance(found, list) else []
    if len(set(names)) != layout.num_classes or len(names) != layout.num_classes:
        raise DataError(
            f"{where}: holds {len(names)} names where {layout.num_classes} classes are expected; "
            "fetch the file again"
        )
    return names


def _unpickle(content: bytes, where: str) -> Mapping[str, object]:
    try:
        value = load_plain(content)
    except PlainPickleError as error:
        raise DataError(f"{where}: {error}; fetch the file again") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: holds a {type(value).__name__} where a dictionary is expected")
    return {_text(key): entry for key, entry in value.items()}


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
