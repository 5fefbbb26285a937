import json

import pytest

from fastssd.errors import DataError
from fastssd.evaluation.figures import learning_curves
from fastssd.evaluation.results import read_metrics, read_run


def test_stages_are_read_in_the_order_of_their_folders(run):
    stages = read_run(run).stages

    assert [stage.folder for stage in stages] == ["1-features", "3-distill", "ce", "other"]
    assert stages[1].rows[0].correct.tolist() == [8, 8, 6, 5, 3]
    assert stages[1].seconds == {"train": 30.0, "table": 4.0, "evaluate": 1.0}


def test_a_stage_with_metrics_and_no_result_is_unfinished(run, make):
    make.stage(run, "4-balance", None, [make.train_line(1, 1.0)])

    assert read_run(run).unfinished == ("4-balance",)


def test_a_rate_that_could_not_be_measured_may_be_null(run, make):
    make.stage(run, "ce", make.result([], images_per_second=None, data_wait_percent=float("nan")))

    stage = read_run(run).stages[2]

    assert (stage.images_per_second, stage.data_wait_percent) == (None, None)


def test_a_missing_run_and_a_run_without_results_are_data_errors(tmp_path):
    with pytest.raises(DataError, match="is not a directory"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no finished stage"):
        read_run(tmp_path)


@pytest.mark.parametrize("key", ["rows", "seconds", "images", "epochs", "train_counts"])
def test_a_result_that_lacks_a_key_names_file_and_key(run, make, key):
    content = make.result([make.row("CE", None, "classifier", [1, 1, 1, 1, 1])])
    del content[key]
    make.stage(run, "ce", content)

    with pytest.raises(DataError, match=rf"ce/result\.json: damaged: it lacks '{key}'"):
        read_run(run)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"correct": [1, 1, 1, 1]}, "has 4 correct and 5 total for 5 classes"),
        ({"correct": [11, 1, 1, 1, 1]}, "more correct than total"),
        ({"correct": [-1, 1, 1, 1, 1]}, "not a list of counts"),
        ({"correct": [1.5, 1, 1, 1, 1]}, "not a list of counts"),
        ({"correct": [0] * 5, "total": [0] * 5}, "counts no image"),
    ],
)
def test_a_row_that_cannot_be_is_a_data_error(run, make, changes, problem):
    row = make.row("CE", None, "classifier", [1, 1, 1, 1, 1], **changes)
    make.stage(run, "ce", make.result([row]))

    with pytest.raises(DataError, match=problem):
        read_run(run)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"train_counts": "x"}', "[" * 100_000, "9" * 5000]
)
def test_a_damaged_result_is_a_data_error(run, text):
    (run / "ce" / "result.json").write_text(text)

    with pytest.raises(DataError, match=r"ce/result\.json"):
        read_run(run)


def test_stages_on_different_training_images_do_not_make_one_report(run, make):
    make.stage(run, "ce", make.result([], train_counts=[200, 100, 50, 20, 6]))

    with pytest.raises(DataError, match="different training images"):
        read_run(run)


def test_steps_that_a_resumed_run_repeats_count_once(tmp_path, make):
    lines = [make.train_line(step, loss) for step, loss in [(10, 3.0), (20, 9.0), (30, 9.0)]]
    lines += [make.evaluation_line(30, 1.0)]
    lines += [make.train_line(step, loss) for step, loss in [(20, 2.0), (30, 1.0)]]
    lines += [make.evaluation_line(30, 2.0)]
    path = make.stage(tmp_path, "x", None, lines) / "metrics.jsonl"

    metrics = read_metrics(path)

    assert [(e["step"], e["losses"]["classification"]) for e in metrics.train] == [
        (10, 3.0),
        (20, 2.0),
        (30, 1.0),
    ]
    assert [e["heads"]["classifier"]["overall"] for e in metrics.evaluation] == [2.0]


def test_a_last_line_cut_by_a_kill_is_left_out(tmp_path, make):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(make.train_line(1, 1.0)) + "\n" + '{"kind": "train", "st')

    assert len(read_metrics(path).train) == 1


@pytest.mark.parametrize(
    "line", ["{", "[]", "1", "9" * 5000, "[" * 10_000, '{"kind": "else", "step": 1}']
)
def test_a_damaged_line_is_named(tmp_path, make, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(make.train_line(1, 1.0)) + f"\n{line}\n")

    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2: damaged: .*; remove the line"):
        read_metrics(path)


def broken_at(entry, keys, value):
    """Return a copy with another value at a path of keys, or without the key."""
    key, *rest = keys
    copy = dict(entry)
    if rest:
        copy[key] = broken_at(entry[key], rest, value)
    elif value is ABSENT:
        del copy[key]
    else:
        copy[key] = value
    return copy


ABSENT = object()
NEEDED = [
    ("train", ("kind",)),
    ("train", ("step",)),
    ("train", ("losses",)),
    ("train", ("losses", "classification")),
    ("train", ("accuracy",)),
    ("train", ("accuracy", "classification")),
    ("train", ("accuracy", "classification", "overall")),
    ("evaluation", ("step",)),
    ("evaluation", ("split",)),
    ("evaluation", ("heads",)),
    ("evaluation", ("heads", "classifier")),
    ("evaluation", ("heads", "classifier", "overall")),
]


@pytest.mark.parametrize(("kind", "keys"), NEEDED, ids=str)
def test_a_line_with_a_broken_key_is_named(tmp_path, make, kind, keys):
    entry = make.train_line(5, 1.0) if kind == "train" else make.evaluation_line(5, 40.0)
    path = tmp_path / "metrics.jsonl"
    values = [True, [], {"a": []}, 10**400]
    # A number may be absent or null, as that of a group without classes.
    values += [ABSENT, None] if len(keys) == 1 else []
    values += [] if keys == ("split",) else ["5"]
    for value in values:
        path.write_text(json.dumps(broken_at(entry, keys, value)) + "\n")

        with pytest.raises(
            DataError, match=r"metrics\.jsonl, line 1: damaged: .*; remove the line"
        ):
            read_metrics(path)


def test_whatever_numbers_are_absent_or_wild_can_be_drawn(tmp_path, make):
    path = tmp_path / "metrics.jsonl"
    entries = [
        broken_at(make.train_line(step, 1.0), ("losses", "classification"), value)
        for step, value in enumerate([ABSENT, None, -1, 1e300, float("inf"), float("nan")])
    ]
    entries += [broken_at(make.evaluation_line(9, 1.0), ("heads", "classifier"), {})]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))

    learning_curves({"stage": read_metrics(path)})


def test_a_stage_without_metrics_has_none(tmp_path):
    metrics = read_metrics(tmp_path / "metrics.jsonl")

    assert metrics.train == metrics.evaluation == ()
