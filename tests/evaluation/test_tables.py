import pytest

from fastssd.evaluation.tables import (
    aligned,
    evaluated_on,
    in_paper_order,
    lacking,
    paper_table,
    percent,
    row_labels,
    table_notes,
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
        "class_mean": 33.333,
        "class_mean_standard_error": 2.5,
        "images_per_class": [36, 36],
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


UNBALANCED = {"images_per_class": [1, 240], "class_mean": 20.0, "class_mean_standard_error": 4.25}


def test_the_papers_columns_are_many_medium_few_all():
    header, cells = paper_table([row("CE")])

    assert header == ["Method", "Many", "Medium", "Few", "All", "+/-", "Class mean", "Checkpoint"]
    assert cells == [["CE", "50.0", "25.0", "-", "33.3", "2.48", "33.3", "last"]]


def test_on_an_unbalanced_split_the_class_mean_is_the_headline_with_its_own_error():
    header, cells = paper_table([row("CE", **UNBALANCED)])

    assert header[4:7] == ["Class mean", "+/-", "All"]
    assert cells == [["CE", "50.0", "25.0", "-", "20.0", "4.25", "33.3", "last"]]
    assert "1 to 240 of them, so compare by Class mean" in " ".join(
        table_notes([row("CE", **UNBALANCED)])
    )


def standings(*values, **changes):
    names = ["CE", "LWS", "SSD II", "SSD IV"]
    rows = [
        row(name, overall=value, class_mean=value, **changes)
        for name, value in zip(names, values, strict=False)
    ]
    return table_notes(rows)[3:]


def test_rows_within_one_standard_error_of_the_best_are_named():
    assert standings(60.0, 63.0, 62.6, 65.0) == [
        "LWS and SSD II are within one standard error (2.48) of the best on test, SSD IV."
    ]
    assert standings(60.0, 61.0, 62.0, 65.0, class_mean_standard_error=4.0) == [
        "SSD IV is the best on test, by more than one standard error (2.48)."
    ]
    assert standings(60.0) == []


def test_a_best_checkpoint_does_not_stand_beside_its_own_last_one():
    rows = [row("CE", overall=60.0), row("CE", overall=61.0, checkpoint="best")]

    assert table_notes(rows)[3:] == []
    assert table_notes([*rows, row("LWS", overall=61.0)])[3:] == [
        "CE (last) is within one standard error (2.48) of the best on test, LWS."
    ]


def test_on_an_unbalanced_split_the_class_mean_and_its_error_say_who_is_near():
    changes = {"images_per_class": [1, 9], "class_mean_standard_error": 4.0}

    assert standings(61.5, 60.0, 62.0, 65.0, **changes) == [
        "CE and SSD II are within one standard error (4.00) of the best on test, SSD IV."
    ]


def test_each_split_has_its_own_best_and_long_lists_are_cut():
    rows = [row("CE", split="val"), *(row(f"method {index}") for index in range(12))]

    assert table_notes(rows)[3:] == [
        "method 1, method 2, method 3, method 4, method 5, method 6, method 7, method 8 and "
        "3 more are within one standard error (2.48) of the best on test, method 0."
    ]


def test_what_is_said_of_a_split_that_lacks_classes():
    names = [f"c{label}" for label in range(81)]
    counts = [2] * 21 + [0] * 60

    assert lacking("val", counts, names) == (
        "val has images of 21 of 81 classes, and accuracy on it is of those alone; without "
        "images: c21, c22, c23, c24, c25, c26, c27, c28 and 52 more"
    )
    assert lacking("val", [1, 1], ["a", "b"]) is None


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
