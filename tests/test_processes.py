"""Runs of several processes, and the ways to start them."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDERS = ("ce", "lws", "ssd-I", "ssd-II", "ssd-III", "ssd-IV")
PAIR = (
    "budgets.scratch.epochs=6",
    "budgets.scratch.batch_size=16",
    "budgets.classifier.accumulate=2",
    "ssd.III.budget={base: scratch, epochs: 2, batch_size: 32}",
    "deterministic=false",
)


def rows_of(folder: Path) -> list[dict]:
    return json.loads((folder / "result.json").read_text())["rows"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory, arguments, elsewhere, project, launch_environment) -> dict[int, Path]:
    """Return the folders of one run by one process and of the same by two under torchrun."""
    root = tmp_path_factory.mktemp("pair")
    settings = PAIR
    scripts = Path(sys.executable).parent
    launched = subprocess.run(
        [
            scripts / "torchrun",
            "--standalone",
            "--nproc_per_node=2",
            project / "fastssd/train.py",
            *arguments(root / "2", *settings),
        ],
        env=launch_environment,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert launched.returncode == 0, launched.stderr
    assert json.loads((root / "2/environment.json").read_text())["processes"] == 2
    codes, printed = elsewhere(arguments(root / "1", *settings))
    assert codes == [0], printed
    return {1: root / "1", 2: root / "2"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_two_processes_see_the_global_batches_of_one(pair, lines, folder):
    one, two = (lines(pair[number] / folder / "trace.jsonl") for number in (1, 2))
    assert [line["digest"] for line in one] == [line["digest"] for line in two]
    assert len({line["digest"] for line in one}) == len(one) > 0


def test_without_batchnorm_the_first_50_losses_of_two_processes_are_those_of_one(pair, lines):
    one, two = (lines(pair[number] / "ssd-I/trace.jsonl") for number in (1, 2))
    assert len(one) >= 50
    losses = np.array([[line["loss"] for line in run[:50]] for run in (one, two)])
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-4)
    assert np.ptp(losses[0]) > 0.1  # it learns something


def test_the_training_accuracy_of_two_processes_counts_the_images_of_both(pair, lines):
    one, two = (lines(pair[number] / "ssd-I/metrics.jsonl") for number in (1, 2))
    for left, right in zip(one[:10], two[:10], strict=True):
        assert (left["kind"], left["step"]) == (right["kind"], right["step"])
        if left["kind"] == "train":
            assert left["accuracy"] == right["accuracy"]
            assert left["losses"] == pytest.approx(right["losses"], abs=1e-4)
            assert left["lr"] == right["lr"]


@pytest.mark.parametrize("folder", ["ssd-I", "ssd-III"])
def test_equal_weights_have_equal_counts_however_many_processes_evaluate(
    pair, tmp_path, arguments, elsewhere, folder
):
    output = tmp_path / "run"
    shutil.copytree(pair[2], output)
    config = (output / "config.yaml").read_text().replace(str(pair[2]), str(output))
    (output / "config.yaml").write_text(config)
    (output / folder / "result.json").unlink()  # the stage is trained; only evaluated again

    codes, printed = elsewhere(arguments(output, *PAIR))

    assert codes == [0], printed
    assert rows_of(output / folder) == rows_of(pair[2] / folder)
    assert sum(rows_of(output / folder)[0]["total"]) == 360


def test_two_processes_stopped_in_mid_epoch_go_on_with_the_same_bits(
    tmp_path, arguments, elsewhere, lines
):
    settings = (
        "methods=[ce]",
        "model.backbone=resnet8",
        "ce.model.task={kind: instance, queue: 64, embedding: 16}",
        "log.every=100",
    )
    straight, stopped = (arguments(tmp_path / name, *settings) for name in ("straight", "stopped"))
    codes, printed = elsewhere(straight, ranks=2)
    assert codes == [0, 0], printed
    steps_per_epoch = len(lines(tmp_path / "straight/ce/trace.jsonl")) // 2

    # Only one of the two is told; they agree within a step, in the second epoch.
    codes, printed = elsewhere(
        stopped,
        ranks=2,
        at=("step", "ce", steps_per_epoch + 1),
        signal_number=signal.SIGTERM,
        rank=1,
    )
    assert codes == [143, 143], printed
    assert json.loads((tmp_path / "stopped/status.json").read_text())["exit_code"] == 143
    assert len(lines(tmp_path / "stopped/ce/trace.jsonl")) <= steps_per_epoch + 3
    codes, printed = elsewhere(stopped, ranks=2)
    assert codes == [0, 0], printed

    runs = [tmp_path / name / "ce" for name in ("straight", "stopped")]
    weights = [(run / "weights.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1]
    for file in ("metrics.jsonl", "trace.jsonl"):
        assert lines(runs[0] / file) == lines(runs[1] / file)


def test_one_of_two_processes_that_is_killed_ends_the_other_and_the_run_goes_on(
    tmp_path, arguments, elsewhere
):
    command = arguments(tmp_path / "run", "methods=[ce]")
    codes, printed = elsewhere(command, ranks=2, at=("step", "ce", 3), rank=1)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] == 1
    assert "rank 0 on" in printed[0]
    assert "lost another process" in printed[0]
    assert "Traceback" not in printed[0]
    codes, printed = elsewhere(command, ranks=2)
    assert codes == [0, 0], printed


def test_the_status_keeps_the_code_of_the_process_that_failed_first(tmp_path, arguments, elsewhere):
    data = tmp_path / "data"
    shutil.copytree(Path(arguments(tmp_path)[1].removeprefix("data.path=")), data)
    settings = ("methods=[ce]", "data.decoder=torchvision")
    script = f"""
