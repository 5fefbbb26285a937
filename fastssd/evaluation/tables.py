"""The rows of a report as the paper's table shows them: order, labels, columns, cells.

Knows no file and no terminal; the report and the console put the cells where they belong.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
"""A row of ``report.json``."""

PAPER_NAMES = ("CE", "LWS", "SSD I", "SSD II", "SSD III-hard", "SSD III-soft", "SSD IV")
"""The order of the paper's tables."""

_QUALIFIERS = ("head", "split", "checkpoint", "folder")


def in_paper_order(rows: Sequence[Row]) -> list[Row]:
    """Return the rows as the paper orders them, those of other names after, in the order given.

    The test split comes before others, and of one name the last checkpoint before the best.
    """
    names = [*PAPER_NAMES, *(row["name"] for row in rows if row["name"] not in PAPER_NAMES)]
    return sorted(
        rows,
        key=lambda row: (
            row["split"] != "test",
            names.index(row["name"]),
            row["checkpoint"] != "last",
        ),
    )


def row_labels(rows: Sequence[Row]) -> list[str]:
    """Return a label for each row: its name, and in parentheses what tells it from its namesakes.

    With both checkpoints in the report: ``SSD IV (last)`` and ``SSD IV (best)``.
    """
    labels = []
    for row in rows:
        namesakes = [other for other in rows if other["name"] == row["name"]]
        needed = []
        for qualifier in _QUALIFIERS:
            if len({other.get(qualifier) for other in namesakes}) > 1:
                needed.append(str(row.get(qualifier)))
                namesakes = [
                    other for other in namesakes if other.get(qualifier) == row.get(qualifier)
                ]
        labels.append(f"{row['name']} ({', '.join(needed)})" if needed else str(row["name"]))
    return labels


def percent(value: float | None) -> str:
    """Return a percentage with one digit; ``-`` where there is none."""
    if value is None:
        return "-"
    return f"{value:.1f}" if math.isfinite(value) else "nan"


def paper_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the cells of the paper's table, with the standard error of All."""
    header = ["Method", "Many", "Medium", "Few", "All", "+/-", "Checkpoint"]
    cells = [
        [
            label,
            *(percent(row[group]) for group in ("many", "medium", "few", "overall")),
            error_of(row),
            str(row["checkpoint"]),
        ]
        for label, row in zip(row_labels(rows), rows, strict=True)
    ]
    return header, cells


def error_of(row: Row) -> str:
    """Return the standard error of a row's overall accuracy with two digits, ``-`` without."""
    error = row.get("standard_error")
    return "-" if error is None else f"{error:.2f}"


def evaluated_on(rows: Sequence[Row]) -> str:
    """Return what the rows were evaluated on, such as ``360 test images``."""
    sizes = dict.fromkeys((row["num_images"], row["split"]) for row in rows)
    return " and ".join(f"{num_images:,} {split} images" for num_images, split in sizes)


def aligned(header: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a plain table: the first column to the left, the others to the right."""
    lines = [header, *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    texts = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return [texts[0], "-" * len(texts[0]), *texts[1:]]
