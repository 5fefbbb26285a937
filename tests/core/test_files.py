import json
import os
import resource
from contextlib import contextmanager

import pytest

from fastssd.core.files import append, check_seal, remove_partial, seal, write_atomically
from fastssd.errors import DataError


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

    with files_of_at_most(1000), pytest.raises(DataError, match=r"a\.json.*large.*make room"):
        write_atomically(path, "new" * 1000)

    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_what_is_not_yet_on_the_disk_has_not_replaced_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    seen = []
    monkeypatch.setattr("fastssd.core.files.os.fsync", lambda _: seen.append(path.read_text()))

    write_atomically(path, "new")

    assert seen == ["old", "new"]  # the content, then the name
    assert path.read_text() == "new"


def test_processes_of_one_number_write_one_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    fsync = os.fsync

    def meanwhile(descriptor):
        monkeypatch.setattr("fastssd.core.files.os.fsync", fsync)
        write_atomically(path, "second" * 9)  # as another host's process with our number
        fsync(descriptor)

    monkeypatch.setattr("fastssd.core.files.os.fsync", meanwhile)
    write_atomically(path, "first")

    assert path.read_text() == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"none/a\.json.*No such file"):
        write_atomically(tmp_path / "none" / "a.json", "")


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "folder.partial-3/table").mkdir(parents=True)
    table = ("folder.partial-3/table/manifest.json.partial-9-ab", "folder.partial-3/table/a.npy")
    for name in ("a.json", "a.json.partial-12", "b.partial", "partial-1", *table):
        (tmp_path / name).write_text("x")

    remove_partial(tmp_path)

    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"a.json", "b.partial", "partial-1", "a.npy"}


def test_lines_are_added_whole_and_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / "a.jsonl"
    append(path, "one\n")
    append(path, "two\n")
    assert path.read_text() == "one\ntwo\n"

    with files_of_at_most(20), pytest.raises(DataError, match=r"a\.jsonl.*make room"):
        append(path, "x" * 100)
    assert path.read_text().startswith("one\ntwo\n")


def test_sealed_content_that_was_altered_is_noticed():
    content = {"rows": [1, 2], "name": "gr\u00fcn", "share": 0.1}
    sealed = json.loads(seal(content))
    check_seal(sealed)
    assert {key: sealed[key] for key in content} == content
    check_seal({"sealed": "no"})
    for key, value in (("rows", [1, 3]), ("name", ""), ("sha256", "0"), ("more", 1)):
        with pytest.raises(ValueError, match="altered"):
            check_seal({**sealed, key: value})
