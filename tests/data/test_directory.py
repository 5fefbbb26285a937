import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastssd.data.directory import new_directory
from fastssd.errors import ConfigError

MARKER = "meta.json"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make(out, text="new", *, overwrite=False):
    with new_directory(out, overwrite=overwrite, marker=MARKER) as folder:
        (folder / MARKER).write_text(text)


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
    assert (tmp_path / "out" / MARKER).read_text() == "old"


def test_overwriting_replaces_the_whole_directory(tmp_path):
    make(tmp_path / "out", "old")
    (tmp_path / "out" / "old file").write_text("")

    make(tmp_path / "out", overwrite=True)

    assert names_in(tmp_path / "out") == [MARKER]
    assert names_in(tmp_path) == ["out"]


def test_a_failure_while_overwriting_keeps_the_old_directory(tmp_path):
    make(tmp_path / "out", "old")
    with (
        pytest.raises(RuntimeError),
        new_directory(tmp_path / "out", overwrite=True, marker=MARKER),
    ):
        raise RuntimeError
    assert (tmp_path / "out" / MARKER).read_text() == "old"


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


def test_a_killed_process_leaves_no_directory(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from fastssd.data.directory import new_directory\n"
        "with new_directory(Path(sys.argv[1]), overwrite=False, marker='m') as folder:\n"
        "    (folder / 'half').write_text('')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False)

    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert [name.startswith("out.partial-") for name in names_in(tmp_path)] == [True]


def test_a_place_where_nothing_can_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made: Not a directory"):
        make(tmp_path / "file" / "out")
