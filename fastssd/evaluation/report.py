"""The report of a run directory: `report.json`, `report.md` and the figures beside them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastssd.core.files import write_atomically
from fastssd.core.untrusted import for_markdown
from fastssd.errors import DataError, FastssdError
from fastssd.evaluation.damaged_images import read_damaged_images
from fastssd.evaluation.figures import write_figures
from fastssd.evaluation.metrics import (
    accuracies,
    class_accuracies,
    class_mean_standard_error,
    standard_error,
)
from fastssd.evaluation.results import METRICS, ResultRow, Run, StageResult, read_metrics, read_run
from fastssd.evaluation.seeds import over_seeds
from fastssd.evaluation.shots import EXCLUSIVE_GROUPS, GROUPS, LIMITS, shot_groups
from fastssd.evaluation.tables import (
    accuracy_columns,
    in_paper_order,
    lacking,
    percent,
    row_labels,
    table_notes,
)

_NAMED_IMAGES = 5


def write_report(
    run: Path,
    *,
    class_names: Sequence[str] | None = None,
    split_counts: Mapping[str, Sequence[int]] | None = None,
    published: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], list[FastssdError]]:
    """Write the report of all finished stages of a run, in place of an earlier one.

    What cannot be had of metrics, figures and the list of damaged images is left out: the numbers,
    which took days, do not wait for a picture.

    Args:
        run: A run directory: for every finished stage a folder with `result.json` and, for the
            learning curves, `metrics.jsonl`.
        class_names: (C,) in the order of the labels; the labels themselves if omitted.
        split_counts: (C,) images of each class of splits that were evaluated in training, beside
            those of the rows.
        published: Published accuracies in percent by row's name: of all classes, or a list of many,
            medium, few and all.

    Returns:
        What `report.json` holds, see `build_report`, and why anything was left out.

    Raises:
        DataError: If results are missing or damaged (see `read_run`), or a file cannot be written.
    """
    results = read_run(run)
    problems: list[FastssdError] = []
    damaged_images = []
    with _collected(problems):
        damaged_images = read_damaged_images(run)
    report = build_report(
        results,
        class_names=class_names,
        split_counts=split_counts,
        damaged_images=damaged_images,
        published=published,
    )
    write_atomically(run / "report.json", _to_json(report))
    metrics = {}
    for folder in sorted([*(stage.folder for stage in results.stages), *results.unfinished]):
        with _collected(problems):
            metrics[folder] = read_metrics(run / folder / METRICS)
    figures, undrawn = write_figures(report, metrics, run / "figures")
    write_atomically(run / "report.md", render_markdown(report, figures, relative_to=run))
    return report, problems + undrawn


def build_report(
    results: Run,
    *,
    class_names: Sequence[str] | None = None,
    split_counts: Mapping[str, Sequence[int]] | None = None,
    damaged_images: Sequence[Mapping[str, Any]] = (),
    published: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of `report.json`.

    Returns:
        ``rows`` in the paper's order, each with ``name, method, stage, head, checkpoint, split,
        seed, folder, parameters``, of several seeds those of `over_seeds`, and ``published`` where
        it is known; the accuracies of `accuracies` with ``standard_error`` and
        ``class_mean_standard_error`` in percent, ``num_images`` (the size of the split),
        ``images_per_class`` (of its smallest and its largest class, without those that have none)
        and ``per_class`` (C, percent, None for classes without images); ``classes``,
        ``train_counts`` (C) and ``split_counts`` (C images of each class by evaluated split); by
        stage folder ``seconds`` (in parts), ``images``, ``images_per_second``,
        ``data_wait_percent``, ``epochs``; ``unfinished`` folders; ``damaged_images`` that others
        replaced in training, see `read_damaged_images`.

    Raises:
        DataError: If there are more or fewer names than classes.
    """
    train_counts: list[int] = results.train_counts.tolist()
    names = [str(label) for label in range(len(train_counts))]
    if class_names is not None:
        names = list(class_names)
    if len(names) != len(train_counts):
        raise DataError(
            f"{len(names)} class names for results on {len(train_counts)} classes: the run was "
            f"made on another dataset than the one whose names were given"
        )
    stages = results.stages
    return {
        "rows": [
            {**row, **_published(published or {}, row["name"])}
            for row in in_paper_order(
                over_seeds([_row(row, stage) for stage in stages for row in stage.rows])
            )
        ],
        "seconds": {stage.folder: stage.seconds for stage in stages},
        "images": {stage.folder: stage.images for stage in stages},
        "images_per_second": {stage.folder: stage.images_per_second for stage in stages},
        "data_wait_percent": {stage.folder: stage.data_wait_percent for stage in stages},
        "epochs": {stage.folder: stage.epochs for stage in stages},
        "unfinished": list(results.unfinished),
        "damaged_images": list(damaged_images),
        "classes": names,
        "train_counts": train_counts,
        "split_counts": {
            **{split: list(counts) for split, counts in (split_counts or {}).items()},
            **{row.split: row.total.tolist() for stage in stages for row in stage.rows},
        },
    }


