"""The rows of a report as the paper's table shows them: order, labels, columns, cells, notes.

Knows no file and no terminal; the report and the console put the cells where they belong, and make
the names in them harmless there.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastssd.evaluation.shots import GROUPS

Row = Mapping[str, Any]
"""A row of ``report.json``."""

PAPER_NAMES = ("CE", "LWS", "SSD I", "SSD II", "SSD III-hard", "SSD III-soft", "SSD IV")
"""The order of the paper's tables."""

_QUALIFIERS = ("head", "split", "checkpoint", "method", "folder")
_ERRORS = {"overall": "standard_error", "class_mean": "class_mean_standard_error"}
_TITLES = {"overall": "All", "class_mean": "Class mean"}
_MAX_NAMES = 8


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


def headline(rows: Sequence[Row]) -> Literal["overall", "class_mean"]:
    """Return which accuracy compares the rows: by class where a split has unequal classes.

    Over images, such a split tells of its largest classes alone.
    """
    unequal = any(len(set(row["images_per_class"])) > 1 for row in rows)
    return "class_mean" if unequal else "overall"


def accuracy_columns(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return titles and cells of the headline, its standard error and the other accuracy."""
    first = headline(rows)
    second = "overall" if first == "class_mean" else "class_mean"
    several = any("seeds" in row for row in rows)
    titles = [_TITLES[first], "std" if several else "+/-", _TITLES[second]]
    cells = [
        [percent(row[first]), _two_digits(error_of(row, first)), percent(row[second])]
        for row in rows
    ]
    return titles, cells


def paper_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the cells of the paper's table, with `accuracy_columns` for its All."""
    titles, accuracies = accuracy_columns(rows)
    header = ["Method", "Many", "Medium", "Few", *titles, "Checkpoint"]
    cells = [
        [label, *(percent(row[group]) for group in GROUPS), *columns, str(row["checkpoint"])]
        for label, row, columns in zip(row_labels(rows), rows, accuracies, strict=True)
    ]
    return header, cells


def table_notes(rows: Sequence[Row]) -> list[str]:
    """Return the sentences without which the table is read wrongly.

    What the accuracies are of, which one compares the rows and how far to trust it, and which rows
    the images do not tell apart.
    """
    notes = [f"Top-1 accuracy in percent on {evaluated_on(rows)}."]
    if headline(rows) == "class_mean":
        sizes = [size for row in rows for size in row["images_per_class"]]
        notes.append(
            f"A class has {min(sizes):,} to {max(sizes):,} of them, so compare by Class mean, the "
            "mean of the classes' accuracies (balanced accuracy): All is over images and tells "
            "mostly of the largest classes. Many, Medium and Few are means over classes too."
        )
    else:
        notes.append(
            "All is over images; Class mean, the mean of the classes' accuracies (balanced "
            "accuracy), is the same here, as each class has as many. Many, Medium and Few are "
            "means over classes."
        )
    seeds = next((row["seeds"] for row in rows if "seeds" in row), None)
    if seeds is not None:
        notes.append(
            f"Means over the seeds {_listed([str(seed) for seed in seeds])}; std is the sample "
            f"standard deviation of {_TITLES[headline(rows)]} over them."
        )
        return notes + _standings(rows)
    notes.append(
        f"+/- is the standard error of {_TITLES[headline(rows)]} from the number of those images "
        "alone; training runs with other seeds differ as well."
    )
    return notes + _standings(rows)


def lacking(split: str, counts: Sequence[int], names: Sequence[str]) -> str | None:
    """Return what is to be said of a split that has no image of some classes; None if it has all.

    Args:
        split: Its name.
        counts: (C,) its images of each class.
        names: (C,) of the classes.
    """
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    if not absent:
        return None
    return (
        f"{split} has images of {len(names) - len(absent):,} of {len(names):,} classes, and "
        f"accuracy on it is of those alone; without images: {_listed(absent)}"
    )


def _standings(rows: Sequence[Row]) -> list[str]:
    """Return, for each split, which rows are within one standard error of the best.

    Of one head's two checkpoints the last alone: the other is no method of its own.
    """
    key = headline(rows)
    last = {_head_of(row) for row in rows if row["checkpoint"] == "last"}
    sentences = []
    for split in dict.fromkeys(row["split"] for row in rows):
        ranked = [
            (row, label)
            for row, label in zip(rows, row_labels(rows), strict=True)
            if row["split"] == split and (row["checkpoint"] == "last" or _head_of(row) not in last)
        ]
        best, name = max(ranked, key=lambda pair: pair[0][key])
        error, unit = error_of(best, key) or 0.0, _unit(best)
        near = [label for row, label in ranked if row is not best and row[key] >= best[key] - error]
        if len(ranked) < 2:
            continue
        if near:
            verb = "is" if len(near) == 1 else "are"
            sentences.append(
                f"{_listed(near)} {verb} within one {unit} ({error:.2f}) of the best on "
                f"{split}, {name}."
            )
        else:
            sentences.append(
                f"{name} is the best on {split}, by more than one {unit} ({error:.2f})."
            )
    return sentences


def error_of(row: Row, key: str) -> float | None:
    """Return how far to trust a row's accuracy: the spread of its seeds, or its standard error."""
    error: float | None = row[f"{key}_std"] if "seeds" in row else row[_ERRORS[key]]
    return error


def _unit(row: Row) -> str:
    return "standard deviation of its seeds" if "seeds" in row else "standard error"


def _head_of(row: Row) -> tuple[str, ...]:
    return str(row["name"]), str(row.get("method")), str(row["head"]), str(row["split"])


def _listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them, the first few of many."""
    shown = list(names[:_MAX_NAMES])
    if len(names) > _MAX_NAMES:
        shown.append(f"{len(names) - _MAX_NAMES:,} more")
    return ", ".join(shown) if len(shown) < 2 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _two_digits(error: float | None) -> str:
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
