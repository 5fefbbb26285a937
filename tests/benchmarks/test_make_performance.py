"""The page of the benchmarks: all that was measured, losses first, and nothing out of contract."""

import json

import pytest
from make_performance import ahead, contract_problem, main, read_results


def row(name, value, ratio=1.0, against=None, **more):
    common = {"unit": "images/s", "spread": [value, value], "section": "", "note": ""}
    common |= {"name": name, "value": value, "ratio": ratio, "against": against or name}
    return common | more


def result(*rows):
    environment = {"cpu": "A processor", "cores": 2, "device": "cpu", "versions": {"torch": "9.9"}}
    return {"environment": environment, "description": "A trial", "rows": list(rows)}


TARGET = {"against": "FFCV", "reached": 3.0, "at_least": 2.5, "met": True}
GOOD = result(row("fastssd", 30, 3.0, "FFCV", targets=[TARGET]), row("FFCV", 10, note="as it is"))
BAD = result(
    row("fastssd", 5, 0.5, "DALI", targets=[TARGET | {"against": "DALI", "met": False}]),
    row("DALI", 10),
)


def made(folder, **results):
    files = folder / "performance"
    files.mkdir()
    for name, content in results.items():
        (files / f"{name}.json").write_text(json.dumps(content))
    page = folder / "performance.md"
    assert main(["--results", str(files), "--page", str(page)]) == 0
    return page.read_text()


def test_every_row_version_and_figure_stands_on_the_page(tmp_path):
    page = made(tmp_path, loader=GOOD)

    assert "| **fastssd** | 30 | 30 to 30 | images/s | 3.00 | FFCV |" in page
    assert "| FFCV | 10 | 10 to 10 | images/s |  |  |" in page
    assert "- FFCV: as it is." in page
    assert "A processor" in page
    assert "torch 9.9" in page
    assert "(performance/loader.svg)" in page
    assert (tmp_path / "performance" / "loader.svg").is_file()


def test_a_page_without_losses_says_so(tmp_path):
    assert "all ratios are above 1 and all targets met" in made(tmp_path, loader=GOOD)


def test_losses_and_missed_targets_stand_first(tmp_path):
    page = made(tmp_path, loader=GOOD, views=BAD)

    behind = page.split("## Where fastssd is behind")[1].split("## loader")[0]
    assert "fastssd against DALI: 3, where the target is at least 2.5" in behind
    assert "fastssd: 0.50 times DALI" in behind
    assert "DALI: better than fastssd" in behind
    assert "**missed**" in page


def test_the_order_is_that_of_make_bench_whatever_the_files_are_called(tmp_path):
    page = made(tmp_path, another=GOOD, views=GOOD, loader=GOOD)

    places = [page.index(f"\n## {name}\n") for name in ("loader", "views", "another")]
    assert places == sorted(places)


def test_the_same_results_make_the_same_page_and_figures(tmp_path):
    pages = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        page = made(tmp_path / name, loader=BAD)
        pages.append((page, (tmp_path / name / "performance" / "loader.svg").read_bytes()))

    assert pages[0] == pages[1]


def test_a_peer_is_ahead_only_if_it_beats_all_of_ours_in_the_right_direction():
    rows = [row("fastssd a", 1), row("fastssd b", 3), row("peer", 2)]

    assert [peer["name"] for peer, _ in ahead(result(*rows))] == []
    lower = [each | {"higher_is_better": False, "unit": "s"} for each in rows]
    lower[0]["value"] = 2.5
    assert [peer["name"] for peer, _ in ahead(result(*lower))] == ["peer"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], "no environment"),
        ({"environment": {}, "rows": []}, "no rows"),
        (result(row("FFCV", 1)), "starts with fastssd"),
        (result(row("fastssd", 1), row("fastssd", 2)), "names of their own"),
        (result(row("fastssd", None)), "lacks a value"),
        (result(row("fastssd", 1, unit=None)), "lacks its unit"),
        (result(row("fastssd", 1, spread=[1])), "lacks a value or its spread"),
        (result(row("fastssd", 1, None)), "lacks its ratio"),
        (result(row("fastssd", 1, 2.0, "gone")), "which is no row"),
    ],
)
def test_a_file_out_of_contract_is_refused(tmp_path, content, problem):
    assert problem in contract_problem(content)
    (tmp_path / "loader.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=problem):
        read_results(tmp_path)


def test_without_results_there_is_no_page(tmp_path):
    with pytest.raises(SystemExit, match="no results"):
        main(["--results", str(tmp_path), "--page", str(tmp_path / "page.md")])
