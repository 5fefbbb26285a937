"""WebDataset shards: `.tar` files whose members of one name are one sample.

Nothing is unpacked: members are read where they lie, and their names are text for messages, never
paths.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastssd.core.reading import MAX_BYTES, open_regular, parse_json, reading
from fastssd.data.sources.image_files import names_in
from fastssd.data.sources.left_out import MEMBERS, UNUSED, LeftOut, unwanted
from fastssd.data.sources.listing import Listing, classify, read_class_names
from fastssd.data.sources.rows import label_text
from fastssd.data.sources.shard_names import check_complete, find_shards
from fastssd.data.sources.source import (
    TEST,
    TRAIN,
    VAL,
    OpenedSource,
    SourceOptions,
)
from fastssd.data.sources.split_names import usual_split
from fastssd.data.sources.tar_members import Member, read_members
from fastssd.errors import ConfigError, DataError

_IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "gif", "tif", "tiff")
_LABEL_KEYS = ("label", "cls", "class", "target", "class_id", "category_id")
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAX_LABEL_BYTES = 1 << 20
_REMEDY = "expected is a whole, uncompressed .tar file"


@dataclass(frozen=True, slots=True)
class ShardSplit:
    """The samples of one split's shards.

    Attributes:
        labels: (N,) int64.
        names: (N) ``SHARD/MEMBER``.
        shards: The files.
        places: (N, 3) int64 shard, first byte and number of bytes of each image.
    """

    labels: NDArray[np.int64]
    names: Sequence[str]
    shards: Sequence[Path]
    places: NDArray[np.int64]

    def read(self, row: int) -> bytes:
        shard, start, num_bytes = map(int, self.places[row])
        if num_bytes > MAX_BYTES:
            raise ValueError(f"it has {num_bytes:,} bytes, more than the {MAX_BYTES:,} of an image")
        with open_regular(self.shards[shard]) as file:
            file.seek(start)
            content = file.read(num_bytes)
        if len(content) != num_bytes:
            raise ValueError("its shard was cut short since it was opened")
        return content

    def missing(self, rows: NDArray[np.int64]) -> Sequence[str]:
        return ()


@dataclass(slots=True)
class _Index:
    """What is known of one split while its shards are read."""

    listing: Listing
    places: list[tuple[int, int, int]] = field(default_factory=list)


def is_tar_shards(path: Path) -> bool:
    """Return whether a path is a shard, a pattern of shards, or a folder that holds some."""
    if path.is_dir():
        folders = [path / name for name in names_in(path) if (path / name).is_dir()]
        if any(usual_split(folder.name) is None for folder in folders):
            return False  # a tree of images, with an archive left in it
        return any(any(folder.glob("*.tar")) for folder in (path, *folders))
    return path.name.endswith(".tar")


def open_tar_shards(origin: str, options: SourceOptions) -> OpenedSource:
    """Read the headers of all shards; no image is opened.

    Raises:
        ConfigError: If there are no such shards, or it cannot be told which split some are.
        DataError: If a shard is missing or damaged, or a sample has no image or label; names both.
    """
    left_out = LeftOut()
    if Path(origin).is_dir():
        found = find_shards(Path(origin), ".tar", options.split_names, exact=False)
        shards, taken_from = found.files, found.taken_from
        for name, files in found.left.items():
            left_out.add(UNUSED, name, len(files))
    elif options.split_names is not None:
        raise ConfigError(f"--split-names: is for a folder of shards; {origin} names them itself")
    else:
        shards, taken_from = {TRAIN: _expand(origin, "SOURCE")}, {TRAIN: origin}
    for split, text in ((VAL, options.val), (TEST, options.test)):
        if text is not None:
            if split in shards:
                left_out.add(UNUSED, taken_from[split], len(shards[split]))
            shards[split], taken_from[split] = _expand(text, f"--{split}"), text
    notes = [note for files in shards.values() for note in check_complete(files)]
    indices = {split: _index(files, options, left_out) for split, files in shards.items()}
    named = read_class_names(options.classes) if options.classes else None
    listings = {split: index.listing for split, index in indices.items()}
    classes, labels = classify(listings, named)
    path = Path(_BRACES.sub("", origin))
    return OpenedSource(
        name=path.resolve().name.removesuffix(".tar").rstrip("-_*"),
        kind="webdataset",
        origin=origin,
        classes=classes,
        splits={
            split: ShardSplit(
                labels[split],
                index.listing.names,
                shards[split],
                np.array(index.places, dtype=np.int64).reshape(-1, 3),
            )
            for split, index in indices.items()
        },
        notes=[*notes, *left_out.lines()],
        taken_from=taken_from,
    )


def _expand(pattern: str, option: str) -> list[Path]:
    """Return the shards that a pattern names: `{0000..0012}` in braces, or `*`."""
    braces = _BRACES.search(pattern)
    if braces:
        first, last = braces.groups()
        files = [
            Path(pattern[: braces.start()] + str(i).zfill(len(first)) + pattern[braces.end() :])
            for i in range(int(first), int(last) + 1)
        ]
    elif "*" in pattern:
        files = sorted(Path(pattern).parent.glob(Path(pattern).name))
    elif Path(pattern).is_dir():
        files = sorted(Path(pattern).glob("*.tar"))
    else:
        files = [Path(pattern)]
    absent = [file for file in files if not file.is_file()]
    if absent or not files:
        listed = ", ".join(map(str, absent[:5])) or pattern
        raise ConfigError(
            f"{option} {pattern}: {len(absent) or 'all'} shards are missing: {listed}"
        )
    return files


def _index(shards: Sequence[Path], options: SourceOptions, left_out: LeftOut) -> _Index:
    index = _Index(Listing(str(shards[0].parent)))
    for number, shard in enumerate(shards):
        sample: dict[str, Member] = {}
        before = None
        with reading(shard, _REMEDY), open_regular(shard) as file:
            for member in read_members(file, limit=shard.stat().st_size):
                if not member.is_file:
                    if not member.is_folder:
                        left_out.add(MEMBERS, f"{shard.name}/{member.name}")
                    continue
                if reason := _unwanted(member.name):
                    left_out.add(reason, f"{shard.name}/{member.name}")
                    continue
                key, extension = _split_name(member.name)
                if key != before:
                    _add(index, number, shard, sample, file, options)
                    sample, before = {}, key
                if extension in sample:
                    raise DataError(f"{shard}: {member.name} is there twice")
                sample[extension] = member
            _add(index, number, shard, sample, file, options)
    return index


def _unwanted(name: str) -> str | None:
    """Return why a member is no part of a sample, whatever it holds, as a Mac's ``._0.jpg``."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return next((reason for part in parts if (reason := unwanted(part))), None)


