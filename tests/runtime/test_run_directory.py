"""Whose a run directory is, and what its status says of it."""

import json
import subprocess
import sys

import pytest

from fastssd.errors import ConfigError
from fastssd.recipe_file import load_recipe
from fastssd.runtime.run_directory import Status, claimed


def recipe_of(output, *overrides):
    path = output.parent / "recipe.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("output: o\ndata: {path: data}\naugment: {size: 8}\n")
    return load_recipe(path, [f"output={output}", *overrides])


def test_a_claimed_directory_holds_the_config_and_no_half_written_file(tmp_path):
    output = tmp_path / "a" / "run"
    recipe = recipe_of(output)
    with claimed(output, recipe, write=True) as note_config:
        assert not (output / "config.yaml").exists()  # something else may yet refuse it
        note_config()
        assert load_recipe(output / "config.yaml").config == recipe.config
        (output / "ssd-I").mkdir()
        (output / "ssd-I/weights.safetensors.partial-7").write_text("half")
        (output / "status.json.partial-7").write_text("half")
    with claimed(output, recipe, write=True):
        assert {path.name for path in output.rglob("*") if path.is_file()} == {
            "config.yaml",
            ".lock",
        }


def test_methods_that_were_there_before_stay_in_the_config(tmp_path):
    output = tmp_path / "run"
    with claimed(output, recipe_of(output, "methods=[ce]"), write=True) as note_config:
        note_config()
    added = recipe_of(output, "methods=[crt]", "crt.model.budget.lr=0.5")
    with claimed(output, added, write=True) as note_config:
        note_config()

    found = load_recipe(output / "config.yaml")

    assert [method.name for method in found.methods] == ["crt", "ce"]
    assert found.options == load_recipe(output / "config.yaml", []).options
    assert "lr: 0.5" in (output / "config.yaml").read_text()


def test_a_run_of_the_version_before_is_refused_by_name(tmp_path):
    (tmp_path / "run" / "1-features").mkdir(parents=True)
    with (
        pytest.raises(ConfigError, match=r"a run of fastssd 0\.1"),
        claimed(tmp_path / "run", recipe_of(tmp_path / "run"), write=True),
    ):
        raise AssertionError("not reached")


def test_a_second_run_is_kept_out_while_the_first_lives_and_no_longer(tmp_path):
    recipe = recipe_of(tmp_path / "run")
    (tmp_path / "run").mkdir()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import fcntl, os, sys; file = open({str(tmp_path / 'run' / '.lock')!r}, 'w'); "
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
            claimed(tmp_path / "run", recipe, write=True),
        ):
            raise AssertionError("not reached")
        with claimed(tmp_path / "run", recipe, write=False):  # another process of the same run
            pass
    finally:
        holder.kill()
        holder.communicate()
    with claimed(tmp_path / "run", recipe, write=True):
        pass


def test_the_first_failure_is_kept_and_a_full_disk_does_not_hide_it(tmp_path, monkeypatch, capsys):
    path = tmp_path / "status.json"
    main, other = Status(path, is_main=True), Status(path, is_main=False)
    main.running("ssd-I")
    other.running("ssd-I")
    other.ended("failed", exit_code=3, error="a damaged image")
    main.ended("failed", exit_code=1, error="lost another process")
    assert json.loads(path.read_text())["exit_code"] == 3

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastssd.core.files.os.fsync", full)
    main.ended("stopped", exit_code=143)
    assert "No space left on device" in capsys.readouterr().err
    assert json.loads(path.read_text())["exit_code"] == 3
