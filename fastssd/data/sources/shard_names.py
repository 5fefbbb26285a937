"""Files that are parts of one split: ``train-00000-of-00002``, ``a-0007``; found and counted."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fastssd.data.sources.image_files import names_in
from fastssd.data.sources.source import TRAIN
from fastssd.data.sources.split_names import choose_splits, unclear, usual_split
from fastssd.errors import DataError

_SEPARATOR = "[-_.]"
# The Hub once put a hash behind the number of files.
_PATTERN = re.compile(
    f"(?:(?P<name>.*?){_SEPARATOR})?(?P<index>\\d+)"
    f"(?:{_SEPARATOR}of{_SEPARATOR}(?P<count>\\d+)(?:-[0-9a-f]{{16}})?)?",
    re.ASCII,
)
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class ShardName:
    """What the name of a shard says.

    Attributes:
        name: What all shards of one table are called.
        index: Its number, if it has one.
        count: The number of shards that its name speaks of, if it does.
    """

    name: str
    index: int | None = None
    count: int | None = None


def shard_name(stem: str) -> ShardName:
    """Read a file's name without its extension."""
    match = _PATTERN.fullmatch(stem)
    if not match:
        return ShardName(stem)
    count = match["count"]
    return ShardName(match["name"] or "", int(match["index"]), int(count) if count else None)


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundShards:
    """The shards of a folder.

    Attributes:
        files: By split, in order.
        taken_from: By split, what they are called, for the user.
        left: The shards that are of no split, by what they are called.
    """

    files: dict[str, list[Path]]
    taken_from: dict[str, str]
    left: dict[str, list[Path]]


def find_shards(
    folder: Path, suffix: str, wanted: Mapping[str, str] | None, *, exact: bool
) -> FoundShards:
    """Find the shards of each split: in folders called like the splits, or by their own names.

    Args:
        folder: Where they are.
        suffix: Of the files.
        wanted: What the shards or folders of each split are called, if the user said.
        exact: See `choose_splits`.

    Raises:
        ConfigError: If there are two readings, or what is wanted is not there.
    """
    names = names_in(folder)
    flat: dict[str, list[Path]] = {}
    for name in names:
        if name.endswith(suffix) and (folder / name).is_file():
            flat.setdefault(shard_name((folder / name).stem).name, []).append(folder / name)
    inner: dict[str, list[Path]] = {}
    for name in names:
        if (usual_split(name) or name in (wanted or {}).values()) and (folder / name).is_dir():
            paths = [folder / name / file for file in names_in(folder / name)]
            files = [path for path in paths if path.name.endswith(suffix) and path.is_file()]
            inner.update({name: files} if files else {})
    if flat and inner and wanted is None:
        raise unclear(
            str(folder), f"it holds *{suffix} files beside {', '.join(inner)}", min(inner)
        )
    groups = {**flat, **inner}
    chosen, left = choose_splits(
        list(groups), wanted, where=str(folder), exact=exact or bool(inner and not flat)
    )
    if TRAIN not in chosen:
        others = ", ".join(map(repr, groups)) or "none"
        raise unclear(
            str(folder), f"none of its *{suffix} files ({others}) is the {TRAIN} split", "NAME"
        )
    return FoundShards(
        files={s: [file for name in chosen[s] for file in groups[name]] for s in chosen},
        taken_from={
            split: ", ".join(
                f"{name}/*{suffix}" if name in inner else f"{name}*{suffix}"
                for name in chosen[split]
            )
            for split in chosen
        },
        left={name: groups[name] for name in left},
    )


def check_complete(files: Sequence[Path]) -> list[str]:
    """Check that all shards are there which the names of some of them speak of.

    Args:
        files: The shards of one split.

    Returns:
        A note for every table whose numbers have gaps, where names do not say how many there are.

    Raises:
        DataError: If shards are missing, or there twice; names them.
    """
    tables: dict[str, list[tuple[ShardName, Path]]] = {}
    for file in files:
        read = shard_name(file.stem)
        if read.index is not None:
            tables.setdefault(read.name, []).append((read, file))
    notes = []
    for shards in tables.values():
        first, file = shards[0]
        numbers: dict[int, Path] = {}
        for read, path in shards:
            if read.count != first.count:
                raise DataError(
                    f"{path}: is one of {read.count or 'any number of'} files, but {file} one of "
                    f"{first.count or 'any number of'}: keep those of one table"
                )
            other = numbers.setdefault(int(read.index or 0), path)
            if other != path:
                raise DataError(f"{path} and {other} are both number {read.index}: keep one")
        # Hugging Face counts from 0, others from 1.
        start = 0 if 0 in numbers or first.count is None else 1
        start = min(numbers) if first.count is None else start
        end = max(numbers) + 1 if first.count is None else start + first.count
        gaps = (i for i in range(start, end) if i not in numbers)
        absent = list(islice(gaps, _SHOWN + 1))  # numbers may be as large as they like
        listed = ", ".join(map(str, absent[:_SHOWN])) + (", ..." if len(absent) > _SHOWN else "")
        if absent and first.count is not None:
            raise DataError(
                f"{file}: is one of {first.count} files, of which {len(numbers)} are there; "
                f"missing is number {listed}: fetch the others"
            )
        if absent:
            notes.append(
                f"the shards from {file.name} on have gaps in their numbers: there is no {listed}"
            )
    return notes
