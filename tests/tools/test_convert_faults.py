"""Conversions that are killed, run out of disk or meet each other, through the command line."""

import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = PROJECT / "tools" / "convert_dataset.py"

KILLED = """
import importlib.util, os, signal, sys
spec = importlib.util.spec_from_file_location("convert_dataset", sys.argv[1])
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)
tool._Bars.__call__ = (
    lambda bars, split, done, total: os.kill(os.getpid(), signal.SIGKILL) if done == 20 else None
)
tool.main(sys.argv[2:])
"""


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("convert_dataset", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path):
    random = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / "source" / name).mkdir(parents=True)
        for i in range(20):
            pixels = random.integers(0, 256, (8, 8 + i % 2, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "source" / name / f"{i:02}.jpg")
    return tmp_path / "source"


def files_of(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def flat(text):
    return " ".join(text.split())


def test_sigterm_ends_a_conversion_whose_thread_never_comes_back(
    tool, tree, tmp_path, monkeypatch, capsys
):
    released = threading.Event()

    def read(split, row):
        os.kill(os.getpid(), signal.SIGTERM)
        released.wait(60)
        raise OSError

    monkeypatch.setattr("fastssd.data.sources.image_files.FileSplit.read", read)
    try:
        assert tool.main([str(tree), str(tmp_path / "out"), "--threads", "1"]) == 143
        assert not released.is_set()
        assert names_in(tmp_path) == ["source"]
    finally:
        released.set()
    assert "stopped; nothing was written" in capsys.readouterr().err


def test_after_kill_9_the_same_command_starts_over_and_says_so(tool, tree, tmp_path, capsys):
    arguments = [str(tree), str(tmp_path / "out"), "--format", "ffcv", "--val-per-class", "2"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(SCRIPT), *arguments], check=False, cwd=PROJECT
    )
    assert done.returncode == -signal.SIGKILL
    remains = [name for name in names_in(tmp_path) if name != "source"]
    assert len(remains) == 1
    assert remains[0].startswith("out.partial-")
    assert not (tmp_path / remains[0] / "meta.json").exists()

    assert tool.main(arguments) == 0

    assert "was killed" in flat(capsys.readouterr().out)
    assert names_in(tmp_path) == ["out", "source"]
    assert tool.main([str(tree), str(tmp_path / "whole"), *arguments[2:]]) == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("format", ["memory", "ffcv", "webdataset"])
@pytest.mark.parametrize("num_bytes", [64, 2_000, 12_000])
@pytest.mark.parametrize("step", ["whole", "shard", "merge"])
def test_wherever_the_disk_fills_up_nothing_is_left(
    tool, tree, tmp_path, capsys, format, num_bytes, step
):
    arguments = [str(tree), str(tmp_path / "out"), "--format", format]
    if step == "shard":
        arguments += ["--shard", "1/1"]
    if step == "merge":
        assert tool.main([*arguments, "--shard", "1/1"]) == 0
        arguments = [str(tmp_path / "out"), "--merge"]
    before = names_in(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        code = tool.main(arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    # Pixels and archives of these images are larger than the largest limit; .beton more so.
    assert code == 3 or (format, num_bytes) == ("memory", 12_000)
    if code:
        message = capsys.readouterr().err
        assert "out" in message
        assert "File too large" in message
        assert names_in(tmp_path) == before


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="no /sys, where no one may write")
def test_a_place_that_is_read_only_even_for_root_exits_with_2(tool, tree, capsys):
    assert tool.main([str(tree), "/sys/kernel/fastssd-out"]) == 2
    message = capsys.readouterr().err
    assert "/sys/kernel/fastssd-out: cannot be made" in message
    assert message.count("\n") == 1


def test_a_second_conversion_to_the_same_place_is_refused(
    tool, tree, tmp_path, capsys, monkeypatch
):
    codes = []
    arguments = [str(tree), str(tmp_path / "out")]
    show = tool._Bars.__call__

    def meanwhile(bars, split, done, total):
        if done == 5 and not codes:
            codes.append(None)  # the second one must not start a third
            codes[0] = tool.main(arguments)
        show(bars, split, done, total)

    monkeypatch.setattr(tool._Bars, "__call__", meanwhile)

    assert tool.main(arguments) == 0

    assert codes == [2]
    assert f"another conversion is writing it (process {os.getpid()}" in capsys.readouterr().err
    assert names_in(tmp_path) == ["out", "source"]
    assert json.loads((tmp_path / "out/meta.json").read_text())["splits"]["train"]["images"] == 40


def test_shards_and_their_merge_on_the_command_line(tool, tree, tmp_path, capsys):
    options = ["--format", "webdataset", "--imbalance", "4", "--max-per-class", "16"]
    assert tool.main([str(tree), str(tmp_path / "whole"), *options]) == 0
    for shard in ("1/3", "3/3"):
        assert tool.main([str(tree), *options, str(tmp_path / "out"), "--shard", shard]) == 0
    assert "shard 3 of 3: 7 train images" in capsys.readouterr().out

    assert tool.main([str(tmp_path / "out"), "--merge"]) == 3
    assert "shard 2 of 3 is missing" in capsys.readouterr().err

    assert tool.main([str(tree), str(tmp_path / "out"), "--shard", "2/3", *options]) == 0
    assert tool.main(["--merge", "--overwrite", str(tmp_path / "out")][::-1]) == 0
    assert "train: 20 images copied" in capsys.readouterr().out
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_merge_of_another_seed_exits_with_3_and_names_the_shard(tool, tree, tmp_path, capsys):
    for shard, seed in (("1/2", "0"), ("2/2", "1")):
        arguments = ["--imbalance", "4", "--shard", shard, "--seed", seed]
        assert tool.main([str(tree), str(tmp_path / "out"), *arguments]) == 0
    assert tool.main([str(tmp_path / "out"), "--merge"]) == 3
    message = capsys.readouterr().err
    assert "out.shard-2-of-2 is not of the same conversion" in message
    assert "seed: 0 and 1" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["OUT"], "SOURCE and OUT are both required"),
        (["SOURCE", "OUT", "--merge"], "SOURCE: not for --merge"),
        (["OUT", "--format", "ffcv", "--merge"], "--format: not for --merge"),
        (["OUT", "--shard", "1/2", "--merge"], "--shard: not for --merge"),
        (["SOURCE", "OUT", "--shard", "3/2"], "'3/2' is not I/N"),
    ],
)
def test_arguments_that_contradict_exit_with_2(tool, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        tool.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
