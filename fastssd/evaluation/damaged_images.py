"""The damaged training images that a run's processes replaced, each in a list of its own."""

from pathlib import Path
from typing import Any

from fastssd.core.reading import read_json_lines, reading, value_at

_NAME = "damaged-images-{}.jsonl"
_REMEDY = "remove the line"
_KINDS: dict[str, type] = {
    "split": str,
    "sample": int,
    "file": str,
    "reason": str,
    "replaced_by": int,
}


def damage_file(run: Path, rank: int) -> Path:
    """Return the list of one process: a line of JSON for each image, with the keys of a report."""
    return run / _NAME.format(rank)


def read_damaged_images(run: Path) -> list[dict[str, Any]]:
    """Return the damaged images that all processes of a run met, each once, in order.

    Returns:
        For each ``split``, ``sample``, ``file`` (the source file's name), ``reason`` and
        ``replaced_by`` (the sample that stood in for it when it was first met).

    Raises:
        DataError: If a whole line is damaged.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for path in sorted(run.glob(_NAME.format("*"))):
        entries: list[dict[str, Any]] = read_json_lines(path, dict, remedy=_REMEDY)
        for number, entry in enumerate(entries, start=1):
            with reading(f"{path}, line {number}", _REMEDY):
                for key, kind in _KINDS.items():
                    value_at(entry, key, kind)
            found.setdefault((entry["split"], entry["sample"]), entry)
    return [found[key] for key in sorted(found)]