def render_markdown(
    report: Mapping[str, Any], figures: Sequence[Path], *, relative_to: Path
) -> str:
    """Return the report as Markdown: the paper's table, the stages, the figures."""
    rows = report["rows"]
    groups = shot_groups(report["train_counts"])
    titles, columns = accuracy_columns(rows)
    has_published = any("published" in row for row in rows)
    table = _markdown_table(
        [
            "Method",
            *(f"{group.capitalize()} {LIMITS[group]}" for group in GROUPS),
            *titles,
            *(f"{group.split('_')[0].capitalize()} {LIMITS[group]}" for group in EXCLUSIVE_GROUPS),
            "Checkpoint",
            *(["Published"] if has_published else []),
            "Seconds",
        ],
        [
            [
                for_markdown(label),
                *(percent(row[group]) for group in GROUPS),
                *accuracy,
                *(percent(row[group]) for group in EXCLUSIVE_GROUPS),
                for_markdown(row["checkpoint"]),
                *([_published_cell(row)] if has_published else []),
                f"{_seconds(report, row):,.1f}",
            ]
            for label, row, accuracy in zip(row_labels(rows), rows, columns, strict=True)
        ],
    )
    stages = _markdown_table(
        ["Stage", "Epochs", "Images", "Images/s", "Data wait %", "Seconds"],
        [
            [
                for_markdown(folder),
                str(report["epochs"][folder]),
                f"{report['images'][folder]:,}",
                _rounded(report["images_per_second"][folder]),
                percent(report["data_wait_percent"][folder]),
                ", ".join(f"{for_markdown(part)} {value:,.1f}" for part, value in seconds.items())
                or "-",
            ]
            for folder, seconds in report["seconds"].items()
        ],
    )
    num_images, num_classes = sum(report["train_counts"]), len(report["train_counts"])
    sizes = [
        ", ".join(
            f"{int(groups[group].sum()):,} {group.split('_')[0]} ({LIMITS[group]})"
            for group in convention
        )
        for convention in (GROUPS, EXCLUSIVE_GROUPS)
    ]
    unfinished = ", ".join(map(for_markdown, report["unfinished"]))
    absent = [
        f"{for_markdown(sentence)}."
        for split, counts in report["split_counts"].items()
        if (sentence := lacking(split, counts, report["classes"]))
    ]
    return "\n\n".join(
        [
            "# Report",
            " ".join(map(for_markdown, table_notes(rows))),
            table,
            "A group without classes has - for its accuracy. Seconds are those of the row's stage, "
            "all its parts.",
            *absent,
            f"Trained on {num_images:,} images of {num_classes:,} classes. Classes by training "
            f"images, as in the paper's text: {sizes[0]}; as in its code: {sizes[1]}.",
            "## Stages",
            stages,
            *([f"Not finished, and not in this report: {unfinished}."] if unfinished else []),
            *_damaged_lines(report["damaged_images"]),
            "## Figures",
            *(f"![{path.stem.replace('_', ' ')}]({_link(path, relative_to)})" for path in figures),
            "Accuracies of every class are in `report.json`.\n",
        ]
    )


@contextmanager
def _collected(problems: list[FastssdError]) -> Iterator[None]:
    """Note a failure of the block that a person can mend, and go on."""
    try:
        yield
    except FastssdError as error:
        problems.append(error)


def _row(row: ResultRow, stage: StageResult) -> dict[str, Any]:
    per_class = class_accuracies(row.correct, row.total).tolist()
    tested = row.total[row.total > 0]
    return {
        "name": row.name,
        "method": row.method,
        "stage": row.stage,
        "head": row.head,
        **accuracies(row.correct, row.total, stage.train_counts),
        "standard_error": standard_error(row.correct, row.total),
        "class_mean_standard_error": class_mean_standard_error(row.correct, row.total),
        "num_images": int(row.total.sum()),
        "images_per_class": [int(tested.min()), int(tested.max())],
        "checkpoint": row.checkpoint,
        "split": row.split,
        "seed": stage.seed,
        "folder": stage.folder,
        "parameters": stage.parameters,
        "per_class": [
            accuracy if seen else None for accuracy, seen in zip(per_class, row.total, strict=True)
        ],
    }


def _seconds(report: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """Return the seconds of a row's stage, the mean over its seeds."""
    folders = row.get("folders") or [row["folder"]]
    return sum(sum(report["seconds"][folder].values()) for folder in folders) / len(folders)


def _published(published: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a row's published accuracies, by group."""
    if name not in published:
        return {}
    value = published[name]
    values = value if isinstance(value, list) else [None, None, None, value]
    return {"published": dict(zip(("many", "medium", "few", "overall"), values, strict=False))}


def _published_cell(row: Mapping[str, Any]) -> str:
    return percent(row.get("published", {}).get("overall"))


def _damaged_lines(images: Sequence[Mapping[str, Any]]) -> list[str]:
    if not images:
        return []
    some = ", ".join(
        f"{for_markdown(image['file'])} ({for_markdown(image['reason'])})"
        for image in images[:_NAMED_IMAGES]
    )
    rest = ", ..." if len(images) > _NAMED_IMAGES else ""
    return [
        f"{len(images):,} damaged training images were replaced by others of their classes; "
        f"`report.json` lists them: {some}{rest}."
    ]


def _to_json(report: Mapping[str, Any]) -> str:
    """Return strict JSON with a line for each row and each key; thousands of classes fit a line."""
    rows = ",\n".join(f"  {json.dumps(row, allow_nan=False)}" for row in report["rows"])
    others = "".join(
        f",\n {json.dumps(key)}: {json.dumps(value, allow_nan=False)}"
        for key, value in report.items()
        if key != "rows"
    )
    return f'{{\n "rows": [\n{rows}\n ]{others}\n}}\n'


def _markdown_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown."""
    lines = [header, [":--", *("--:" for _ in header[1:])], *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rounded(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _link(path: Path, start: Path) -> str:
    return path.relative_to(start).as_posix()
