"""Every benchmark of the loader runs as a script on little data and writes what it shall."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from make_performance import contract_problem
from photographs import photographs
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FFCV = pytest.mark.skipif(find_spec("ffcv") is None, reason="ffcv is not installed")


def run(tmp_path, name, *arguments):
    """Run a benchmark as a person does and return its JSON."""
    file = tmp_path / f"{name}.json"
    command = [sys.executable, f"benchmarks/{name}.py", "--quick", "--repeats", "1"]
    done = subprocess.run(
        [*command, "--json", str(file), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten photographs as a person has them: JPEG of two kinds in folders, a PNG, a greyscale."""
    root = tmp_path_factory.mktemp("photographs")
    for number, photograph in enumerate(photographs(None, count=8)):
        file = root / f"{number % 2}" / f"{number}.JPEG"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(photograph.content)
    pixels = photographs(None, count=1)[0].pixels()
    Image.fromarray(pixels).save(root / "a.png")
    Image.fromarray(pixels[:, :, 0]).save(root / "grey.jpg")
    return root


@pytest.mark.kernels
@FFCV
@pytest.mark.slow
def test_the_loader_is_measured_beside_its_peers(tmp_path, folder):
    result = run(tmp_path, "loader", "--only", "photographs", "--data", str(folder))

    assert contract_problem(result) == ""
    names = {row["name"].split(",")[0] for row in result["rows"]}
    assert {"fastssd torchvision", "FFCV Loader", "torchvision.io DataLoader"} <= names
    assert result["environment"]["photographs"] == 8  # of ten; the greyscale one is none


@pytest.mark.kernels
@pytest.mark.parametrize("part", ["cifar", "memory"])
def test_the_loader_is_measured_alone(tmp_path, part):
    result = run(tmp_path, "loader", "--only", part, "--alone")

    assert contract_problem(result) == ""
    assert all(row["name"].startswith("fastssd") for row in result["rows"])
    assert all(row["value"] > 0 for row in result["rows"] if row["unit"] == "images/s")


@pytest.mark.kernels
def test_one_visit_is_measured_beside_two(tmp_path):
    result = run(tmp_path, "views", "--alone")

    assert contract_problem(result) == ""
    (visits,) = result["rows"][0]["targets"]
    assert visits["at_most"] == 0.85


@pytest.mark.kernels
def test_samplers_are_measured_through_the_loader_and_alone(tmp_path):
    result = run(tmp_path, "samplers")

    assert contract_problem(result) == ""
    assert {row["unit"] for row in result["rows"]} == {"images/s", "s", "MB"}


@pytest.mark.kernels
def test_datasets_larger_than_memory_are_read_by_a_process_of_their_own(tmp_path):
    result = run(tmp_path, "larger_than_memory", "--alone")

    assert contract_problem(result) == ""
    assert result["environment"]["different"] < result["environment"]["photographs"]


def test_epochs_are_predicted_from_given_rates_by_plain_arithmetic(tmp_path):
    machine = ("--cores", "9", "--gpus", "1", "--step", "1000", "--decode", "100")

    rows = {row["name"]: row for row in run(tmp_path, "epoch_time", *machine)["rows"]}

    # Eight cores decode 800 images a second, fewer than the GPU trains of either dataset.
    inat = rows["fastssd, iNaturalist 2018, 1 x your GPU, 9 cores, predicted epoch"]
    assert inat["value"] == pytest.approx(437_513 / 800 / 60, rel=1e-5)
    assert inat["note"].startswith("bound by decoding")
    cores = rows["fastssd, your GPU, ImageNet-LT (ResNeXt-50), cores a GPU needs"]
    assert cores["value"] == pytest.approx(8.2)


def test_synthetic_photographs_are_the_same_each_time_and_of_both_kinds():
    first, second = photographs(None, count=5), photographs(None, count=5)

    assert [each.content for each in first] == [each.content for each in second]
    assert {each.subsampling for each in first} == {"4:4:4", "4:2:0"}
    assert np.array_equal(first[0].pixels().shape, (first[0].height, first[0].width, 3))


def test_a_folder_without_photographs_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no photographs"):
        photographs(tmp_path)
