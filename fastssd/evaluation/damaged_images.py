"""The damaged training images that a run's processes replaced, each in a list of its own."""

import json
from pathlib import Path
from typing import Any

from fastssd.errors import DataError

_NAME = "damaged-images-{}.jsonl"
_KINDS = {"split": str, "sample": int, "file": str, "reason": str, "replaced_by": int}


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
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines[:-1], start=1):  # the last one a kill may have cut
            try:
                entry = json.loads(line)
                if not all(isinstance(entry[key], kind) for key, kind in _KINDS.items()):
                    raise ValueError("a value of another type")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise DataError(
                    f"{path}, line {number} is not a damaged image ({error!r}): remove the line"
                ) from error
            found.setdefault((entry["split"], entry["sample"]), entry)
    return [found[key] for key in sorted(found)]
