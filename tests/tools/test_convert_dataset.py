import importlib.util
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = PROJECT / "tools" / "convert_dataset.py"


@pytest.fixture
def tool():
    """The script as a module, so that its tests do not each import PyTorch anew."""
    spec = importlib.util.spec_from_file_location("convert_dataset", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path):
    random = np.random.default_rng(0)
    for name, count in (("ant", 30), ("[bee]", 12)):
        (tmp_path / "source" / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "source" / name / f"{i:02}.jpg")
    return tmp_path / "source"


def test_help_lists_sources_and_formats_without_importing_pytorch():
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['convert_dataset.py', '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    print('code', stop.code, 'torch' in sys.modules, 'sklearn' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    for text in (
        "digits",
        "DIR/train/CLASS",
        "imagenet_lt",
        "--kind",
        "--jpeg",
        "--max-side",
        "--root",
        "memory",
        "ffcv",
        "--on-error",
        "examples",
    ):
        assert text in done.stdout
    assert done.stdout.rstrip().endswith("code 0 False False")


def test_the_quickstart_command_works_from_the_project_root(tmp_path):
    options = ["--imbalance", "16", "--max-per-class", "128", "--val-per-class", "10"]
    done = subprocess.run(
        [sys.executable, "tools/convert_dataset.py", "digits", str(tmp_path / "out"), *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "train: 457 images" in done.stdout
    assert "1 many (>= 100), 5 medium (21 to 99), 4 few (<= 20)" in done.stdout
    assert "\x1b" not in done.stdout  # not a terminal: no control characters
    assert json.loads((tmp_path / "out/meta.json").read_text())["name"] == "digits"


@pytest.mark.kernels
def test_options_reach_the_conversion(tool, tree, tmp_path, capsys):
    options = "--format ffcv --name insects --imbalance 3 --imbalance-type step --seed 7"
    more = "--max-per-class 9 --val-per-class 2 --test-per-class 1 --on-error skip --threads 2"
    more += " --orientation ignore --jpeg restart --max-side 500 --quality 80 --verify"

    code = tool.main([str(tree), str(tmp_path / "out"), *options.split(), *more.split()])

    meta = json.loads((tmp_path / "out/meta.json").read_text())
    assert code == 0
    assert (meta["name"], meta["format"]) == ("insects", "ffcv")
    assert meta["conversion"] == {
        "imbalance": 3.0,
        "imbalance_type": "step",
        "max_per_class": 9,
        "seed": 7,
        "val_per_class": 2,
        "test_per_class": 1,
        "orientation": "ignore",
        "jpeg": "restart",
        "short_side": None,
        "max_side": 500,
        "quality": 80,
        "verify": True,
        "on_error": "skip",
    }
    assert {name: split["per_class"] for name, split in meta["splits"].items()} == {
        "train": [9, 3],
        "val": [2, 2],
        "test": [1, 1],
    }
    assert "[bee]" in capsys.readouterr().out


def test_what_is_what_is_said_before_any_work(tool, tree, tmp_path, capsys):
    for part in ("First", "Second"):
        (tmp_path / "all" / part).mkdir(parents=True)
    (tree / "ant").rename(tmp_path / "all/First/ant")
    (tree / "[bee]").rename(tmp_path / "all/First/[bee]")
    shutil.copytree(tmp_path / "all/First/[bee]", tmp_path / "all/Second/[bee]")
    (tmp_path / "all/First/ant/.hidden").touch()
    (tmp_path / "all/First/ant/05.jpg").write_bytes(b"")
    paths = [str(tmp_path / "all"), str(tmp_path / "out")]

    assert tool.main([*paths, "--split-names=train=First,val=Second"]) == 3  # a damaged image

    assert capsys.readouterr().out.splitlines() == [
        f"source: {tmp_path}/all (folder), 2 classes",
        "  train: 42 images of 2 classes, from First/",
        "  val: 12 images of 1 class, from Second/",
        "note: First is taken as the train split",
        "note: Second is taken as the val split",
        "note: left out: hidden files and folders: 1 (First/ant/.hidden)",
        "note: 1 of 2 classes have no val image: ant",
    ]
    names = ["--split-names", "train=First", "val=Second"]
    assert tool.main(["--on-error", "skip", *names, *paths]) == 0
    said = capsys.readouterr().out
    assert said.count("1 of 2 classes have no val image: ant") == 2  # before and after
    assert "val: 12 images" in said


def test_the_longest_bar_is_that_of_the_largest_class_whatever_it_is_called(
    tool, tree, tmp_path, capsys
):
    (tree / "ant").rename(tree / ":ant:\x1b[2J")
    tool.main([str(tree), str(tmp_path / "out")])
    printed = capsys.readouterr().out
    names = ("[bee]", r":ant:\x1b[2J")
    bars = {
        name: line.count("\u2588")
        for line in printed.splitlines()
        for name in names
        if name in line
    }
    assert bars == {names[1]: 40, "[bee]": 40 * 12 // 30}
    assert "\x1b" not in printed


def test_many_classes_are_shown_as_ranges_that_hold_every_class(tool, capsys):
    counts = [1000 // (c + 1) + 1 for c in range(8142)]
    tool.Console(width=100).print(tool._histogram([f"c{c}" for c in range(8142)], counts))

    lines = capsys.readouterr().out.splitlines()[1:]
    ranges = [re.match(r"([\d,]+) to ([\d,]+)", line) for line in lines]
    edges = [tuple(int(part.replace(",", "")) for part in r.groups()) for r in ranges]
    assert len(lines) <= 24
    assert edges[0][0] == 1
    assert edges[-1][1] == 8142
    assert all(a[1] + 1 == b[0] for a, b in pairwise(edges))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere", "OUT"], 2, "neither a folder"),
        (["SOURCE", "OUT", "--imbalance", "1000"], 2, "--max-per-class 12 fits"),
        (["SOURCE", "SOURCE"], 2, "is SOURCE"),
        (["SOURCE", "OUT", "--val-per-class", "12"], 2, "[bee]"),
        (["SOURCE", "OUT", "--jpeg", "keep"], 2, "the memory format holds pixels"),
        (["SOURCE", "OUT", "--quality", "80"], 2, "add --max-side or --short-side"),
    ],
)
def test_a_users_mistake_is_one_message_and_its_exit_code(
    tool, tree, tmp_path, capsys, arguments, code, message
):
    paths = {"SOURCE": str(tree), "OUT": str(tmp_path / "out")}

    assert tool.main([paths.get(argument, argument) for argument in arguments]) == code

    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors
    assert "Traceback" not in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option",
    [
        "--format=zip",
        "--max-per-class=0",
        "--threads=x",
        "--frmat=1",
        "--quality=101",
        "--split-names=train",
    ],
)
def test_arguments_that_argparse_refuses_exit_with_2(tool, tree, tmp_path, option, capsys):
    with pytest.raises(SystemExit) as stop:
        tool.main([str(tree), str(tmp_path / "out"), option])
    assert stop.value.code == 2


def test_a_damaged_image_exits_with_3_and_names_it(tool, tree, tmp_path, capsys):
    (tree / "ant/05.jpg").write_bytes(b"")
    assert tool.main([str(tree), str(tmp_path / "out")]) == 3
    assert "ant/05.jpg" in capsys.readouterr().err


def test_what_was_skipped_is_said(tool, tree, tmp_path, capsys):
    (tree / "ant/05.jpg").write_bytes(b"")
    assert tool.main([str(tree), str(tmp_path / "out"), "--on-error", "skip"]) == 0
    assert "left out: 1 damaged images" in capsys.readouterr().out


def test_a_disk_that_is_full_exits_with_3(tool, tree, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastssd.data.directory.os.fsync", full)
    assert tool.main([str(tree), str(tmp_path / "out")]) == 3
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_exits_with_its_code_and_leaves_nothing(
    tool, tree, tmp_path, capsys, monkeypatch, request, number, code
):
    monkeypatch.setattr(
        tool._Bars,
        "__call__",
        lambda *_: os.kill(os.getpid(), number),  # in mid-conversion
    )
    # A shell starts what it puts in the background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    assert tool.main([str(tree), str(tmp_path / "out")]) == code
    assert "nothing was written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_on_a_terminal_a_bar_shows_rate_and_time_left(tree, tmp_path):
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(tree), str(tmp_path / "out")],
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(leader, 65536):
            shown += chunk
    except OSError:  # how Linux reports that the other side was closed
        pass
    os.close(leader)

    assert process.wait() == 0
    text = shown.decode()
    assert "42/42" in text
    assert "images/s" in text
    assert re.search(r"\d:\d\d:\d\d", text)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
