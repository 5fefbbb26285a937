"""Joining the shards of a conversion to the dataset directory that one conversion would write."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from fastssd.core.places import check_out
from fastssd.core.reading import read_json_lines
from fastssd.data.dataset import META_FILE, Split
from fastssd.data.directory import Say, check_target, new_directory, silent
from fastssd.data.encode import Encoded
from fastssd.data.meta_file import Progress, check_skipped, write_meta
from fastssd.data.orientation import UPRIGHT
from fastssd.data.shards import Manifest, check_complete, find_shards, read_manifest
from fastssd.data.split_files import DIGEST_BYTES, SplitFiles
from fastssd.data.storage.files import load_array
from fastssd.errors import DataError
from fastssd.native import mapped

_Extra = tuple[int, str, bytes]
_AT_ONCE = 256  # images copied between two calls of `progress`


def merge(
    out: str | Path,
    shards: Sequence[Path] = (),
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    say: Say = silent,
) -> dict[str, Any]:
    """Write the dataset directory of all shards, whole or not at all; they stay as they are.

    It is that of the conversion without ``--shard``, byte by byte, if all shards were converted
    with the same library versions and from the same place. One image is held at a time.

    Args:
        out: The directory to make.
        shards: The shards in any order; by default those beside `out`.
        overwrite: Whether to replace an existing dataset directory.
        progress: Called as images are written.
        say: Told what the user should know.

    Returns:
        The content of `meta.json`.

    Raises:
        ConfigError: If `out` exists, or there are no shards.
        DataError: If a shard is missing, damaged or of another conversion, or a class has no
            training image.
    """
    out = Path(out)
    check_out(out)
    check_target(out, overwrite=overwrite, marker=META_FILE)
    manifests = check_complete([read_manifest(path) for path in shards or find_shards(out)])
    first = manifests[0]
    meta = {key: value for key, value in first.meta.items() if key != "shard"}
    for other in manifests[1:]:
        for what in ("versions", "source"):
            _remark(what, first, other, say)
    rejected = [
        reject
        for split in first.planned
        for manifest in manifests
        for reject in manifest.meta["rejected"]
        if reject["split"] == split
    ]
    counts = {
        split: np.sum([one.meta["splits"][split]["per_class"] for one in manifests], axis=0)
        for split in first.planned
    }
    check_skipped(meta["source"]["origin"], meta["classes"], counts, rejected)
    digest = hashlib.sha256()
    splits = {}
    with new_directory(out, overwrite=overwrite, marker=META_FILE, say=say) as folder:
        for split in first.planned:
            splits[split] = _merge_split(folder, split, manifests, progress, digest.update)
        source = {**meta["source"], "sha256": digest.hexdigest()}
        meta = {**meta, "splits": splits, "source": source, "rejected": rejected}
        return write_meta(folder, META_FILE, meta)


def _merge_split(
    folder: Path,
    split: str,
    manifests: Sequence[Manifest],
    progress: Progress | None,
    digest: Callable[[bytes], None],
) -> dict[str, Any]:
    first = manifests[0].meta
    total = sum(manifest.meta["splits"][split]["images"] for manifest in manifests)
    capacity = manifests[0].planned[split]
    with closing(SplitFiles(folder, split, format=first["format"], capacity=capacity)) as files:
        done = 0
        for manifest in manifests:
            if not manifest.meta["splits"][split]["images"]:
                continue  # fewer images than shards: its files hold nothing
            opened = manifest.dataset.split(split)
            extras = _read_extras(manifest.path, split, len(opened))
            for sample, extra in enumerate(extras):
                _copy(files, manifest.path, opened, sample, extra)
                done += 1
                if progress is not None and (done == total or done % _AT_ONCE == 0):
                    progress(split, done, total)
        mapped.check()
        entry = files.finish(len(first["classes"]), keep_digests=False)
        digest(files.digests)
    return {**entry, "source_split": first["splits"][split]["source_split"]}


def _copy(files: SplitFiles, path: Path, split: Split, sample: int, extra: _Extra) -> None:
    height, width = (int(side) for side in split.storage.sizes[sample])
    turned = UPRIGHT if split.orientations is None else int(split.orientations[sample])
    row, name, digest = extra
    try:
        files.append(
            Encoded(split.storage.read(sample), height, width, turned),
            label=int(split.labels[sample]),
            row=row,
            name=name,
            digest=digest,
        )
    except ValueError as error:
        raise DataError(
            f"{path}: sample {sample} of {split.name} cannot be stored: {error}; convert this "
            "shard again"
        ) from error


def _read_extras(path: Path, split: str, num_images: int) -> Iterator[_Extra]:
    """Return row, name and digest of every image of a shard's split."""
    rows = load_array(path / f"{split}.source_rows.npy", dtype=np.int64, ndim=1)
    digests = load_array(path / f"{split}.digests.npy", dtype=np.uint8, ndim=2)
    names = read_json_lines(path / f"{split}.names.jsonl", str, remedy="convert this shard again")
    if digests.shape != (num_images, DIGEST_BYTES) or not len(rows) == len(names) == num_images:
        raise DataError(
            f"{path}: {split}.source_rows.npy, {split}.digests.npy and {split}.names.jsonl are not "
            f"all of the {num_images} images of this shard; convert it again"
        )
    return zip(rows.tolist(), names, map(bytes, digests), strict=True)


def _remark(what: str, first: Manifest, other: Manifest, say: Say) -> None:
    """Tell what may differ between shards and does, and which of them `meta.json` keeps."""
    ours, theirs = first.meta[what], other.meta[what]
    for key in ours | theirs:
        if key != "sha256" and ours.get(key) != theirs.get(key):
            say(
                f"{other.path.name} has {theirs.get(key)} for {what} {key} where "
                f"{first.path.name} has {ours.get(key)}, which is kept"
            )
