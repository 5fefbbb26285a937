"""Writing a dataset directory from a source."""

import hashlib
import json
import os
import platform
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastssd.data.dataset import LAYOUT_VERSION, META_FILE
from fastssd.data.directory import check_target, new_directory
from fastssd.data.encode import Encoded, encode
from fastssd.data.longtail import EXPONENTIAL, KINDS
from fastssd.data.orientation import UPRIGHT
from fastssd.data.sources.source import TRAIN, Content, Source, SourceSplit
from fastssd.data.storage.formats import STORAGES
from fastssd.data.storage.storage import StorageWriter
from fastssd.data.subsets import Subset, check_no_class_empty, plan_subsets
from fastssd.errors import ConfigError, DataError

Int64 = NDArray[np.int64]
Progress = Callable[[str, int, int], None]
"""Called with a split's name, the images done and the images to do."""

FAIL, SKIP = "fail", "skip"
APPLY, IGNORE = "apply", "ignore"
REJECTS_FILE = "rejects.jsonl"

_CHUNK = 8  # images a task: enough to hide the cost of handing it over, few enough to interrupt
_SHOWN = 10  # missing files in a message
_LIBRARIES = ("fastssd", "numpy", "pillow", "torch", "torchvision", "scikit-learn")


@dataclass(frozen=True, slots=True)
class Reject:
    """An image that was left out.

    Attributes:
        split: The split it was meant for.
        name: Its name in the source.
        reason: What is wrong with it.
    """

    split: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Read:
    """One row of the source: what is stored, and the digest of what was read; or the reason."""

    row: int
    encoded: Encoded | None = None
    digest: bytes = b""
    reason: str = ""


