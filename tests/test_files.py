import resource
from contextlib import contextmanager

import pytest

from fastssd.files import write_atomically


@contextmanager
def files_of_at_most(num_bytes):
    """Let writing fail with an error once a file has this length, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("content", ["gr\u00fcn\n", b"\x00\xff", ""])
def test_a_file_is_written_whole_and_alone(tmp_path, content):
    write_atomically(tmp_path / "a.json", content)

    expected = content if isinstance(content, bytes) else content.encode("utf-8")
    assert (tmp_path / "a.json").read_bytes() == expected
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, "old")

    with files_of_at_most(1000), pytest.raises(OSError, match="large"):
        write_atomically(path, "new" * 1000)

    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_what_is_not_yet_on_the_disk_has_not_replaced_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    seen = []
    monkeypatch.setattr("fastssd.files.os.fsync", lambda _: seen.append(path.read_text()))

    write_atomically(path, "new")

    assert seen == ["old"]
    assert path.read_text() == "new"


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "a.json", "")
