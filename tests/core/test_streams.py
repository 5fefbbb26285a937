"""Standard output and error that are closed, full, broken or not read: the work goes on."""

import io
import os
import subprocess
import sys

import pytest

from fastssd.core import streams
from fastssd.core.streams import Lasting

CALLED = """
import os, sys
from fastssd.core import streams
streams.prepare()
opened = os.open(os.devnull, os.O_RDONLY)
streams.show("shown")
streams.tell("told")
sys.exit(streams.finish(opened))
"""


def pipe():
    """Return a pipe's reading end, and its writing end as Python's standard output has it."""
    reading, writing = os.pipe()
    return reading, open(writing, "w", encoding="utf-8")  # noqa: PTH123


def test_what_a_stream_takes_is_written():
    stream = io.StringIO()
    lasting = Lasting(stream)
    print("one", file=lasting)
    assert (stream.getvalue(), lasting.problem) == ("one\n", "")


@pytest.mark.parametrize("how", ["no reader", "closed", "none", "full"])
def test_what_a_stream_does_not_take_is_left_out_and_the_reason_kept(how):
    if how == "none":
        stream = None
    elif how == "full":
        stream = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115, PTH123
    else:
        reading, stream = pipe()
        os.close(reading)
    if how == "closed":
        stream.close()
    lasting = Lasting(stream)

    for _ in range(3):
        print("a line", file=lasting, flush=True)
        reasons = ("Broken pipe", "closed", "No space left")
        assert any(reason in lasting.problem for reason in reasons)
    assert not lasting.isatty()

    if how in ("no reader", "full"):
        with pytest.raises(OSError, match=r"Broken pipe|No space"):
            stream.close()


def test_a_reader_that_stands_still_is_not_waited_for_and_misses_some_lines(monkeypatch):
    monkeypatch.setattr(streams, "_PATIENCE", 0.01)
    reading, stream = pipe()
    lasting = Lasting(stream)
    for number in range(3000):  # 300 kB into a pipe of 64
        print(f"{number:99}", file=lasting, flush=True)
    assert lasting.problem == "nobody reads it"

    assert len(os.read(reading, 1 << 20)) % 100 == 0  # whole lines
    print("afterwards", file=lasting, flush=True)
    assert lasting.problem == ""
    assert os.read(reading, 1 << 20).endswith(b"afterwards\n")
    stream.close()
    os.close(reading)


def test_characters_that_a_stream_cannot_encode_are_escaped(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stderr", stream)
    streams.tell("gr\u00fcn")
    assert stream.buffer.getvalue() == b"gr\\xfcn\n"


@pytest.mark.parametrize(
    ("redirected", "shown", "told"),
    [
        ("", "shown\n", "told\n"),
        (">/dev/full", "", "told\n"),
        (">&-", "", "told\n"),
        (">/dev/full 2>/dev/full", "", ""),
        ("<&- >&- 2>&-", "", ""),
    ],
)
def test_the_exit_code_is_the_works_whatever_the_streams_are(redirected, shown, told):
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {redirected}', sys.executable, CALLED],
        capture_output=True,
        text=True,
        check=False,
    )
    # No file that is opened has the number of a standard stream.
    assert done.returncode == 3
    assert (done.stdout, done.stderr) == (shown, told)
