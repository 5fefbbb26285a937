"""Writing a dataset directory, or a shard of one, from a source."""

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastssd.core.places import check_out
from fastssd.data.dataset import LAYOUT_VERSION, META_FILE
from fastssd.data.decode.shrink import JPEG_QUALITY, Limit
from fastssd.data.directory import Say, check_target, new_directory, silent
from fastssd.data.encode import JPEG_CHOICES, KEEP, PIXELS, RESTART, Encoding, encode_all
from fastssd.data.jpeg_rewrite import missing
from fastssd.data.longtail import EXPONENTIAL, KINDS
from fastssd.data.meta_file import Progress, check_skipped, versions, write_meta
from fastssd.data.pillow_files import pillow_limit
from fastssd.data.read_ahead import Read, read_all
from fastssd.data.shards import (
    SHARD_FILE,
    Manifest,
    Shard,
    difference,
    read_manifest,
    shard_entry,
)
from fastssd.data.sources.source import Source, SourceSplit
from fastssd.data.split_files import SplitFiles
from fastssd.data.storage.formats import STORAGES
from fastssd.data.storage.image import MAX_PIXELS, USUAL_PIXELS
from fastssd.data.subsets import Subset, plan_subsets
from fastssd.errors import ConfigError, DataError
from fastssd.native.library import INSTALL

FAIL, SKIP = "fail", "skip"
APPLY, IGNORE = "apply", "ignore"

_SHOWN = 10  # missing files in a message


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
    jpeg: str | None = None,
    short_side: int | None = None,
    max_side: int | None = None,
    max_pixels: int = USUAL_PIXELS,
    quality: int | None = None,
    verify: bool = False,
    on_error: str = FAIL,
    overwrite: bool = False,
    threads: int | None = None,
    shard: Shard | None = None,
    progress: Progress | None = None,
    say: Say = silent,
) -> dict[str, Any]:
    """Write a dataset directory, whole or not at all.

    Held-out images are taken first, then the long tail of the rest. Every image is checked on the
    way. The same arguments write the same bytes, whatever the number of threads.

    Memory: what `read_all` holds, and about 200 bytes an image of the split.

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
        jpeg: What becomes of JPEG files, one of `JPEG_CHOICES`. By default ``restart``, or ``keep``
            where the native kernels are missing; ``raw`` in a format of pixels.
        short_side: Shrink images whose shorter side is longer, in pixels; see `shrink`.
        max_side: Shrink images whose longer side is longer, in pixels.
        max_pixels: An image of more pixels counts as damaged; at most `MAX_PIXELS`.
        quality: Of the JPEG files that are encoded again for these limits, 1 to 100.
        verify: Whether every file that was rewritten without loss is decoded and compared;
            otherwise a sample is.
        on_error: ``fail`` at the first damaged image, or ``skip`` it and list it in
            `rejects.jsonl` and `meta.json`.
        overwrite: Whether to replace an existing dataset directory.
        threads: That read and decode; by default one per core that this process may use.
        shard: Write only this part of what all arguments choose, to ``shard.path(out)``, for
            `merge`. One that is there already, of the same arguments, is kept.
        progress: Called as images are written.
        say: Told what the user should know.

    Returns:
        The content of `meta.json`, or of the shard's `shard.json`.

    Raises:
        ConfigError: If an argument is wrong, `out` exists, or another process is writing it.
        DataError: If an image is damaged (``fail``), or a class or split lost all its images
            (``skip``).
        FastssdError: If rewriting changed an image's pixels.
    """
    _check_choice("--format", format, list(STORAGES))
    _check_choice("--imbalance-type", imbalance_type, KINDS)
    _check_choice("--orientation", orientation, (APPLY, IGNORE))
    _check_choice("--on-error", on_error, (FAIL, SKIP))
    if quality is not None and short_side is None and max_side is None:
        raise ConfigError(
            "--quality is of images that are made smaller: add --max-side or --short-side"
        )
    if (short_side is not None or max_side is not None) and quality is None:
        quality = JPEG_QUALITY
    if not 1 <= max_pixels <= MAX_PIXELS:
        raise ConfigError(f"--max-pixels {max_pixels}: choose 1 to {MAX_PIXELS}")
    jpeg = _jpeg_choice(jpeg, format, say)
    if imbalance is None:
        imbalance = source.imbalance
    elif source.imbalance is not None and imbalance != source.imbalance:
        raise ConfigError(
            f"--imbalance {imbalance:g}: {source.origin} asks for {source.imbalance:g} by its name"
        )
    check_out(Path(out), source.origin)
    target = shard.path(Path(out)) if shard else Path(out)
    marker = SHARD_FILE if shard else META_FILE
    if shard is None or not target.exists():
        check_target(target, overwrite=overwrite, marker=marker)
    choice: dict[str, Any] = {
        "imbalance": imbalance,
        "imbalance_type": imbalance_type,
        "max_per_class": max_per_class,
        "seed": seed,
        "val_per_class": val_per_class,
        "test_per_class": test_per_class,
    }
    subsets = plan_subsets(source, **choice)
    meta: dict[str, Any] = {
        "layout": LAYOUT_VERSION,
        "name": name or source.name,
        "format": format,
        "classes": list(source.classes),
        "splits": {},
        "source": {
            "kind": source.kind,
            "origin": source.origin,
            "sha256": "",
            "notes": list(source.notes),
        },
        "conversion": {
            **choice,
            "orientation": orientation,
            "jpeg": jpeg,
            "short_side": short_side,
            "max_side": max_side,
            "quality": quality,
            "verify": verify,
            "on_error": on_error,
            # Left out where it is the usual one: shards of earlier versions are the same ones.
            **({"max_pixels": max_pixels} if max_pixels != USUAL_PIXELS else {}),
        },
        "rejected": [],
        "versions": versions(),
    }
    if shard is not None:
        meta["shard"] = shard_entry(shard, source, subsets)
        if target.exists() and not overwrite:
            return _finished_shard(target, meta, say)
        check_target(target, overwrite=overwrite, marker=marker)
    spans = {
        split: shard.span(len(subset.rows)) if shard else (0, len(subset.rows))
        for split, subset in subsets.items()
    }
    _check_missing(source, subsets, spans, on_error)
    digest = hashlib.sha256()
    rejects: list[Reject] = []
    how = Encoding(
        jpeg=jpeg,
        upright=orientation == APPLY,
        limit=Limit(short_side=short_side, max_side=max_side, quality=quality or JPEG_QUALITY),
        verify=verify,
        max_pixels=max_pixels,
    )
    with (
        new_directory(target, overwrite=overwrite, marker=marker, say=say) as folder,
        warnings.catch_warnings(),
        pillow_limit(max_pixels),
    ):
        # Pillow remarks on odd metadata. Set here and not in the threads, which share the filters.
        warnings.filterwarnings("ignore", module="PIL")
        for split, subset in subsets.items():
            start, end = spans[split]
            rows = subset.rows[start:end]
            reads = read_all(
                source.splits[subset.source_split],
                rows,
                lambda contents, positions: encode_all(contents, how, positions),
                threads=threads or len(os.sched_getaffinity(0)),
            )
            with (
                closing(reads),
                closing(SplitFiles(folder, split, format=format, capacity=len(rows))) as files,
            ):
                origin = source.splits[subset.source_split]
                for done, read in enumerate(reads, 1):
                    reason = _store(files, read, origin)
                    if reason and on_error == FAIL:
                        raise DataError(
                            f"{origin.names[read.row]} (row {read.row} of split "
                            f"{subset.source_split!r} of {source.origin}): {reason}; mend or "
                            "remove it, or leave such images out with --on-error skip"
                        )
                    if reason:
                        rejects.append(Reject(split, origin.names[read.row], reason))
                    if progress is not None:
                        progress(split, done, len(rows))
                entry = files.finish(len(source.classes), keep_digests=shard is not None)
                digest.update(files.digests)
            meta["splits"][split] = {**entry, "source_split": subset.source_split}
        meta["source"]["sha256"] = digest.hexdigest()
        meta["rejected"] = [asdict(reject) for reject in rejects]
        if shard is None:  # a class may have all its images in other shards
            counts = {s: np.array(entry["per_class"]) for s, entry in meta["splits"].items()}
            check_skipped(source.origin, source.classes, counts, meta["rejected"])
        return write_meta(folder, marker, meta)