import fastssd.data.images, fastssd.train
from fastssd.data.decode.decoder import DecodeError
from fastssd.data.decode.torchvision_decoder import TorchvisionDecoder

if rank == 1:
    def decode(self, *arguments, **options):
        raise DecodeError(0, "damaged for the test")
    TorchvisionDecoder.decode = decode
fastssd.train.main({arguments(tmp_path / "run", *settings)!r})
"""
    _, printed = elsewhere(script=script, ranks=2)

    status = json.loads((tmp_path / "run/status.json").read_text())
    assert (status["state"], status["stage"]) == ("failed", "ce")
    assert status["exit_code"] == 3
    assert "damaged for the test" in status["error"]
    assert "Traceback" not in printed[1]


def test_accelerate_launch_trains_from_any_directory_what_main_trains(
    tmp_path, arguments, elsewhere, project, launch_environment
):
    launcher = [Path(sys.executable).parent / "accelerate", "launch", project / "fastssd/train.py"]
    small = ("methods=[ce]", "budgets.scratch.epochs=1", "deterministic=false")
    launched = subprocess.run(
        [*launcher, *arguments(tmp_path / "launched", *small)],
        cwd=tmp_path,
        env=launch_environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert launched.returncode == 0, launched.stderr
    assert "CE" in launched.stdout
    assert "\x1b" not in launched.stdout  # no terminal, no control characters
    assert list((tmp_path / "launched/figures").glob("*.png"))

    codes, printed = elsewhere(arguments(tmp_path / "main", *small))
    assert codes == [0], printed
    assert rows_of(tmp_path / "launched/ce") == rows_of(tmp_path / "main/ce")


@pytest.mark.parametrize("way", ["module", "script"])
def test_a_process_ends_with_the_contracts_code_and_one_line(
    tmp_path, arguments, project, launch_environment, way
):
    start = {"module": ["-m", "fastssd.train"], "script": [project / "fastssd/train.py"]}[way]
    ended = subprocess.run(
        [sys.executable, *start, *arguments(tmp_path / "run", "budget.scratch.epochs=3")],
        cwd=tmp_path,
        env=launch_environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert "did you mean budgets" in ended.stderr
    assert not (tmp_path / "run").exists()


def test_a_launcher_whose_processes_do_not_know_each_other_is_refused(
    tmp_path, arguments, elsewhere
):
    script = f"""
import os
os.environ.update(RANK="0", WORLD_SIZE="2")
for name in ("ACCELERATE_USE_CPU", "LOCAL_RANK"):
    os.environ.pop(name, None)
assert fastssd.train.main({arguments(tmp_path / "run")!r}) == 2
"""
    codes, printed = elsewhere(script="import fastssd.train\n" + script)
    assert codes == [0], printed
    assert "ACCELERATE_USE_CPU" in printed[0]
