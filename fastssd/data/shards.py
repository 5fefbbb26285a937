"""Shards of a conversion: which rows are whose, and what each says of itself for the merge.

A shard holds a run of the rows of every split, after all images were chosen. It lies beside the
dataset that it will be part of, as `OUT.shard-I-of-N`, with the files of a dataset directory, but
`shard.json` in place of `meta.json`, so that nothing takes it for a whole dataset, and the digest
of every image.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastssd.core.reading import read_json, reading
from fastssd.data.dataset import Dataset
from fastssd.data.sources.source import Source
from fastssd.data.subsets import Subset
from fastssd.errors import ConfigError, DataError

SHARD_FILE = "shard.json"
_REMEDY = "convert this shard again"


@dataclass(frozen=True, slots=True)
class Shard:
    """One of the parts that machines or runs convert apart.

    Attributes:
        index: 1 to `count`.
        count: How many there are.
    """

    index: int
    count: int

    def span(self, num_rows: int) -> tuple[int, int]:
        """Return where this shard's rows start and end among those of a split."""
        return num_rows * (self.index - 1) // self.count, num_rows * self.index // self.count

    def path(self, out: Path) -> Path:
        """Return the directory of this shard of the dataset `out`."""
        return out.with_name(f"{out.name}.shard-{self.index}-of-{self.count}")


def parse_shard(text: str) -> Shard:
    """Read ``i/n``.

    Raises:
        ValueError: If it is anything else.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"{text!r} is not I/N, a shard from 1 to N of N")
    return Shard(int(found[1]), int(found[2]))


def find_shards(out: Path) -> list[Path]:
    """Return the shards that lie beside a dataset to be.

    Raises:
        ConfigError: If there are none.
    """
    pattern = re.compile(re.escape(out.name) + r"\.shard-(\d+)-of-(\d+)", re.ASCII)
    found = []
    if out.parent.is_dir():
        for path in out.parent.iterdir():
            match = pattern.fullmatch(path.name)
            if match:
                found.append((int(match[2]), int(match[1]), path))
    if not found:
        raise ConfigError(
            f"--merge: there are no shards beside {out}: make {out.name}.shard-1-of-N and so on "
            "with --shard 1/N, or name where they are after --merge"
        )
    return [path for _, _, path in sorted(found)]


def plan_digest(source: Source, subsets: Mapping[str, Subset]) -> str:
    """Return the SHA-256 of all chosen rows, their names, labels and classes, of all shards."""
    digest = hashlib.sha256(json.dumps(list(source.classes)).encode())
    for split, subset in subsets.items():
        origin = source.splits[subset.source_split]
        names = [origin.names[row] for row in subset.rows]
        # Escaped by JSON, since names of files may be no valid text.
        digest.update(json.dumps([split, subset.source_split, names]).encode())
        digest.update(subset.rows.astype("<i8").tobytes())
        digest.update(origin.labels[subset.rows].astype("<i8").tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a finished shard says of itself.

    Attributes:
        path: Its directory.
        meta: The content of `shard.json`: that of `meta.json` and ``shard``.
        shard: Which one it is.
        plan: See `plan_digest`.
        planned: By split, the rows chosen for all shards together.
    """

    path: Path
    meta: dict[str, Any]
    shard: Shard
    plan: str
    planned: dict[str, int]

    @classmethod
    def of(cls, path: Path, meta: dict[str, Any]) -> "Manifest":
        """Return it from the content of `shard.json`."""
        entry = meta["shard"]
        shard = parse_shard(f"{entry['index']}/{entry['count']}")
        planned = {split: int(number) for split, number in entry["planned"].items()}
        return cls(path, meta, shard, str(entry["plan"]), planned)

    @property
    def dataset(self) -> Dataset:
        """The files of this shard."""
        return Dataset(self.path, self.meta)


def shard_entry(shard: Shard, source: Source, subsets: Mapping[str, Subset]) -> dict[str, Any]:
    """Return what `shard.json` has more than `meta.json`."""
    return {
        "index": shard.index,
        "count": shard.count,
        "plan": plan_digest(source, subsets),
        "planned": {split: len(subset.rows) for split, subset in subsets.items()},
    }


def read_manifest(path: Path) -> Manifest:
    """Read a shard's `shard.json`.

    Raises:
        DataError: If it is missing, damaged, or its images are not as many as its rows.
    """
    file = path / SHARD_FILE
    if not file.is_file():
        raise DataError(
            f"{path}: not a finished shard: it has no {SHARD_FILE}; make it with --shard"
        )
    keys = {"shard": dict, "rejected": list, "splits": dict, "conversion": dict, "source": dict}
    meta = read_json(file, keys, remedy=_REMEDY)
    with reading(file, _REMEDY):
        manifest = Manifest.of(path, meta)
        for split, number in manifest.planned.items():
            start, end = manifest.shard.span(number)
            left_out = sum(reject["split"] == split for reject in meta["rejected"])
            if meta["splits"][split]["images"] + left_out != end - start:
                raise ValueError(f"its {split} split is not of {end - start} images")
        job_of(manifest)
    return manifest


def job_of(manifest: Manifest) -> dict[str, Any]:
    """Return what all shards of a dataset have in common, the telling things first."""
    meta = manifest.meta
    conversion = {f"conversion setting {key}": v for key, v in meta["conversion"].items()}
    return {
        "number of shards": manifest.shard.count,
        "format": meta["format"],
        "name": meta["name"],
        "kind of source": meta["source"]["kind"],
        **conversion,
        "source (its classes, or the names, labels or number of its images)": manifest.plan,
    }


def difference(first: Manifest, second: Manifest) -> str:
    """Return in what two shards are not of one conversion; empty if they are."""
    ours, theirs = job_of(first), job_of(second)
    for what in ours | theirs:
        a, b = ours.get(what), theirs.get(what)
        if a != b:
            shown = f": {a!r} and {b!r}" if len(f"{a}{b}") < 60 else ""
            return f"another {what}{shown}"
    return ""


def check_complete(manifests: list[Manifest]) -> list[Manifest]:
    """Check that shards are all of one conversion, each once; return them in order.

    Raises:
        DataError: Names the shard that is missing, repeated or of another conversion.
    """
    first = manifests[0]
    for other in manifests[1:]:
        reason = difference(first, other)
        if reason:
            raise DataError(
                f"--merge: {other.path} is not of the same conversion as {first.path}: {reason}; "
                "name the shards that belong together, or convert it again"
            )
    by_index: dict[int, Manifest] = {}
    for one in manifests:
        other = by_index.setdefault(one.shard.index, one)
        if other is not one:
            raise DataError(
                f"--merge: {other.path} and {one.path} are both shard {one.shard.index} of "
                f"{one.shard.count}: name one of them"
            )
    missing = [i for i in range(1, first.shard.count + 1) if i not in by_index]
    if missing:
        listed = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        raise DataError(
            f"--merge: shard {listed} of {first.shard.count} is missing beside {first.path}: "
            f"convert it with --shard {missing[0]}/{first.shard.count}, or copy it there"
        )
    return [by_index[i] for i in sorted(by_index)]