def _split_name(name: str) -> tuple[str, str]:
    """Return what the members of a sample share, and the rest, as WebDataset splits names."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension.lower()


def _add(
    index: _Index,
    number: int,
    shard: Path,
    sample: Mapping[str, Member],
    file: BinaryIO,
    options: SourceOptions,
) -> None:
    """Add a sample, if it has members: its image's place and its label."""
    if not sample:
        return
    any_member = next(iter(sample.values())).name
    wanted = options.image_column
    images = [e for e in sample if (e == wanted if wanted else e.split(".")[-1] in _IMAGES)]
    if len(images) != 1:
        raise DataError(
            f"{shard}: the sample of {any_member} has {len(images)} images among "
            f"{', '.join(sample)}: exactly one is expected; name its extension with --image-column"
        )
    member = sample[images[0]]
    label = _label(sample, file, shard, options)
    index.places.append((number, member.start, member.size))
    index.listing.add(f"{shard.name}/{member.name}", label, f"sample of {shard.name}")


def _label(
    sample: Mapping[str, Member],
    file: BinaryIO,
    shard: Path,
    options: SourceOptions,
) -> str:
    kind = "cls" if "cls" in sample and not options.label_column else "json"
    any_member = next(iter(sample.values())).name
    if kind not in sample:
        raise DataError(f"{shard}: the sample of {any_member} has no .cls and no .json for a label")
    member = sample[kind]
    try:
        if member.size > _MAX_LABEL_BYTES:
            raise ValueError(f"it has {member.size:,} bytes")
        file.seek(member.start)
        content = file.read(member.size)
        if kind == "json":
            return label_text(_of_json(parse_json(content, object), options.label_column))
        return label_text(content)
    except ValueError as error:
        raise DataError(f"{shard}: {member.name}: has no label: {error}") from error


def _of_json(value: object, key: str | None) -> object:
    """Return the label that a value of JSON is, or holds under a usual or the named key."""
    if isinstance(value, dict):
        found = [name for name in ((key,) if key else _LABEL_KEYS) if name in value]
        if not found:
            raise ValueError(f"it has the keys {', '.join(map(str, value))}: use --label-column")
        return value[found[0]]
    return value
