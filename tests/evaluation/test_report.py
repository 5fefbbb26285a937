"""Expected numbers are worked out on paper from the run directory in conftest.py."""

import json

import pytest
from markdown_it import MarkdownIt

from fastssd.core.untrusted import for_terminal
from fastssd.errors import DataError
from fastssd.evaluation import figures
from fastssd.evaluation import report as report_module
from fastssd.evaluation.report import write_report

NAMES = ["ant", "bee", "cat", "dog", "elk"]


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Draw nothing, which takes a second, but for tests that ask for it."""
    if "drawn" not in request.fixturenames:
        names = ("class_histogram", "accuracy_by_frequency", "learning_curves")
        monkeypatch.setattr(
            report_module,
            "write_figures",
            lambda report, metrics, folder: (
                [folder / f"{name}.png" for name in names],
                [],
            ),
        )


@pytest.fixture
def drawn(monkeypatch):
    """Asked for by tests that need the figures, though small ones."""
    monkeypatch.setattr(figures, "_DPI", 20)


def strict_json(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_the_report_holds_the_contracts_numbers(run):
    returned, problems = write_report(run, class_names=NAMES, split_counts={"val": [3] * 5})

    report = strict_json(run / "report.json")
    assert (report, problems) == (returned, [])
    assert report["rows"][0] == {
        "name": "CE",
        "method": "",
        "stage": None,
        "head": "classifier",
        "seed": 0,
        "parameters": None,
        "overall": pytest.approx(40.0),
        "class_mean": pytest.approx(40.0),
        "many": pytest.approx(85.0),
        "medium": pytest.approx(30.0),
        "few": pytest.approx(0.0),
        "many_exclusive": pytest.approx(100.0),
        "medium_exclusive": pytest.approx(100 / 3),
        "few_exclusive": pytest.approx(0.0),
        "standard_error": pytest.approx(6.9282, abs=1e-4),
        "class_mean_standard_error": pytest.approx(20 * (0.42 / 9) ** 0.5),
        "num_images": 50,
        "images_per_class": [10, 10],
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
    assert report["split_counts"] == {"test": [10] * 5, "val": [3] * 5}


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
        "| Method | Many >= 100 | Medium 21 to 99 | Few <= 20 | All | +/- | Class mean "
        "| Many > 100 | Medium 20 to 100 | Few < 20 | Checkpoint | Seconds |"
    ) in text
    cells = "90.0 | 50.0 | 10.0 | 50.0 | 7.07 | 50.0 | 90.0 | 53.3 | 0.0 | last | 35.0"
    assert f"| SSD III-hard | {cells} |" in text
    assert "50 test images" in text
    assert "standard error" in text
    assert text.index("| CE |") < text.index("| SSD I |") < text.index("| SSD III-soft |")


def test_every_picture_of_the_markdown_is_there(run, drawn):
    write_report(run)

    text = (run / "report.md").read_text()
    for name in ("class_histogram", "accuracy_by_frequency", "learning_curves"):
        assert f"(figures/{name}.png)" in text
        assert (run / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_metrics_has_a_report_without_learning_curves(run, drawn):
    for path in run.glob("*/metrics.jsonl"):
        path.unlink()

    write_report(run)

    assert "learning_curves" not in (run / "report.md").read_text()


def test_unfinished_stages_are_said(run, make):
    make.stage(run, "4-balance", None, [make.train_line(1, 1.0)])

    assert write_report(run)[0]["unfinished"] == ["4-balance"]
    assert "not in this report: 4-balance" in (run / "report.md").read_text()


def test_an_unbalanced_test_split_is_compared_by_its_class_mean(run, make):
    for path in run.glob("*/result.json"):
        path.unlink()
    total = [100, 50, 10, 1, 0]
    rows = [
        make.row("CE", None, "classifier", [100, 40, 1, 0, 0], total=total),
        make.row("LWS", None, "classifier", [80, 40, 5, 1, 0], total=total),
    ]
    make.stage(run, "x", make.result(rows))

    write_report(run, class_names=NAMES)

    text = (run / "report.md").read_text()
    assert "| Few <= 20 | Class mean | +/- | All |" in text
    assert "| CE | 90.0 | 10.0 | 0.0 | 47.5 | 12.83 | 87.6 |" in text
    assert "| LWS | 80.0 | 50.0 | 100.0 | 77.5 | 13.29 | 78.3 |" in text
    assert "A class has 1 to 100 of them, so compare by Class mean" in text
    assert "LWS is the best on test, by more than one standard error (13.29)" in text
    assert "test has images of 4 of 5 classes" in text
    assert "without images: elk" in text


def test_a_validation_split_that_lacks_classes_is_said(run):
    write_report(run, class_names=NAMES, split_counts={"val": [0, 1, 0, 2, 3]})

    text = (run / "report.md").read_text()
    assert "val has images of 3 of 5 classes, and accuracy on it is of those alone" in text
    assert "without images: ant and cat." in text


EVIL = "a|b <img src=x onerror=alert(1)>\n\n# `h` \x1b[2J$x_y$ \udcff"


def test_names_that_mean_something_elsewhere_are_names_in_every_part_of_a_report(run, make, drawn):
    row = make.row(EVIL, None, EVIL, [1] * 5, split=EVIL)
    lines = [make.train_line(1, 1.0), make.evaluation_line(2, 1.0) | {"split": EVIL}]
    lines[0]["losses"] = {EVIL: 1.0}
    lines[0]["accuracy"] = {EVIL: {"overall": 1.0}}
    content = make.result([row], seconds={EVIL: 1.0})
    make.stage(run, "x | $y$ # <b>", content, lines)
    make.stage(run, "3-distill | <b>", None, lines)
    damage = {"split": EVIL, "sample": 3, "file": EVIL, "reason": EVIL, "replaced_by": 4}
    (run / "damaged-images-0.jsonl").write_text(json.dumps(damage) + "\n")

    report, problems = write_report(
        run, class_names=[*NAMES[:4], EVIL], split_counts={EVIL: [0, 1, 1, 1, 1]}
    )

    assert problems == []
    assert report["classes"][4] == strict_json(run / "report.json")["classes"][4] == EVIL
    markdown = MarkdownIt("commonmark").enable("table")
    tokens = markdown.parse((run / "report.md").read_text())
    inline = [child for token in tokens for child in token.children or []]
    kinds = {token.type for token in inline}
    assert kinds == {"text", "code_inline", "image"}
    assert [token.content for token in inline if token.type == "code_inline"] == ["report.json"] * 2
    assert "html_block" not in {token.type for token in tokens}
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h1", "h2", "h2"]
    shown = "".join(token.content for token in inline)
    assert shown.count(for_terminal(EVIL)) == 5
    columns = {
        sum(token.type in ("td_open", "th_open") for token in row) for row in _rows_of(tokens)
    }
    assert columns == {6, 12}


def _rows_of(tokens):
    starts = [index for index, token in enumerate(tokens) if token.type == "tr_open"]
    ends = [index for index, token in enumerate(tokens) if token.type == "tr_close"]
    return [tokens[start:end] for start, end in zip(starts, ends, strict=True)]


def test_names_of_another_dataset_are_a_data_error(run):
    with pytest.raises(DataError, match="4 class names for results on 5 classes"):
        write_report(run, class_names=NAMES[:4])


def test_a_report_without_results_leaves_the_earlier_one(run):
    write_report(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (run / "ce" / "result.json").write_text("{\n")

    with pytest.raises(DataError, match=r"ce/result\.json"):
        write_report(run)

    before[run / "ce" / "result.json"] = b"{\n"
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_damaged_metrics_and_lists_cost_their_curves_and_no_numbers(run, drawn):
    (run / "ce" / "metrics.jsonl").write_text("{\n")
    (run / "damaged-images-0.jsonl").write_text("[]\n")

    report, problems = write_report(run)

    assert len(report["rows"]) == 5
    assert strict_json(run / "report.json") == report
    assert [error.exit_code for error in problems] == [3, 3]
    assert "damaged-images-0.jsonl, line 1" in str(problems[0])
    assert "metrics.jsonl, line 1" in str(problems[1])
    assert "figures/learning_curves.png" in (run / "report.md").read_text()


def test_a_picture_that_cannot_be_drawn_costs_nothing_else(run, drawn, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no glyphs")

    monkeypatch.setattr(figures, "learning_curves", fail)

    report, problems = write_report(run)

    assert strict_json(run / "report.json") == report
    text = (run / "report.md").read_text()
    assert "learning_curves" not in text
    assert "figures/class_histogram.png" in text
    assert [error.exit_code for error in problems] == [1]
    assert "learning_curves.png could not be drawn (RuntimeError: no glyphs)" in str(problems[0])
    assert not list(run.rglob("*partial*"))
