"""What tells one dataset from another at the same path: its classes, images and labels."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from fastssd.data.checksums import FILES

_NOT_CONTENT = (".names.jsonl", ".source_rows.npy")
"""Files that say where images came from; networks see nothing of them."""


@dataclass(frozen=True, kw_only=True)
class SplitIdentity:
    """One split.

    Attributes:
        images: How many.
        content: SHA-256 of what `meta.json` says of the files of its images and labels.
    """

    images: int
    content: str


@dataclass(frozen=True, kw_only=True)
class DatasetIdentity:
    """A dataset directory as networks see it, wherever it lies and whatever it is called.

    It follows from `meta.json` alone, whose checksums stand for the files: a copy is the same
    dataset, and so is one that was converted again to the same bytes.

    Attributes:
        format: The storage format's name.
        classes: (C) names, in the order of the labels.
        splits: By name.
    """

    format: str
    classes: tuple[str, ...]
    splits: Mapping[str, SplitIdentity]

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Self:
        """Return the identity of the dataset that a checked `meta.json` describes."""
        return cls(
            format=meta["format"],
            classes=tuple(meta["classes"]),
            splits={
                name: SplitIdentity(images=entry["images"], content=_content(meta, name))
                for name, entry in meta["splits"].items()
            },
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: If it is something else.
        """
        return cls(
            format=str(content["format"]),
            classes=tuple(str(name) for name in content["classes"]),
            splits={
                str(name): SplitIdentity(images=int(entry["images"]), content=str(entry["content"]))
                for name, entry in dict(content["splits"]).items()
            },
        )

    def to_json(self) -> dict[str, Any]:
        """Return it for a file of JSON."""
        return {
            "format": self.format,
            "splits": {
                name: {"images": split.images, "content": split.content}
                for name, split in self.splits.items()
            },
            "classes": list(self.classes),
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of it, in hexadecimal."""
        return digest_of(self.to_json())

    def differences(self, other: "DatasetIdentity") -> list[str]:
        """Return what is different in another dataset, a phrase each; empty if nothing is."""
        found = []
        if self.format != other.format:
            found.append(f"the format was {self.format}, now {other.format}")
        if self.classes != other.classes:
            found.append(_class_difference(self.classes, other.classes))
        for name in {**self.splits, **other.splits}:
            was, now = self.splits.get(name), other.splits.get(name)
            if was is None or now is None:
                found.append(f"split {name!r} {'is new' if was is None else 'is gone'}")
            elif was.images != now.images:
                found.append(f"split {name!r} had {was.images:,} images, now {now.images:,}")
            elif was.content != now.content:
                found.append(
                    f"split {name!r} has other images or labels (checksum {was.content[:8]}, "
                    f"now {now.content[:8]})"
                )
        return found


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON content, in hexadecimal, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _content(meta: Mapping[str, Any], split: str) -> str:
    files = meta.get(FILES)
    mine = {
        name: entry
        for name, entry in (files.items() if isinstance(files, Mapping) else ())
        if name.startswith((f"{split}.", f"{split}-")) and not name.endswith(_NOT_CONTENT)
    }
    if not mine:  # of an early version, in which only the source has a checksum
        keys = ("source", "conversion")
        return digest_of({key: meta.get(key) for key in keys} | {"split": meta["splits"][split]})
    return digest_of({"files": mine, "per_class": meta["splits"][split]["per_class"]})


def _class_difference(was: tuple[str, ...], now: tuple[str, ...]) -> str:
    if len(was) != len(now):
        return f"the classes were {len(was):,}, now {len(now):,}"
    label = next(label for label in range(len(was)) if was[label] != now[label])
    return f"class {label} was {was[label]!r}, now {now[label]!r}"
