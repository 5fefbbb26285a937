"""What the benchmarks share: turns, medians, ratios, targets, the JSON's contract."""

import json
import statistics
import xml.etree.ElementTree as ET

import pytest
from harness import (
    Benchmark,
    Case,
    Target,
    environment,
    interleaved,
    judged,
    quartiles,
    rows_of,
    times_better,
)


def options_of(benchmark, *arguments):
    return benchmark.parser().parse_args(list(arguments))


def test_cases_take_turns_and_the_warm_up_is_not_kept():
    ran = []

    def case(name):
        def run():
            ran.append(name)
            return float(len(ran))

        return Case(name, run)

    values = interleaved([case("fastssd"), case("FFCV")], repeats=2, warmup=1)

    assert ran == ["fastssd", "FFCV"] * 3
    assert values == {"fastssd": [3.0, 5.0], "FFCV": [4.0, 6.0]}


def test_two_cases_of_one_name_are_refused():
    with pytest.raises(ValueError, match="one name"):
        interleaved([Case("a", float), Case("a", float)], repeats=1)


@pytest.mark.parametrize(("higher", "expected"), [(True, 0.25), (False, 4.0)])
def test_a_ratio_above_one_is_better_whatever_the_unit(higher, expected):
    values = {"fastssd": [1.0, 9.0, 2.0], "peer": [8.0, 8.0, 8.0]}

    ours, peer = rows_of(values, unit="x", against="peer", higher_is_better=higher)

    assert (ours.value, ours.spread) == (2.0, (1.5, 5.5))
    assert (ours.ratio, ours.against) == (expected, "peer")
    assert (peer.ratio, peer.against) == (None, None)


def test_names_of_sections_keep_rows_apart():
    rows = [
        row
        for section in ("one", "two")
        for row in rows_of({"fastssd": [1.0], "p": [1.0]}, unit="s", against="p", section=section)
    ]

    assert [row.name for row in rows] == ["fastssd, one", "p, one", "fastssd, two", "p, two"]
    assert rows[2].against == "p, two"


def test_quartiles_are_those_of_the_statistics_module():
    values = [5.0, 1.0, 4.0, 2.0, 9.0]

    first, _, third = statistics.quantiles(values, n=4, method="inclusive")

    assert quartiles(values) == (first, third)
    assert quartiles([3.0]) == (3.0, 3.0)


def test_nothing_is_times_better_than_a_value_of_zero():
    assert times_better(3.0, 0.0) is None


@pytest.mark.parametrize(
    ("target", "reached", "met"),
    [
        (Target("fastssd", "peer", at_least=2.5), 3.0, True),
        (Target("fastssd", "peer", at_least=3.5), 3.0, False),
        (Target("fastssd", at_most=6), 6.0, True),
        (Target("fastssd", at_least=7), 6.0, False),
        (Target("peer", "fastssd", at_most=0.4), 1 / 3, True),
    ],
)
def test_targets_are_judged_by_ratio_share_or_value(target, reached, met):
    rows = judged(rows_of({"fastssd": [6.0], "peer": [2.0]}, unit="images/s"), [target])

    (verdict,) = next(row for row in rows if row.name == target.name).extra["targets"]
    assert verdict["reached"] == pytest.approx(reached, rel=1e-5)
    assert verdict["met"] is met


def test_the_target_of_a_rate_in_seconds_counts_less_as_better():
    rows = rows_of({"fastssd": [2.0], "peer": [6.0]}, unit="s", higher_is_better=False)

    ours, _ = judged(rows, [Target("fastssd", "peer", at_least=3)])

    assert ours.extra["targets"] == [
        {"against": "peer", "reached": 3.0, "at_least": 3, "met": True}
    ]


def test_a_target_against_a_peer_that_is_not_installed_is_left_out():
    (row,) = judged(rows_of({"fastssd": [1.0]}, unit="s"), [Target("fastssd", "gone", at_least=1)])

    assert "targets" not in row.extra


def test_a_result_is_printed_written_and_drawn(tmp_path, capsys):
    benchmark = Benchmark("trial", "A trial")
    file, figure = tmp_path / "deep" / "trial.json", tmp_path / "trial.svg"
    options = options_of(benchmark, "--json", str(file), "--figure", str(figure), "--quick")
    values = {"fastssd": [10.0, 12.0, 11.0], "FFCV": [4.0, 4.0, 5.0]}
    rows = rows_of(values, unit="images/s", against="FFCV", section="all", notes={"FFCV": "slow"})
    rows = judged(rows, [Target("fastssd", "FFCV", at_least=5, section="all")])

    assert benchmark.finish(rows, options, {"all": "Everything."}, images=7) == 0

    shown = capsys.readouterr().out
    assert "2.75" in shown
    assert "MISSED: fastssd, all" in shown
    result = json.loads(file.read_text())
    assert result["environment"]["images"] == 7
    assert result["environment"]["quick"] is True
    assert {"cpu", "cores", "device", "versions"} <= result["environment"].keys()
    ours = result["rows"][0]
    assert ours["name"] == "fastssd, all"
    assert (ours["value"], ours["spread"], ours["ratio"]) == (11.0, [10.5, 11.5], 2.75)
    assert (ours["unit"], ours["against"]) == ("images/s", "FFCV, all")
    peer = result["rows"][1]
    assert (peer["ratio"], peer["against"]) == (1.0, peer["name"])
    ET.parse(figure)


def test_rows_of_one_name_are_not_written(tmp_path):
    benchmark = Benchmark("trial", "A trial")
    rows = rows_of({"fastssd": [1.0]}, unit="s") * 2

    with pytest.raises(ValueError, match="one name"):
        benchmark.finish(rows, options_of(benchmark))


def test_the_environment_has_no_date():
    assert environment() == environment()
    assert not {"date", "time"} & environment().keys()
