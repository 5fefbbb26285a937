import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fastssd.errors import ConfigError
from fastssd.recipe_file import load_recipe, to_yaml
from fastssd.runtime.launchers import check_passed_on, launch, overridden, passed_on

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "host-0",
    "MASTER_PORT": "29500",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR"),
        ("ACCELERATE_USE_FSDP", "true"),
        ("ACCELERATE_USE_DEEPSPEED", "true"),
        ("ACCELERATE_USE_MEGATRON_LM", "1"),
    ],
)
def test_a_setting_from_someones_config_file_is_refused_by_name(monkeypatch, name, value):
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=f"{name}={value}"):
        check_passed_on()
    assert passed_on()[name] == value


def test_what_accelerate_launch_always_sets_is_no_setting(monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")

    check_passed_on()

    assert overridden("no") is None
    assert "bf16 holds" in (overridden("bf16") or "")


def test_what_torchrun_sets_says_which_process_this_is():
    second = launch(TORCHRUN)
    assert (second.rank, second.num_processes, second.num_local_processes) == (3, 4, 2)
    assert second.meeting_point == "at host-0:29500"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "0"},
        {"WORLD_SIZE": "1"},
        {"MASTER_ADDR": "host-0", "MASTER_PORT": "29500"},
        {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "host-0", "MASTER_PORT": "29500"},
        {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
    ],
)
def test_a_process_of_its_own_is_the_only_one(environment):
    alone = launch(environment)
    assert (alone.rank, alone.num_processes, alone.num_local_processes) == (0, 1, 1)


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "1"},
        {"LOCAL_RANK": "0"},
        {"WORLD_SIZE": "2"},
        {"LOCAL_WORLD_SIZE": "2"},
        {"RANK": ""},
        {"RANK": "-1", "WORLD_SIZE": "2"},
        {"WORLD_SIZE": "0"},
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"},
        {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
        {"PMI_SIZE": "two"},
        *({**TORCHRUN, name: "x1"} for name in TORCHRUN if name != "MASTER_ADDR"),
        *(
            {key: value for key, value in TORCHRUN.items() if key != name}
            for name in TORCHRUN
            if not name.startswith("LOCAL")
        ),
        {**TORCHRUN, "WORLD_SIZE": "3"},
        {**TORCHRUN, "LOCAL_RANK": "2"},
        {**TORCHRUN, "LOCAL_WORLD_SIZE": "5"},
        {**TORCHRUN, "RANK": "0"},
        {**TORCHRUN, "MASTER_PORT": "65536"},
        {**TORCHRUN, "MASTER_ADDR": ""},
    ],
)
def test_variables_that_do_not_belong_together_are_one_error_that_names_one(environment):
    with pytest.raises(ConfigError) as caught:
        launch(environment)
    assert any(name in str(caught.value) for name in environment)
    assert "unset" in str(caught.value)


@pytest.mark.parametrize("command", ["train", "evaluation"])
def test_a_stale_rank_ends_a_command_with_2_before_it_touches_anything(
    tmp_path, arguments, here, digits, monkeypatch, capsys, command
):
    from fastssd.evaluation.__main__ import main as evaluate

    recipe, *rest = arguments(tmp_path / "run")
    (tmp_path / "run").mkdir()
    if command == "evaluation":
        (tmp_path / "run/config.yaml").write_text(to_yaml(load_recipe(recipe, rest)))
    before = sorted((tmp_path / "run").iterdir())
    monkeypatch.setenv("RANK", "1")

    code = (
        here([recipe, *rest]) if command == "train" else evaluate([f"{tmp_path}/run", str(digits)])
    )

    assert code == 2
    assert "RANK=1" in capsys.readouterr().err
    assert sorted((tmp_path / "run").iterdir()) == before


def test_a_launcher_that_is_told_to_end_leaves_no_training_behind(
    tmp_path, arguments, project, launch_environment
):
    output = tmp_path / "run"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--quiet"]
    command += ["--num_processes", "1", "--num_machines", "1"]
    command += [
        str(project / "fastssd/train.py"),
        *arguments(output, "budgets.scratch.epochs=100000"),
    ]
    launcher = subprocess.Popen(
        command, env=launch_environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoint = output / "ce" / "checkpoint.safetensors"
    _until(checkpoint.exists)

    launcher.send_signal(signal.SIGTERM)

    launcher.wait(timeout=60)
    _until(lambda: json.loads((output / "status.json").read_text())["state"] == "stopped")


def _until(happens, *, seconds=90):
    """Look again and again, for another process gives no other sign."""
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline
        os.sched_yield()
