import dataclasses
import json
import shutil

import numpy as np
import pytest

from fastssd.data.class_names import read_class_map
from fastssd.data.device_images import DeviceImages
from fastssd.evaluation import figures, report
from fastssd.evaluation.__main__ import main

METHODS = (
    "methods=[ce, lws, crt, tau_norm, ncm, la_posthoc, balanced_softmax, ldam_drw, ssd]",
    "ldam_drw.model.class_weights.from=0.5",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory, arguments, elsewhere):
    output = tmp_path_factory.mktemp("alone") / "run"
    codes, printed = elsewhere(arguments(output, *METHODS, "log.trace=false"))
    assert codes == [0], printed
    return output


def measured(tmp_path, here, *command):
    del here  # leaves Accelerate as it was
    code = main([*map(str, command), "--json", str(tmp_path / "rows.json")])
    assert code == 0
    return json.loads((tmp_path / "rows.json").read_text())["rows"]


def test_a_run_is_measured_again_with_the_same_rows(tmp_path, here, run, digits):
    rows = measured(tmp_path, here, run, digits)

    assert rows == json.loads((run / "report.json").read_text())["rows"]
    assert {row["checkpoint"] for row in rows} == {"last", "best"}


def test_one_file_of_weights_is_measured_alone_on_another_split(tmp_path, here, run, digits):
    file = run / "ce" / "best.safetensors"

    rows = measured(tmp_path, here, file, digits, "--split", "val")

    assert [(row["name"], row["checkpoint"], row["split"]) for row in rows] == [
        ("CE", "best", "val")
    ]


def test_images_that_the_run_kept_on_the_device_are_measured_there(
    tmp_path, here, arguments, digits, monkeypatch
):
    resized = ("augment.test=center", "data.device_images=always", "methods=[ce]")
    run = tmp_path / "run"
    assert here(arguments(run, *resized, "log.trace=false")) == 0
    gathered = []
    gather = DeviceImages.gather
    monkeypatch.setattr(
        DeviceImages, "gather", lambda self, *rest: gathered.append(1) or gather(self, *rest)
    )

    rows = measured(tmp_path, here, run, digits)

    assert gathered
    assert rows == json.loads((run / "report.json").read_text())["rows"]


def test_a_path_that_is_no_run_is_said_with_2(tmp_path, digits, capsys):
    assert main([str(tmp_path), str(digits)]) == 2
    assert "config.yaml" in capsys.readouterr().err


def test_a_run_without_a_finished_stage_is_said_with_3(tmp_path, here, run, digits, capsys):
    shutil.copy(run / "config.yaml", tmp_path / "config.yaml")

    assert main([str(tmp_path), str(digits)]) == 3

    assert "no weights of a finished stage" in capsys.readouterr().err


