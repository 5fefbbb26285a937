"""A run directory made by hand, with numbers that are easy to work out on paper."""

import json

import pytest

TRAIN_COUNTS = [200, 100, 50, 20, 5]


def result(rows, **changes):
    return {
        "folder": "whatever",
        "rows": rows,
        "seconds": {"train": 10.0, "evaluate": 2.5},
        "images": 3750,
        "images_per_second": 375.0,
        "data_wait_percent": 1.5,
        "epochs": 10,
        "train_counts": TRAIN_COUNTS,
    } | changes


def row(name, stage, head, correct, /, **changes):
    return {
        "name": name,
        "stage": stage,
        "head": head,
        "checkpoint": "last",
        "split": "test",
        "correct": correct,
        "total": [10, 10, 10, 10, 10],
    } | changes


def train_line(step, loss, accuracy=50.0):
    return {
        "kind": "train",
        "epoch": step // 10,
        "step": step,
        "lr": 0.1,
        "losses": {"classification": loss},
        "accuracy": {"classification": {"overall": accuracy, "many": accuracy}},
        "images_per_second": 375.0,
        "data_wait_percent": 1.5,
    }


def evaluation_line(step, overall):
    heads = {"classifier": {"overall": overall, "many": overall, "medium": 1.0, "few": None}}
    return {"kind": "evaluation", "epoch": 0, "step": step, "split": "val", "heads": heads}


def write_stage(run, folder, content, lines=()):
    path = run / folder
    path.mkdir(parents=True, exist_ok=True)
    if content is not None:
        (path / "result.json").write_text(json.dumps(content))
    if lines:
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def make():
    """The builders above, for tests that need another run."""

    class Make:
        stage = staticmethod(write_stage)
        result = staticmethod(result)
        row = staticmethod(row)
        train_line = staticmethod(train_line)
        evaluation_line = staticmethod(evaluation_line)

    return Make


@pytest.fixture
def run(tmp_path):
    run = tmp_path / "run"
    lines = [train_line(5, 2.0), evaluation_line(10, 40.0), train_line(15, 1.0)]
    write_stage(
        run, "1-features", result([row("SSD I", "I", "classifier", [9, 8, 4, 2, 1])]), lines
    )
    write_stage(
        run,
        "3-distill",
        result(
            [
                row("SSD III-soft", "III", "soft", [8, 8, 6, 5, 3]),
                row("SSD III-hard", "III", "hard", [9, 9, 5, 2, 0]),
            ],
            seconds={"train": 30.0, "table": 4.0, "evaluate": 1.0},
        ),
        lines,
    )
    write_stage(run, "ce", result([row("CE", None, "classifier", [10, 7, 3, 0, 0])]), lines)
    write_stage(run, "other", result([row("Other", None, "classifier", [1, 1, 1, 1, 1])]))
    return run