def _store(files: SplitFiles, read: Read, origin: SourceSplit) -> str:
    """Store an image; return why it cannot be stored, or nothing."""
    if read.encoded is None:
        return read.reason
    try:
        files.append(
            read.encoded,
            label=int(origin.labels[read.row]),
            row=read.row,
            name=origin.names[read.row],
            digest=read.digest,
        )
    except ValueError as error:
        return str(error)
    return ""


def _finished_shard(target: Path, meta: dict[str, Any], say: Say) -> dict[str, Any]:
    """Return the description of a shard that is there already.

    Raises:
        ConfigError: If it is of other arguments.
    """
    there = read_manifest(target)
    reason = difference(there, Manifest.of(target, meta))
    if reason:
        raise ConfigError(
            f"{target} exists, of another conversion: {reason}; replace it with --overwrite, or "
            "choose another OUT"
        )
    say(f"{target} is finished already: nothing to do")
    return there.meta


def _check_missing(
    source: Source,
    subsets: Mapping[str, Subset],
    spans: Mapping[str, tuple[int, int]],
    on_error: str,
) -> None:
    """Find missing files before the first is read: a conversion takes hours.

    Raises:
        DataError: If some are missing and are not to be skipped, or all of a split are.
    """
    for split, subset in subsets.items():
        rows = subset.rows
        if on_error == FAIL:  # other shards' files may be on their machines alone
            rows = rows[slice(*spans[split])]
        missing = source.splits[subset.source_split].missing(rows)
        if missing and (on_error == FAIL or len(missing) == len(rows)):
            listed = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
            raise DataError(
                f"{source.origin}: {len(missing):,} of {len(rows):,} files of the {split} "
                f"split are missing: {listed} (No such file or directory); "
                + (
                    "fetch them, or leave them out with --on-error skip"
                    if len(missing) < len(rows)
                    else "are they in another folder? Say where their paths start with --root"
                )
            )


def _jpeg_choice(jpeg: str | None, format: str, say: Say) -> str:
    """Return what becomes of JPEG files.

    Raises:
        ConfigError: If it is no choice, or not one of this format or installation.
    """
    if jpeg is not None:
        _check_choice("--jpeg", jpeg, JPEG_CHOICES)
    if not STORAGES[format].keeps_jpeg:
        if jpeg not in (None, PIXELS):
            with_jpeg = " or ".join(name for name in STORAGES if STORAGES[name].keeps_jpeg)
            raise ConfigError(
                f"--jpeg {jpeg}: the {format} format holds pixels; choose --format {with_jpeg}, or "
                "leave --jpeg out"
            )
        return PIXELS
    if jpeg == RESTART and missing():
        raise ConfigError(f"--jpeg restart: {missing()}; {INSTALL}, or choose --jpeg keep")
    if jpeg is not None:
        return jpeg
    if not missing():
        return RESTART
    say(f"JPEG files are kept as they are, which are slower to read: {missing()}; {INSTALL}")
    return KEEP


def _check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{option} {value}: choose one of {', '.join(choices)}")
