"""Reading what the stages of a run left behind: `result.json` and `metrics.jsonl`.

Everything is checked here, so that the report and the figures can rely on what they get.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastssd.core.files import check_seal, sha256_of
from fastssd.core.reading import parse_json, read_bytes, read_json_lines, reading, value_at
from fastssd.errors import DataError

RESULT = "result.json"
METRICS = "metrics.jsonl"
GRAPH_FILE = "graph.json"
RECALIBRATED = "recalibrated-{}.safetensors"
"""BatchNorm statistics refreshed for who stands on the stage, by what they depend on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRow:
    """One network with one head on one split."""

    name: str
    """As the paper's tables have it, such as ``SSD III-hard``."""
    method: str
    """The method's name in the recipe, such as ``ssd``."""
    stage: str | None
    """Its stage, such as ``I`` or ``model``."""
    head: str
    checkpoint: str
    """``last`` or ``best``."""
    split: str
    correct: NDArray[np.int64]
    """(C,) correctly classified images of each class."""
    total: NDArray[np.int64]
    """(C,) classified images of each class; at least one in all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageResult:
    """A finished stage folder."""

    folder: str
    """In the run directory, such as ``ssd-I`` or ``seed-0/ssd-I``."""
    rows: tuple[ResultRow, ...]
    seconds: dict[str, float]
    """By part, such as ``train``, ``table``, ``evaluate``."""
    images: int
    """Images that training consumed."""
    images_per_second: float | None
    data_wait_percent: float | None
    epochs: int
    train_counts: NDArray[np.int64]
    """(C,) training images of each class."""
    files: dict[str, str]
    """SHA-256 of the files in the folder that the result stands for, by name."""
    made_by: str = ""
    """Digest of what the stage was trained by; empty in a result of an early version."""
    seed: int = 0
    parameters: int | None = None
    """Numbers that its module holds, a frozen network's included."""
    dataset: str = ""
    """Digest of the dataset that it was trained and measured on; empty likewise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The stages of a run directory, in the order of their folders' names."""

    stages: tuple[StageResult, ...]
    """Finished stages, at least one."""
    unfinished: tuple[str, ...]
    """Folders with metrics and no result yet."""
    train_counts: NDArray[np.int64]
    """(C,) the same in all stages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """The lines of one `metrics.jsonl`, steps increasing within each kind."""

    train: tuple[dict[str, Any], ...]
    evaluation: tuple[dict[str, Any], ...]


def read_run(run: Path) -> Run:
    """Return the results of a run directory.

    Raises:
        DataError: If the directory or every result in it is missing, a result is damaged, or
            stages disagree about the training images of the classes.
    """
    if not run.is_dir():
        raise DataError(f"{run} is not a directory: give the run directory that training wrote")
    paths = [path for folder in _FOLDERS for path in sorted(run.glob(f"{folder}/{RESULT}"))]
    if not paths:
        raise DataError(
            f"{run} has no finished stage (no */{RESULT}): let training finish a stage first"
        )
    order = _graph_order(run)
    stages = tuple(
        sorted(
            (read_stage(path, run) for path in paths),
            key=lambda stage: order.get(stage.folder, len(order)),
        )
    )
    for stage in stages[1:]:
        if not np.array_equal(stage.train_counts, stages[0].train_counts):
            raise DataError(
                f"{run / stage.folder / RESULT} and {paths[0]} were made on different training "
                f"images (train_counts differ): keep one dataset to a run directory"
            )
        if stage.dataset != stages[0].dataset:
            raise DataError(
                f"{run / stage.folder / RESULT} and {paths[0]} were made on different datasets: "
                "keep one dataset to a run directory"
            )
    finished = {stage.folder for stage in stages}
    started = {
        path.parent.relative_to(run).as_posix()
        for folder in _FOLDERS
        for path in run.glob(f"{folder}/{METRICS}")
    }
    return Run(
        stages=stages,
        unfinished=tuple(sorted(started - finished)),
        train_counts=stages[0].train_counts,
    )


_FOLDERS = ("*", "seed-*/*")
"""Where stages' folders are: with several seeds each has a folder of its own."""


def _graph_order(run: Path) -> dict[str, int]:
    """Return the place of each stage's folder in the run's graph; empty without one."""
    path = run / GRAPH_FILE
    if not path.exists():
        return {}
    with reading(path, "delete it: the next start of the run writes it again"):
        stages = value_at(parse_json(read_bytes(path), dict), "stages", list)
        return {str(stage["folder"]): place for place, stage in enumerate(stages)}


