import pytest

from fastssd.evaluation.tables import (
    aligned,
    evaluated_on,
    in_paper_order,
    paper_table,
    percent,
    row_labels,
)


def row(name, **changes):
    return {
        "name": name,
        "head": "classifier",
        "split": "test",
        "checkpoint": "last",
        "num_images": 360,
        "many": 50.0,
        "medium": 25.04,
        "few": None,
        "overall": 33.333,
        "standard_error": 2.4845,
    } | changes


def test_rows_come_as_in_the_paper_and_unknown_names_after():
    names = ["PaCo", "SSD IV", "SSD III-soft", "CE", "BCL", "SSD III-hard", "LWS", "SSD I"]

    ordered = [row["name"] for row in in_paper_order([row(name) for name in names])]

    assert ordered == [
        "CE", "LWS", "SSD I", "SSD III-hard", "SSD III-soft", "SSD IV", "PaCo", "BCL",
    ]  # fmt: skip


def test_the_last_checkpoint_comes_before_the_best_and_test_before_other_splits():
    rows = [row("CE", split="val"), row("CE", checkpoint="best"), row("CE"), row("SSD I")]

    ordered = in_paper_order(rows)

    assert [(r["name"], r["checkpoint"], r["split"]) for r in ordered] == [
        ("CE", "last", "test"),
        ("CE", "best", "test"),
        ("SSD I", "last", "test"),
        ("CE", "last", "val"),
    ]


def test_a_label_says_what_tells_a_row_from_its_namesakes_and_no_more():
    rows = [
        row("CE"),
        row("SSD IV"),
        row("SSD IV", checkpoint="best"),
        row("PaCo", head="hard"),
        row("PaCo", head="soft"),
        row("PaCo", head="soft", split="val"),
    ]

    assert row_labels(rows) == [
        "CE",
        "SSD IV (last)",
        "SSD IV (best)",
        "PaCo (hard)",
        "PaCo (soft, test)",
        "PaCo (soft, val)",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (12.345, "12.3"), (float("nan"), "nan"), (100.0, "100.0")]
)
def test_percentages_have_one_digit(value, text):
    assert percent(value) == text


def test_the_papers_columns_are_many_medium_few_all():
    header, cells = paper_table([row("CE")])

    assert header[:5] == ["Method", "Many", "Medium", "Few", "All"]
    assert cells == [["CE", "50.0", "25.0", "-", "33.3", "2.48", "last"]]


def test_each_test_set_size_is_said_once():
    rows = [row("CE"), row("LWS"), row("SSD I", split="val", num_images=1000)]

    assert evaluated_on(rows) == "360 test images and 1,000 val images"


def test_columns_of_a_plain_table_line_up():
    lines = aligned(["Method", "All"], [["CE", "5.0"], ["SSD III-hard", "100.0"]])

    assert lines == [
        "Method          All",
        "-------------------",
        "CE              5.0",
        "SSD III-hard  100.0",
    ]
