"""Expected numbers are worked out on paper from the run directory in conftest.py."""

import json

import pytest

from fastssd.errors import DataError
from fastssd.evaluation import figures
from fastssd.evaluation.report import write_report

NAMES = ["ant", "bee", "cat", "dog", "elk"]


def strict_json(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_the_report_holds_the_contracts_numbers(run):
    returned = write_report(run, class_names=NAMES)

    report = strict_json(run / "report.json")
    assert report == returned
    assert report["rows"][0] == {
        "name": "CE",
        "stage": None,
        "head": "classifier",
        "overall": pytest.approx(40.0),
        "many": pytest.approx(85.0),
        "medium": pytest.approx(30.0),
        "few": pytest.approx(0.0),
        "many_exclusive": pytest.approx(100.0),
        "medium_exclusive": pytest.approx(100 / 3),
        "few_exclusive": pytest.approx(0.0),
        "standard_error": pytest.approx(6.9282, abs=1e-4),
        "num_images": 50,
        "checkpoint": "last",
        "split": "test",
        "folder": "ce",
        "per_class": [100.0, 70.0, 30.0, 0.0, 0.0],
    }
    assert [(row["name"], row["overall"]) for row in report["rows"]] == [
        ("CE", pytest.approx(40.0)),
        ("SSD I", pytest.approx(48.0)),
        ("SSD III-hard", pytest.approx(50.0)),
        ("SSD III-soft", pytest.approx(60.0)),
        ("Other", pytest.approx(10.0)),
    ]
    assert report["seconds"]["3-distill"] == {"train": 30.0, "table": 4.0, "evaluate": 1.0}
    assert report["images_per_second"]["ce"] == 375.0
    assert report["data_wait_percent"]["ce"] == 1.5
    assert report["classes"] == NAMES
    assert report["train_counts"] == [200, 100, 50, 20, 5]


def test_absent_groups_and_untested_classes_are_null(run, make):
    row = make.row("LWS", None, "classifier", [9, 5, 0, 0, 0], total=[10, 10, 10, 0, 0])
    make.stage(run, "lws", make.result([row], images_per_second=float("nan")))

    write_report(run)

    report = strict_json(run / "report.json")
    lws = report["rows"][1]
    assert (lws["few"], lws["few_exclusive"]) == (None, None)
    assert lws["per_class"] == [90.0, 50.0, 0.0, None, None]
    assert report["images_per_second"]["lws"] is None
    assert "| LWS | 70.0 | 0.0 | - | 46.7 |" in (run / "report.md").read_text()


def test_the_markdown_is_the_papers_table_with_both_conventions(run):
    write_report(run)

    text = (run / "report.md").read_text()
    assert (
        "| Method | Many >= 100 | Medium 21 to 99 | Few <= 20 | All | +/- "
        "| Many > 100 | Medium 20 to 100 | Few < 20 | Checkpoint | Seconds |"
    ) in text
    assert (
        "| SSD III-hard | 90.0 | 50.0 | 10.0 | 50.0 | 7.07 | 90.0 | 53.3 | 0.0 | last | 35.0 |"
        in text
    )
    assert "50 test images" in text
    assert "standard error" in text
    assert text.index("| CE |") < text.index("| SSD I |") < text.index("| SSD III-soft |")


def test_every_picture_of_the_markdown_is_there(run):
    write_report(run)

    text = (run / "report.md").read_text()
    for name in ("class_histogram", "accuracy_by_frequency", "learning_curves"):
        assert f"(figures/{name}.png)" in text
        assert (run / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_metrics_has_a_report_without_learning_curves(run):
    for path in run.glob("*/metrics.jsonl"):
        path.unlink()

    write_report(run)

    assert "learning_curves" not in (run / "report.md").read_text()


def test_unfinished_stages_are_said(run, make):
    make.stage(run, "4-balance", None, [make.train_line(1, 1.0)])

    assert write_report(run)["unfinished"] == ["4-balance"]
    assert "not in this report: 4-balance" in (run / "report.md").read_text()


def test_names_that_mean_something_in_markdown_stay_in_their_cell(run, make):
    make.stage(run, "x", make.result([make.row("a|b", None, "classifier", [1, 1, 1, 1, 1])]))

    write_report(run)

    assert "| a\\|b | " in (run / "report.md").read_text()


def test_names_of_another_dataset_are_a_data_error(run):
    with pytest.raises(DataError, match="4 class names for results on 5 classes"):
        write_report(run, class_names=NAMES[:4])


def test_a_report_that_fails_leaves_the_earlier_one(run, monkeypatch):
    write_report(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (run / "ce" / "metrics.jsonl").write_text("{\n")

    with pytest.raises(DataError, match="line 1"):
        write_report(run)

    before[run / "ce" / "metrics.jsonl"] = b"{\n"
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_picture_that_cannot_be_drawn_leaves_no_part_of_itself(run, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(figures, "learning_curves", fail)

    with pytest.raises(OSError, match="no space"):
        write_report(run)

    assert not list(run.rglob("*partial*"))
    assert not (run / "report.json").exists()
