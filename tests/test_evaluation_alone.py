import json
import shutil

import pytest

from fastssd.data.device_images import DeviceImages
from fastssd.evaluation import figures, report
from fastssd.evaluation.__main__ import main


@pytest.fixture(scope="module")
def run(tmp_path_factory, arguments, elsewhere):
    output = tmp_path_factory.mktemp("alone") / "run"
    codes, printed = elsewhere(arguments(output, "stages=[I,II]", "log.trace=false"))
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
    file = run / "1-features" / "best.safetensors"

    rows = measured(tmp_path, here, file, digits, "--split", "val")

    assert [(row["name"], row["checkpoint"], row["split"]) for row in rows] == [
        ("SSD I", "best", "val")
    ]


def test_images_that_the_run_kept_on_the_device_are_measured_there(
    tmp_path, here, arguments, digits, monkeypatch
):
    resized = ("augment.test=center", "data.device_images=always", "stages=[I]", "baselines=[]")
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
        code = here(arguments(output, "stages=[I,II]", "log.trace=false"))

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
    assert "| SSD II" in (output / "report.md").read_text()
    assert "one standard error (" in capsys.readouterr().out


def test_a_report_of_a_run_on_another_dataset_is_refused(tmp_path, run, digits, capsys):
    other = shutil.copytree(digits, tmp_path / "other")
    meta = json.loads((other / "meta.json").read_text())
    meta["splits"]["train"]["per_class"][0] += 1
    del meta["sha256"]
    (other / "meta.json").write_text(json.dumps(meta))

    assert main([str(run), str(other), "--report"]) == 3
    assert "other training images" in capsys.readouterr().err
