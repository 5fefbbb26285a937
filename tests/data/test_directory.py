import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastssd.data import directory
from fastssd.data.directory import new_directory
from fastssd.errors import ConfigError

MARKER = "meta.json"
LOCKS = Path("/proc/locks")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def described(text):
    """What a marker must say for its directory to be replaced, and a text to tell it by."""
    return json.dumps({"layout": 1, "format": "memory", "splits": {}, "text": text})


def text_of(out):
    return json.loads((out / MARKER).read_text())["text"]


def make(out, text="new", *, overwrite=False, say=lambda line: None):
    with new_directory(out, overwrite=overwrite, marker=MARKER, say=say) as folder:
        (folder / MARKER).write_text(described(text))


def test_the_directory_appears_when_the_block_ends(tmp_path):
    out = tmp_path / "a" / "out"
    with new_directory(out, overwrite=False, marker=MARKER) as folder:
        (folder / MARKER).write_text("new")
        assert not out.exists()

    assert (out / MARKER).read_text() == "new"
    assert names_in(out.parent) == ["out"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_remains_when_the_block_raises(tmp_path, error):
    def fail():
        with new_directory(tmp_path / "out", overwrite=False, marker=MARKER) as folder:
            (folder / MARKER).write_text("new")
            raise error

    with pytest.raises(error):
        fail()
    assert names_in(tmp_path) == []


def test_an_existing_directory_is_refused_and_kept(tmp_path):
    make(tmp_path / "out", "old")
    with pytest.raises(ConfigError, match="--overwrite"):
        make(tmp_path / "out")
    assert text_of(tmp_path / "out") == "old"


def test_overwriting_replaces_the_whole_directory(tmp_path):
    make(tmp_path / "out", "old")
    for name in ("train.labels.npy", "val-000000.tar", "test.beton", "rejects.jsonl", ".DS_Store"):
        (tmp_path / "out" / name).write_text("")

    make(tmp_path / "out", overwrite=True)

    assert names_in(tmp_path / "out") == [MARKER]
    assert names_in(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["runs/", "train/", "train.csv", "notes.txt", ".git/"])
def test_what_no_conversion_wrote_keeps_a_directory_from_being_replaced(tmp_path, name):
    make(tmp_path / "out", "old")
    mine = tmp_path / "out" / name
    mine.mkdir() if name.endswith("/") else mine.write_text("mine")

    with pytest.raises(ConfigError, match=rf"holds what no conversion wrote \({mine.name}\)"):
        make(tmp_path / "out", overwrite=True)

    assert mine.exists()
    assert text_of(tmp_path / "out") == "old"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"classes": 3}', '{"layout": 1, "files": 3}'])
def test_a_directory_whose_marker_is_of_something_else_is_never_overwritten(tmp_path, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MARKER).write_text(text)
    with pytest.raises(ConfigError, match="damaged, or not of a dataset directory"):
        make(tmp_path / "out", overwrite=True)


def test_a_failure_while_overwriting_keeps_the_old_directory(tmp_path):
    make(tmp_path / "out", "old")
    with (
        pytest.raises(RuntimeError),
        new_directory(tmp_path / "out", overwrite=True, marker=MARKER),
    ):
        raise RuntimeError
    assert text_of(tmp_path / "out") == "old"


