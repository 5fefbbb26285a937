"""The simulation of class-aware sampling on several ranks, against what can be computed."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from fastssd.data.class_index import ClassIndex

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "distributed_sampling.py"
CIFAR100_LT = [int(500 * 0.01 ** (c / 99)) for c in range(100)]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("distributed_sampling", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def index_of(counts):
    return ClassIndex(np.repeat(np.arange(len(counts)), counts), len(counts))


def means(script, way, num_ranks, num_epochs):
    index = index_of(CIFAR100_LT)
    found = [
        script.measure(index, script.WAYS[way](index, num_ranks, epoch))
        for epoch in range(num_epochs)
    ]
    return {key: np.mean([each[key] for each in found]) for key in found[0]}


@pytest.mark.parametrize(("num_ranks", "known"), [(4, 76), (8, 49)])
def test_a_class_of_five_images_reaches_half_of_eight_ranks_if_ranks_split_first(
    script, num_ranks, known
):
    # A rank has none of five images if each lies on one of the others.
    expected = 100 * (1 - (1 - 1 / num_ranks) ** 5)
    assert round(expected) == known

    found = means(script, "SSD's split", num_ranks, 40)

    # 40 epochs of 4 such classes; a class's reach has a sigma of less than 20 points.
    assert found["reach"] == pytest.approx(expected, abs=5 * 20 / np.sqrt(160))
    # It loses as much of its share, but for what ranks gain that see fewer classes.
    assert expected < found["share"] < expected + 10


@pytest.mark.parametrize("num_ranks", [1, 4, 8])
def test_cut_from_one_global_sequence_classes_are_balanced_on_any_number_of_ranks(
    script, num_ranks
):
    found = means(script, "fastssd", num_ranks, 10)

    assert found["share"] == pytest.approx(100, abs=1)
    assert found["range"] <= 100 * 2 * script.PER_CLASS / (len(index_of(CIFAR100_LT)) / 100) + 0.1


def test_copies_on_every_rank_are_fair_on_average_but_less_balanced_with_every_rank(script):
    ranges = [means(script, "OLTR's copies", num_ranks, 10)["range"] for num_ranks in (1, 4, 8)]

    assert ranges == sorted(ranges)
    assert ranges[2] > 2 * ranges[0]
    assert means(script, "OLTR's copies", 8, 10)["share"] == pytest.approx(100, abs=2)


def test_a_measure_of_two_ranks_is_what_one_counts_by_hand(script):
    index = index_of([4, 1])  # samples 0 to 3, and 4
    ranks = [np.array([0, 1, 4, 4]), np.array([2, 3, 0, 1])]

    # Class 1 is on one of two ranks, has 2 of 8 draws where 4 are fair, and 6 - 2 less.
    assert script.measure(index, ranks) == {"reach": 50.0, "share": 50.0, "range": 100.0}


def test_the_rows_follow_the_benchmarks_contract_for_folders_of_ones_own(script, tmp_path):
    for name, count in (("ant", 12), ("bee", 5)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "data" / name / f"{number}.jpg").touch()
    arguments = ["--data", str(tmp_path / "data"), "--json", str(tmp_path / "out.json")]

    assert script.main([*arguments, "--ranks", "2", "--epochs", "3"]) == 0

    report = json.loads((tmp_path / "out.json").read_text())
    assert report["environment"]["images"] == 17
    names = {row["name"] for row in report["rows"]}
    assert len(names) == 9
    for row in report["rows"]:
        assert {"name", "value", "unit", "spread", "ratio", "against"} <= row.keys()
        assert row["against"] in names
        assert row["spread"][0] <= row["value"] <= row["spread"][1]