def test_a_report_that_fails_costs_nothing_and_is_made_again(
    tmp_path, here, arguments, run, monkeypatch, capsys
):
    monkeypatch.setattr(figures, "_DPI", 20)
    output = shutil.copytree(run, tmp_path / "it's a run")
    expected = (output / "report.json").read_text()
    (output / "report.json").unlink()
    weights = {path: path.read_bytes() for path in output.rglob("*.safetensors")}
    again = f"python -m fastssd.evaluation '{tmp_path}/it'\"'\"'s a run' --report"

    with monkeypatch.context() as patch:
        patch.setattr(report, "build_report", lambda *args, **kwargs: 1 / 0)
        code = here(arguments(output, *METHODS, "log.trace=false"))

    assert code == 1
    status = json.loads((output / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 1)
    for said in (status["error"], capsys.readouterr().err):
        assert "the report could not be made (ZeroDivisionError" in said
        assert again in said
    assert {path: path.read_bytes() for path in output.rglob("*.safetensors")} == weights
    with monkeypatch.context() as patch:
        patch.setattr(figures, "class_histogram", lambda *args: 1 / 0)
        assert main([str(output), "--report"]) == 1
    assert "class_histogram.png could not be drawn (ZeroDivisionError" in capsys.readouterr().err
    assert (output / "report.json").read_text() == expected
    assert main([str(output), "--report"]) == 0
    assert "| LWS" in (output / "report.md").read_text()
    assert "one standard error (" in capsys.readouterr().out


def test_a_report_of_a_run_on_another_dataset_is_refused(tmp_path, run, digits, capsys):
    other = shutil.copytree(digits, tmp_path / "other")
    meta = json.loads((other / "meta.json").read_text())
    meta["splits"]["train"]["per_class"][0] += 1
    del meta["sha256"]
    (other / "meta.json").write_text(json.dumps(meta))

    assert main([str(run), str(other), "--report"]) == 3
    assert "another dataset" in capsys.readouterr().err


def test_a_report_of_a_run_on_other_images_of_as_many_a_class_is_refused(tmp_path, run, capsys):
    from fastssd.data.convert import convert
    from fastssd.data.sources.sources import open_source

    same = {"imbalance": 8, "max_per_class": 40, "val_per_class": 3}
    convert(open_source("digits"), tmp_path / "other", seed=1, **same)

    assert main([str(run), str(tmp_path / "other"), "--report"]) == 3
    assert "another dataset" in capsys.readouterr().err


@pytest.fixture
def dataset_of(tmp_path):
    """Return what makes the digits of some classes, in an order and under names of our choice."""
    from fastssd.data.convert import convert
    from fastssd.data.sources.digits import DigitsSplit
    from fastssd.data.sources.sources import open_source

    def make(names_by_digit):
        source = open_source("digits")
        new_label = np.full(10, -1)
        new_label[list(names_by_digit)] = np.arange(len(names_by_digit))
        splits = {}
        for name, split in source.splits.items():
            rows = np.flatnonzero(new_label[split.labels] >= 0)
            names = [split.names[row] for row in rows]
            splits[name] = DigitsSplit(new_label[split.labels[rows]], names, split.pixels[rows])
        classes = tuple(names_by_digit.values())
        out = tmp_path / "named"
        convert(dataclasses.replace(source, classes=classes, splits=splits), out)
        return out

    return make


def counts_of(rows):
    return [(row["name"], row["checkpoint"], row["overall"], row["per_class"]) for row in rows]


def test_classes_in_another_order_are_matched_by_name(tmp_path, here, run, dataset_of, capsys):
    data = dataset_of({digit: str(digit) for digit in (3, 1, 4, 5, 9, 2, 6, 8, 7, 0)})

    rows = measured(tmp_path, here, run, data)

    assert counts_of(rows) == counts_of(json.loads((run / "report.json").read_text())["rows"])
    assert json.loads((tmp_path / "rows.json").read_text())["classes"] == list("0123456789")
    printed = " ".join(capsys.readouterr().out.split())
    assert "matched with the run's by name" in printed
    assert "not the dataset that the run was trained on" in printed


def test_classes_of_other_names_are_refused_with_both_lists_or_mapped_by_a_file(
    tmp_path, here, run, dataset_of, capsys
):
    names = {digit: str(digit) for digit in range(10)} | {7: "seven", 2: "two, or so"}
    data = dataset_of(names)

    assert main([str(run), str(data)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "only the dataset has 'two, or so', 'seven'; only the run has '2', '7'" in error
    assert "--class-map" in error

    (tmp_path / "map.csv").write_text('seven,7\n"two, or so",2\n')
    (tmp_path / "map.json").write_text('{"seven": "7", "two, or so": "2"}')
    assert read_class_map(tmp_path / "map.csv") == read_class_map(tmp_path / "map.json")
    rows = measured(tmp_path, here, run, data, "--class-map", tmp_path / "map.csv")
    assert counts_of(rows) == counts_of(json.loads((run / "report.json").read_text())["rows"])


def test_a_part_of_the_classes_is_measured_among_all(tmp_path, here, run, dataset_of, capsys):
    data = dataset_of({8: "8", 0: "0", 3: "3"})

    rows = measured(tmp_path, here, run, data)

    for row, whole in zip(rows, json.loads((run / "report.json").read_text())["rows"], strict=True):
        for label in range(10):
            expected = whole["per_class"][label] if label in (0, 3, 8) else None
            assert row["per_class"][label] == expected
    assert "3 of the run's 10 classes" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("map.csv", "seven,7,8\n", "entry 1 is not two names"),
        ("map.csv", "a,1\na,2\n", "'a' is mapped twice"),
        ("map.csv", "", "maps no name"),
        ("map.json", '{"a": "1", "a": "2"}', "'a' is mapped twice"),
        ("map.json", '{"a": 1}', "entry 1 is not two names"),
        ("map.json", '["ab"]', "entry 1 is not two names"),
        ("map.json", "3", "can't be read"),
        ("map.json", "{", "can't be read"),
        ("map.csv", b"\xff\xfe", "can't be read"),
        ("map.csv", None, "can't be read"),
        ("map.csv", "nobody,1\n", "names that the dataset has not: 'nobody'"),
    ],
)
def test_a_class_map_that_cannot_be_is_refused(
    tmp_path, here, run, digits, capsys, name, content, problem
):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    assert main([str(run), str(digits), "--class-map", str(tmp_path / name)]) == 2

    assert problem in capsys.readouterr().err


def test_a_run_that_does_not_say_its_classes_is_measured_with_a_warning(
    tmp_path, here, run, digits, capsys
):
    shutil.copytree(run, tmp_path / "old")
    for path in (tmp_path / "old").glob("*/stage.json"):
        path.unlink()

    measured(tmp_path, here, tmp_path / "old", digits)

    assert "does not say which classes" in " ".join(capsys.readouterr().out.split())


def test_a_file_of_rows_that_cannot_be_written_is_said_with_3(tmp_path, here, run, digits, capsys):
    file = run / "ce" / "weights.safetensors"
    assert main([str(file), str(digits), "--json", str(tmp_path / "nowhere/rows.json")]) == 3
    assert "rows.json cannot be written" in capsys.readouterr().err
