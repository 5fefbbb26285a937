"""Damaged images in training: which other image stands in for one, and the list of them.

A damaged image is replaced by the next sample of its class, cyclically in the dataset's order, that
decodes: cut and augmented as that sample's own view of the same number. The draw remains what it
was, its label and its row in a table as well. What stands in is a function of the draw and the
dataset alone, so a resumed run, or one of more processes, sees the same pixels.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from fastssd.core.files import append, writing
from fastssd.core.reading import read_bytes, read_json_lines, reading, value_at
from fastssd.data.draws import Int64

_REMEDY = "remove the line"


def successors(labels: Int64, sample: int) -> Iterator[int]:
    """Yield the other samples of a sample's class, those after it first."""
    members = np.flatnonzero(labels == labels[sample])
    after = int(np.searchsorted(members, sample, side="right"))
    for member in np.concatenate([members[after:], members[:after]]):
        if member != sample:
            yield int(member)


class Damage:
    """The damaged images that this process met, each noted once. Safe to use from threads.

    Args:
        path: A file of JSON lines, one for each image; what is there, of an earlier process of the
            run, is not noted again.
        warn: Told of each image that is new.

    Raises:
        DataError: If the file holds something else.
    """

    def __init__(self, path: Path, *, warn: Callable[[str], None]) -> None:
        self._path = path
        self._warn = warn
        self._lock = threading.Lock()
        self._known = _noted(path)

    def __len__(self) -> int:
        return len(self._known)

    def note(self, *, split: str, sample: int, file: str, reason: str, replaced_by: int) -> None:
        """Note a damaged image.

        Args:
            split: Its split's name.
            sample: Its number.
            file: The source file that it came from.
            reason: What the decoder found.
            replaced_by: The sample that stood in for it, the first time.

        Raises:
            DataError: If the file cannot be written.
        """
        entry = {
            "split": split,
            "sample": sample,
            "file": file,
            "reason": reason,
            "replaced_by": replaced_by,
        }
        with self._lock:
            if (split, sample) in self._known:
                return
            append(self._path, json.dumps(entry) + "\n")
            self._known.add((split, sample))
        self._warn(
            f"{file} (sample {sample} of {split}) is damaged: {reason}; sample {replaced_by} "
            "stands in for it (data.on_error=replace)"
        )


def _noted(path: Path) -> set[tuple[str, int]]:
    """Return split and sample of a file's whole lines; one that a kill cut short is taken off."""
    if not path.exists():
        return set()
    with reading(path):
        content = read_bytes(path)
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with writing(path):
            os.truncate(path, len(whole))
    known = set()
    for number, entry in enumerate(read_json_lines(path, dict, remedy=_REMEDY), start=1):
        with reading(f"{path}, line {number}", _REMEDY):
            known.add((value_at(entry, "split", str), value_at(entry, "sample", int)))
    return known