def read_metrics(path: Path) -> Metrics:
    """Return the metrics of a stage; a file that does not exist has none.

    A run that was killed and resumed repeats the steps after its last checkpoint: what it logged
    of them before is left out. A last line without its end was cut by the kill and is left out too.

    Raises:
        DataError: If a line is damaged, with its number.
    """
    if not path.exists():
        return Metrics(train=(), evaluation=())
    kinds: dict[str, list[dict[str, Any]]] = {"train": [], "evaluation": []}
    lines: list[dict[str, Any]] = read_json_lines(path, dict, remedy="remove the line")
    for number, entry in enumerate(lines, start=1):
        with reading(f"{path}, line {number}", "remove the line"):
            _check_metrics(entry)
        entries = kinds[entry["kind"]]
        while entries and entries[-1]["step"] >= entry["step"]:
            entries.pop()
        entries.append(entry)
    return Metrics(train=tuple(kinds["train"]), evaluation=tuple(kinds["evaluation"]))


def read_stage(path: Path, run: Path | None = None) -> StageResult:
    """Return one stage's `result.json`, checked.

    Args:
        path: The file.
        run: The run directory, which the folder's name is relative to; the folder's own without.

    Raises:
        DataError: If it is missing or damaged.
    """
    with reading(path, _REMEDY):
        content = parse_json(read_bytes(path), dict)
        check_seal(content)
        train_counts = _counts(content["train_counts"], "train_counts")
        return StageResult(
            folder=path.parent.relative_to(run or path.parents[1]).as_posix(),
            rows=tuple(parse_row(row, len(train_counts)) for row in content["rows"]),
            seconds={
                str(part): _number(seconds, "seconds")
                for part, seconds in content["seconds"].items()
            },
            images=int(content["images"]),
            images_per_second=_optional(content["images_per_second"], "images_per_second"),
            data_wait_percent=_optional(content["data_wait_percent"], "data_wait_percent"),
            epochs=int(content["epochs"]),
            train_counts=train_counts,
            files={str(name): str(digest) for name, digest in content.get("files", {}).items()},
            made_by=str(content.get("made_by", "")),
            seed=int(content.get("seed", 0)),
            parameters=None if content.get("parameters") is None else int(content["parameters"]),
            dataset=str(content.get("dataset", "")),
        )


def _check_metrics(entry: dict[str, Any]) -> None:
    """Check what the figures will ask of a line.

    Raises:
        ValueError, TypeError, OverflowError: If a key is missing or can't be what it is.
    """
    kind = value_at(entry, "kind", str)
    if not 0 <= value_at(entry, "step", int) < 1 << 63:
        raise ValueError("'step' is not the number of a step")
    numbers = {}
    if kind == "train":
        numbers["losses"] = value_at(entry, "losses", dict)
        nested = "accuracy"
    elif kind == "evaluation":
        value_at(entry, "split", str)
        nested = "heads"
    else:
        raise ValueError(f"'kind' is {kind!r:.80} where 'train' or 'evaluation' is expected")
    inner = value_at(entry, nested, dict)
    numbers |= {f"{nested}.{name}": value_at(inner, name, dict) for name in inner}
    for name, values in numbers.items():
        for key, value in values.items():
            if value is not None:
                _number(value, f"{name}.{key}")


def damaged_files(path: Path, stage: StageResult) -> list[str]:
    """Return the names of files of a stage that are missing or not those that its result is of.

    Args:
        path: The stage's `result.json`.
        stage: What it says.
    """
    return [
        name
        for name, digest in stage.files.items()
        if not (path.parent / name).is_file() or sha256_of(path.parent / name) != digest
    ]


_REMEDY = "delete it and run training again, which evaluates the stage anew"


def parse_row(content: dict[str, Any], num_classes: int) -> ResultRow:
    """Return a row of a result, checked.

    Raises:
        KeyError, TypeError, ValueError: If a value is missing or can't be.
    """
    correct, total = _counts(content["correct"], "correct"), _counts(content["total"], "total")
    name = str(content["name"])
    if not len(correct) == len(total) == num_classes:
        raise ValueError(
            f"row {name!r} has {len(correct)} correct and {len(total)} total for {num_classes} "
            f"classes"
        )
    if (correct > total).any():
        raise ValueError(f"row {name!r} has more correct than total images")
    if not total.any():
        raise ValueError(f"row {name!r} counts no image")
    return ResultRow(
        name=name,
        method=str(content.get("method", "")),
        stage=None if content["stage"] is None else str(content["stage"]),
        head=str(content["head"]),
        checkpoint=str(content["checkpoint"]),
        split=str(content["split"]),
        correct=correct,
        total=total,
    )


def _counts(values: object, key: str) -> NDArray[np.int64]:
    counts = np.asarray(values)
    if counts.ndim != 1 or not counts.size or counts.dtype.kind != "i" or (counts < 0).any():
        raise ValueError(f"{key} is not a list of counts")
    return counts.astype(np.int64)


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{key} is not a number: {value!r}")
    return float(value)


def _optional(value: object, key: str) -> float | None:
    """Return the number, None where nothing could be measured."""
    number = None if value is None else _number(value, key)
    return number if number is not None and math.isfinite(number) else None