def test_a_directory_of_other_things_is_never_overwritten(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="not a dataset directory"):
        make(tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").exists()


def test_a_file_or_a_link_is_never_overwritten(tmp_path):
    (tmp_path / "file").write_text("")
    make(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("file", "link"):
        with pytest.raises(ConfigError, match="not a directory"):
            make(tmp_path / name, overwrite=True)


def test_a_directory_that_appears_meanwhile_is_not_replaced(tmp_path):
    out = tmp_path / "out"
    with (
        pytest.raises(ConfigError, match="exists"),
        new_directory(out, overwrite=False, marker=MARKER),
    ):
        out.mkdir()
    assert names_in(tmp_path) == ["out"]


KILLED = """
import os, signal, sys
from pathlib import Path
from fastssd.data import directory
opened = Path.open
def stop(path, *rest, **options):
    if path.name == '.writer' and len(sys.argv) > 2:  # before it could write who it is
        if sys.argv[2] == 'empty':
            path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return opened(path, *rest, **options)
Path.open = stop
with directory.new_directory(Path(sys.argv[1]), overwrite=False, marker='m') as folder:
    (folder / 'half').write_text('')
    os.kill(os.getpid(), signal.SIGKILL)
"""

KILLED_WHILE_REPLACING = """
import os, signal, sys
from pathlib import Path
from fastssd.data import directory
exchange, step = directory._exchange, sys.argv[2]
def kill(*rest):
    os.kill(os.getpid(), signal.SIGKILL)
def stop(one, other):
    if step == 'before':
        kill()
    assert exchange(one, other)
    if step == 'after':
        kill()
    directory.shutil.rmtree = kill
    return True
directory._exchange = stop
with directory.new_directory(Path(sys.argv[1]), overwrite=True, marker='meta.json') as folder:
    (folder / 'meta.json').write_text(sys.argv[3])
"""

WAITING = """
import sys
from pathlib import Path
from fastssd.data.directory import new_directory
from fastssd.errors import ConfigError
try:
    with new_directory(Path(sys.argv[1]), overwrite=False, marker='m') as folder:
        print('in', flush=True)
        sys.stdin.read()
except ConfigError as error:
    print('refused', error, flush=True)
"""


def kill(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("moment", [(), ("absent",), ("empty",)])
def test_a_killed_process_leaves_no_directory_and_the_next_one_clears_up(tmp_path, moment):
    kill(KILLED, str(tmp_path / "out"), *moment)
    remains = names_in(tmp_path)
    assert [name.startswith("out.partial-") for name in remains] == [True]
    (tmp_path / "out.party").mkdir()  # other things are not touched

    said = []
    make(tmp_path / "out", say=said.append)

    assert names_in(tmp_path) == ["out", "out.party"]
    assert names_in(tmp_path / "out") == [MARKER]
    assert len(said) == 1
    assert f"removed {tmp_path / remains[0]}" in said[0]
    assert "was killed (process" in said[0]


@pytest.mark.parametrize(("step", "text"), [("before", "old"), ("after", "new"), ("last", "new")])
def test_a_process_that_is_killed_while_it_replaces_leaves_the_old_one_or_the_new_one(
    tmp_path, step, text
):
    out = tmp_path / "out"
    make(out, "old")

    kill(KILLED_WHILE_REPLACING, str(out), step, described("new"))

    assert text_of(out) == text
    make(out, "next", overwrite=True)
    assert text_of(out) == "next"
    assert names_in(tmp_path) == ["out"]


def test_where_names_cannot_change_places_the_old_one_is_kept_until_the_new_one_is_there(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(directory, "_exchange", lambda *names: False)
    out = tmp_path / "out"
    make(out, "old")
    make(out, "new", overwrite=True)
    assert text_of(out) == "new"
    assert names_in(tmp_path) == ["out"]
    for left, text in (("out", "new"), ("", "old")):  # killed after, or between, its two renames
        make(tmp_path / "out.replaced-7", "old")
        if not left:
            shutil.rmtree(out)

        with pytest.raises(ConfigError, match="exists"):
            make(out)  # says what there is, and clears up

        assert text_of(out) == text
        assert names_in(tmp_path) == ["out"]


def test_two_writers_of_one_directory_are_one_too_many(tmp_path):
    out = tmp_path / "out"
    with new_directory(out, overwrite=False, marker=MARKER) as folder:
        (folder / MARKER).write_text("first")
        for _ in range(2):
            with pytest.raises(ConfigError, match=r"another conversion is writing it \(process \d"):
                make(out)
        make(tmp_path / "other")
    assert (out / MARKER).read_text() == "first"
    assert names_in(tmp_path) == ["other", "out"]


def test_of_processes_that_start_at_once_one_writes(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WAITING, str(tmp_path / "out")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = [process.stdout.readline().split()[0] for process in processes]
    for process in processes:
        process.communicate()

    assert sorted(said) == ["in", "refused", "refused", "refused"]
    assert names_in(tmp_path) == ["out"]


def test_a_process_that_looks_while_another_begins_waits_for_it(tmp_path, monkeypatch):
    claimed = directory._claimed
    others = []

    def claim(out):
        other = subprocess.Popen(
            [sys.executable, "-c", WAITING, str(out)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        others.append(other)
        # Until it waits for the lock that is held here, or has said something without it.
        for _ in range(100):
            ready, _, _ = select.select([other.stdout], [], [], 0.05)
            if ready or f" {other.pid} " in LOCKS.read_text():
                break
        return claimed(out)

    monkeypatch.setattr(directory, "_claimed", claim)

    make(tmp_path / "out")

    assert others[0].communicate()[0].startswith("refused")
    assert text_of(tmp_path / "out") == "new"


def test_what_another_machine_left_is_kept_and_said(tmp_path):
    remains = tmp_path / f"out.partial-{os.getpid()}"  # even if its process had our number
    remains.mkdir()
    (remains / ".writer").write_text("elsewhere 12")
    said = []

    make(tmp_path / "out", say=said.append)

    assert names_in(tmp_path) == ["out", remains.name]
    assert len(said) == 1
    assert "left by process 12 on elsewhere" in said[0]


def test_a_file_system_without_locks_still_converts(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    kill(KILLED, str(tmp_path / "out"))
    monkeypatch.setattr("fcntl.flock", refuse)
    said = []

    make(tmp_path / "out", say=said.append)

    assert len(said) == 1
    assert "remove it yourself" in said[0]
    assert (tmp_path / "out" / MARKER).exists()


def test_a_place_where_nothing_can_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made: Not a directory"):
        make(tmp_path / "file" / "out")
