import os
import socket
from pathlib import Path

import pytest
from operations import cost_of

from fastssd.core.reading import (
    MAX_BYTES,
    check_regular,
    open_regular,
    open_text,
    read_bytes,
    read_json,
    read_json_lines,
    read_text,
    reading,
)
from fastssd.errors import DataError


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def make_endless(path):
    path.touch()
    os.truncate(path, 8 << 40)


NO_FILES = {
    "it is a pipe": os.mkfifo,
    "it is a socket": make_socket,
    "it is a device": lambda path: path.symlink_to("/dev/zero"),
    "it is a folder": lambda path: path.mkdir(),
    "No such file": lambda path: path.symlink_to("nowhere"),
    "Too many levels of symbolic links": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("reader", [check_regular, open_regular, open_text, read_bytes, read_text])
@pytest.mark.parametrize("reason", NO_FILES)
def test_what_is_no_file_is_never_opened(tmp_path, monkeypatch, reader, reason):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    path = Path("x.jpg")
    NO_FILES[reason](path)
    monkeypatch.setattr(os, "open", None)

    with pytest.raises(DataError, match=rf"^x\.jpg: cannot be read: {reason}"), reading(path):
        reader(path)


def test_a_pipe_that_takes_a_files_place_is_not_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "x.jpg"
    os.mkfifo(path)
    file = tmp_path / "file"
    file.touch()
    status = file.stat()
    monkeypatch.setattr(Path, "stat", lambda self: status)

    with pytest.raises(OSError, match="it is a pipe"):
        read_bytes(path)


@pytest.mark.parametrize("reader", [open_text, read_bytes, read_text])
def test_a_file_without_an_end_is_refused_by_its_size(tmp_path, reader):
    make_endless(tmp_path / "x.jpg")

    cost = cost_of(reader, tmp_path / "x.jpg", at_most=1000)

    assert "8,796,093,022,208 bytes, more than the 1,073,741,824" in str(cost.outcome)
    assert cost.peak_bytes < 100_000
    assert isinstance(cost.outcome, OSError)
    assert MAX_BYTES == 1 << 30


@pytest.mark.parametrize("size", [0, 1, 999, 1000])
def test_files_up_to_the_limit_are_read_whole(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "x").write_bytes(content)

    assert read_bytes(tmp_path / "x", limit=1000) == content
    with open_regular(tmp_path / "x") as file:
        assert file.read() == content


def test_a_file_whose_size_is_not_told_is_read_up_to_the_limit():
    status = Path("/proc/self/status")
    assert read_bytes(status).startswith(b"Name:")
    with pytest.raises(OSError, match="more than the 100"):
        read_bytes(status, limit=100)


def test_no_descriptor_is_left_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    make_endless(tmp_path / "x")
    for reader in (read_bytes, read_text, open_text):
        with pytest.raises(OSError, match="more than"):
            reader(tmp_path / "x")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


NO_JSON = {
    "": "it is not JSON",
    "{": "it is not JSON",
    "[" * 200_000: "nested too deep",
    '{"a":' * 100_000: "nested too deep",
    "1" * 5000: "it is not JSON",
    "[]": "it is a list where an object is expected",
    "null": "it is null where an object",
    "{}": "it lacks 'rows'",
    '{"rows": "x"}': "'rows' is text where a list is expected",
    '{"rows": [], "count": true}': "'count' is true or false where a whole number",
    '{"rows": [], "count": 1.5}': "'count' is a number where a whole number",
    b"\xff\xfe\xff": "it is not JSON",
}


@pytest.mark.parametrize("content", NO_JSON, ids=range(len(NO_JSON)))
def test_whatever_is_wrong_with_json_is_one_error_with_file_and_key(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(DataError) as caught:
        read_json(path, {"rows": list, "count": int}, remedy="make it anew")

    assert str(caught.value).startswith(f"{path}: damaged: ")
    assert NO_JSON[content] in str(caught.value)
    assert str(caught.value).endswith("; make it anew")


def test_of_lines_the_one_that_was_cut_is_left_out_and_a_damaged_one_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert read_json_lines(path, dict, remedy="x") == [{"a": 1}, {"a": 2}]

    path.write_text('{"a": 1}\n' + "[" * 100_000 + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: damaged: .*nested too deep; mend it"):
        read_json_lines(path, dict, remedy="mend it")


@pytest.mark.parametrize(
    "error", [KeyError("a"), IndexError(), MemoryError(), RecursionError("deep"), OverflowError()]
)
def test_what_content_makes_code_raise_names_the_file(error):
    with pytest.raises(DataError, match=r"^a\.bin: damaged: \S") as caught, reading("a.bin"):
        raise error
    assert caught.value.__cause__ is error
