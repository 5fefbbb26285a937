import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fastssd.errors import ConfigError
from fastssd.runtime.launchers import check_passed_on, overridden, passed_on


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


def test_a_launcher_that_is_told_to_end_leaves_no_training_behind(
    tmp_path, arguments, project, launch_environment
):
    output = tmp_path / "run"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--quiet"]
    command += ["--num_processes", "1", "--num_machines", "1"]
    command += [str(project / "fastssd/train.py"), *arguments(output, "features.epochs=100000")]
    launcher = subprocess.Popen(
        command, env=launch_environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoint = output / "1-features" / "checkpoint.safetensors"
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
