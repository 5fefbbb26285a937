"""Whose a run directory is, and what its status says of it."""

import json
import subprocess
import sys

import pytest

from fastssd.config import AugmentConfig, Config, DataConfig
from fastssd.errors import ConfigError
from fastssd.recipe_file import load_config
from fastssd.runtime.run_directory import Status, claimed


def config_of(output, **changes):
    return Config(
        output=str(output),
        data=DataConfig(path="data"),
        augment=AugmentConfig(size=8),
        **changes,
    )


def test_a_claimed_directory_holds_the_config_and_no_half_written_file(tmp_path):
    output = tmp_path / "a" / "run"
    config = config_of(output)
    with claimed(output, config, write=True) as note_config:
        assert not (output / "config.yaml").exists()  # something else may yet refuse it
        note_config()
        assert load_config(output / "config.yaml") == config
        (output / "1-features").mkdir()
        (output / "1-features/weights.safetensors.partial-7").write_text("half")
        (output / "status.json.partial-7").write_text("half")
    with claimed(output, config, write=True):
        assert {path.name for path in output.rglob("*") if path.is_file()} == {
            "config.yaml",
            ".lock",
        }


def test_what_may_change_may_and_the_rest_is_named(tmp_path):
    with claimed(tmp_path, config_of(tmp_path), write=True) as note_config:
        note_config()
        (tmp_path / "1-features").mkdir()
    kept = (tmp_path / "config.yaml").read_text()
    others = config_of(tmp_path, watchdog=5, compute_threads=3)
    with claimed(tmp_path, others, write=True) as note_config:
        note_config()
    assert (tmp_path / "config.yaml").read_text() == kept
    with (
        pytest.raises(ConfigError, match="seed is 0, not 1"),
        claimed(tmp_path, config_of(tmp_path, seed=1), write=False),
    ):
        raise AssertionError("not reached")


def test_a_second_run_is_kept_out_while_the_first_lives_and_no_longer(tmp_path):
    config = config_of(tmp_path)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import fcntl, os, sys; file = open({str(tmp_path / '.lock')!r}, 'w'); "
            "fcntl.flock(file, fcntl.LOCK_EX); file.write('process 7 on there'); file.flush(); "
            "print('held', flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    try:
        with (
            pytest.raises(ConfigError, match=r"another run is writing it \(process 7 on there\)"),
            claimed(tmp_path, config, write=True),
        ):
            raise AssertionError("not reached")
        with claimed(tmp_path, config, write=False):  # another process of the same run
            pass
    finally:
        holder.kill()
        holder.communicate()
    with claimed(tmp_path, config, write=True):
        pass


def test_the_first_failure_is_kept_and_a_full_disk_does_not_hide_it(tmp_path, monkeypatch, capsys):
    path = tmp_path / "status.json"
    main, other = Status(path, is_main=True), Status(path, is_main=False)
    main.running("1-features")
    other.running("1-features")
    other.ended("failed", exit_code=3, error="a damaged image")
    main.ended("failed", exit_code=1, error="lost another process")
    assert json.loads(path.read_text())["exit_code"] == 3

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastssd.core.files.os.fsync", full)
    main.ended("stopped", exit_code=143)
    assert "No space left on device" in capsys.readouterr().err
    assert json.loads(path.read_text())["exit_code"] == 3