def convert(
    source: Source,
    out: str | Path,
    *,
    format: str = "memory",
    name: str | None = None,
    imbalance: float | None = None,
    imbalance_type: str = EXPONENTIAL,
    max_per_class: int | None = None,
    seed: int = 0,
    val_per_class: int = 0,
    test_per_class: int = 0,
    orientation: str = APPLY,
    short_side: int | None = None,
    on_error: str = FAIL,
    overwrite: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a dataset directory, whole or not at all.

    Held-out images are taken first, then the long tail of the rest. Every image is decoded once
    on the way. The same arguments write the same bytes, whatever the number of threads.

    Args:
        source: What to convert.
        out: The directory to make.
        format: A key of `STORAGES`.
        name: The dataset's name; by default the source's.
        imbalance: Largest class over smallest; by default what the source's name asks for, or
            every class whole.
        imbalance_type: ``exp`` or ``step``.
        max_per_class: Size of the largest class; by default images / classes.
        seed: Of the choice of images.
        val_per_class: Training images of each class that become the validation split.
        test_per_class: Training images of each class that become the test split.
        orientation: ``apply`` the Exif orientation of images, or ``ignore`` it.
        short_side: Shrink images whose shorter side is longer, in pixels; see `shrink`.
        on_error: ``fail`` at the first damaged image, or ``skip`` it and list it in
            `rejects.jsonl` and `meta.json`.
        overwrite: Whether to replace an existing dataset directory.
        threads: That read and decode; by default one per core that this process may use.
        progress: Called as images are written.

    Returns:
        The content of `meta.json`.

    Raises:
        ConfigError: If an argument is wrong or `out` exists.
        DataError: If an image is damaged (``fail``) or a class lost all its images (``skip``).
    """
    _check_choice("--format", format, list(STORAGES))
    _check_choice("--imbalance-type", imbalance_type, KINDS)
    _check_choice("--orientation", orientation, (APPLY, IGNORE))
    _check_choice("--on-error", on_error, (FAIL, SKIP))
    if imbalance is None:
        imbalance = source.imbalance
    elif source.imbalance is not None and imbalance != source.imbalance:
        raise ConfigError(
            f"--imbalance {imbalance:g}: {source.origin} asks for {source.imbalance:g} by its name"
        )
    check_target(Path(out), overwrite=overwrite, marker=META_FILE)
    choice: dict[str, Any] = {
        "imbalance": imbalance,
        "imbalance_type": imbalance_type,
        "max_per_class": max_per_class,
        "seed": seed,
        "val_per_class": val_per_class,
        "test_per_class": test_per_class,
    }
    subsets = plan_subsets(source, **choice)
    _check_missing(source, subsets, on_error)
    digest = hashlib.sha256()
    rejects: list[Reject] = []
    splits: dict[str, dict[str, Any]] = {}
    with (
        new_directory(Path(out), overwrite=overwrite, marker=META_FILE) as folder,
        warnings.catch_warnings(),
    ):
        # Pillow remarks on odd metadata. Set here and not in the threads, which share the filters.
        warnings.filterwarnings("ignore", module="PIL")
        for split, subset in subsets.items():
            counts, num_turned = _write_split(
                folder,
                split,
                subset,
                source=source,
                format=format,
                upright=orientation == APPLY,
                short_side=short_side,
                on_error=on_error,
                threads=threads or len(os.sched_getaffinity(0)),
                progress=progress,
                digest=digest.update,
                rejects=rejects,
            )
            splits[split] = {
                "images": int(counts.sum()),
                "per_class": counts.tolist(),
                "source_split": subset.source_split,
                "turned": num_turned,
            }
        _check_skipped(source, splits, rejects)
        meta = {
            "layout": LAYOUT_VERSION,
            "name": name or source.name,
            "format": format,
            "classes": list(source.classes),
            "splits": splits,
            "source": {
                "kind": source.kind,
                "origin": source.origin,
                "sha256": digest.hexdigest(),
                "notes": list(source.notes),
            },
            "conversion": {
                **choice,
                "orientation": orientation,
                "short_side": short_side,
                "on_error": on_error,
            },
            "rejected": [asdict(reject) for reject in rejects],
            "versions": _versions(),
        }
        if rejects:
            _write_lines(folder / REJECTS_FILE, [asdict(reject) for reject in rejects])
        (folder / META_FILE).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    return meta


def _write_split(
    folder: Path,
    split: str,
    subset: Subset,
    *,
    source: Source,
    format: str,
    upright: bool,
    short_side: int | None,
    on_error: str,
    threads: int,
    progress: Progress | None,
    digest: Callable[[bytes], None],
    rejects: list[Reject],
) -> tuple[Int64, int]:
    """Write all files of one split.

    Returns:
        (C,) int64 images per class, and how many of them the decoder must turn upright.
    """
    origin = source.splits[subset.source_split]
    writer: StorageWriter = STORAGES[format].create(folder, split, len(subset.rows))
    kept: list[int] = []
    orientations: list[int] = []
    try:
        reads = _read_all(
            origin,
            subset.rows,
            partial(
                encode,
                keep_jpeg=STORAGES[format].keeps_jpeg,
                upright=upright,
                short_side=short_side,
            ),
            threads,
        )
        for done, read in enumerate(reads, 1):
            reason = read.reason or _append(writer, read.encoded, int(origin.labels[read.row]))
            if not reason:
                digest(read.digest)
                kept.append(read.row)
                orientations.append(read.encoded.orientation if read.encoded else UPRIGHT)
            elif on_error == FAIL:
                raise DataError(
                    f"{origin.names[read.row]} (row {read.row} of split {subset.source_split!r} of "
                    f"{source.origin}): {reason}; mend or remove it, or leave such images out "
                    "with --on-error skip"
                )
            else:
                rejects.append(Reject(split, origin.names[read.row], reason))
            if progress is not None:
                progress(split, done, len(subset.rows))
        writer.finish()
    finally:
        writer.abandon()
    labels = origin.labels[kept].astype(np.int64)
    np.save(folder / f"{split}.labels.npy", labels)
    np.save(folder / f"{split}.source_rows.npy", np.array(kept, dtype=np.int64))
    _write_lines(folder / f"{split}.names.jsonl", [origin.names[row] for row in kept])
    num_turned = sum(orientation != UPRIGHT for orientation in orientations)
    if num_turned:
        np.save(folder / f"{split}.orientations.npy", np.array(orientations, dtype=np.uint8))
    return np.bincount(labels, minlength=len(source.classes)).astype(np.int64), num_turned


def _append(writer: StorageWriter, encoded: Encoded | None, label: int) -> str:
    """Store an image; return why it cannot be stored, or nothing."""
    assert encoded is not None  # a read without a reason has an image
    try:
        writer.append(encoded.image, height=encoded.height, width=encoded.width, label=label)
    except ValueError as error:
        return str(error)
    return ""


def _read_all(
    split: SourceSplit, rows: Int64, encoder: Callable[[Content], Encoded], threads: int
) -> Iterator[_Read]:
    """Yield every row read and encoded, in order, with a bounded number held at a time."""

    def work(chunk: Int64) -> list[_Read]:
        return [_read(split, int(row), encoder) for row in chunk]

    chunks = iter(np.split(rows, range(_CHUNK, len(rows), _CHUNK)))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="fastssd-convert")
    try:
        pending: deque[Future[list[_Read]]] = deque(
            pool.submit(work, chunk) for chunk in islice(chunks, 2 * threads)
        )
        while pending:
            yield from pending.popleft().result()
            pending.extend(pool.submit(work, chunk) for chunk in islice(chunks, 1))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read(split: SourceSplit, row: int, encoder: Callable[[Content], Encoded]) -> _Read:
    try:
        content = split.read(row)
        encoded = encoder(content)
    except (OSError, ValueError) as error:
        return _Read(row, reason=str(error) or type(error).__name__)
    # The name and label are part of what was read: the same files in other folders are other data.
    head = json.dumps([split.names[row], int(split.labels[row])]).encode()
    body = content if isinstance(content, bytes) else content.tobytes()
    return _Read(row, encoded, hashlib.sha256(head + b"\0" + body).digest())


def _check_missing(source: Source, subsets: Mapping[str, Subset], on_error: str) -> None:
    """Find missing files before the first is read: a conversion takes hours.

    Raises:
        DataError: If some are missing and are not to be skipped, or all of a split are.
    """
    for split, subset in subsets.items():
        missing = source.splits[subset.source_split].missing(subset.rows)
        if missing and (on_error == FAIL or len(missing) == len(subset.rows)):
            listed = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
            raise DataError(
                f"{source.origin}: {len(missing):,} of {len(subset.rows):,} files of the {split} "
                f"split are missing: {listed} (No such file or directory); "
                + (
                    "fetch them, or leave them out with --on-error skip"
                    if len(missing) < len(subset.rows)
                    else "are they in another folder? Say where their paths start with --root"
                )
            )


def _check_skipped(
    source: Source, splits: dict[str, dict[str, Any]], rejects: Sequence[Reject]
) -> None:
    try:
        check_no_class_empty(source.classes, np.array(splits[TRAIN]["per_class"]))
    except ConfigError as error:
        raise DataError(
            f"{source.origin}: after {len(rejects)} damaged images were skipped (the first: "
            f"{rejects[0].name}: {rejects[0].reason}), {error}"
        ) from error


def _check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{option} {value}: choose one of {', '.join(choices)}")


def _write_lines(path: Path, values: Sequence[object]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(value) + "\n" for value in values)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:  # the libraries of other sources and formats
            continue
    return versions
