"""One row of several seeds' rows: means, and how far the seeds lie apart."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

_SAME = ("name", "method", "stage", "head", "checkpoint", "split")
"""What rows of one network have in common, whatever the seed."""
_KEPT = ("num_images", "images_per_class", "parameters")


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each network, in the order of their first rows.

    A number becomes the mean over the seeds that have it, and `NAME_std` their sample standard
    deviation; None where a seed has none. One seed's rows are returned as they are.

    Args:
        rows: Of all seeds, with `seed` and `folder`; numbers in percent, `per_class` lists.

    Returns:
        Rows with `seeds` and `folders` in place of `seed` and `folder`, if there are several.
    """
    if len({row["seed"] for row in rows}) < 2:
        return [dict(row) for row in rows]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in _SAME), []).append(row)
    return [_together(group) for group in groups.values()]


def _together(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = rows[0]
    result: dict[str, Any] = {}
    for key, value in first.items():
        values = [row[key] for row in rows]
        if key in ("seed", "folder"):
            result[f"{key}s"] = values
        elif key in _SAME or key in _KEPT:
            result[key] = value
        elif key == "per_class":
            columns = zip(*values, strict=True)
            result[key] = [_mean(column) for column in columns]
        else:
            result[key] = _mean(values)
            result[f"{key}_std"] = _spread(values)
    return result


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return statistics.fmean(numbers) if len(numbers) == len(values) else None


def _spread(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values) or len(numbers) < 2:
        return None
    return statistics.stdev(numbers)
