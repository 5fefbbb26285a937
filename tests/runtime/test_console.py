import io
import os
import pty
import re
import subprocess
import sys

import pytest

from fastssd.runtime.console import Console, duration

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
ROW = {
    "name": "SSD III-soft",
    "head": "soft",
    "split": "test",
    "checkpoint": "last",
    "num_images": 360,
    "many": 90.0,
    "medium": 55.55,
    "few": None,
    "overall": 61.25,
    "standard_error": 2.567,
    "class_mean": 61.25,
    "class_mean_standard_error": 2.5,
    "images_per_class": [36, 36],
}


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    return Terminal()


def progress(console, step, **changes):
    facts = {
        "epoch": 2,
        "step": step,
        "losses": {"classification": 1.23456, "rotation": 0.5},
        "accuracy": {"overall": 41.26},
        "lr": 0.1,
        "images_per_second": 5234.4,
        "data_wait_percent": 0.34,
    }
    console.progress(**(facts | changes))


def everything(console):
    console.message("data: 457 images")
    console.warning("slow disk")
    console.stage_started("ssd-I", epochs=3, steps_per_epoch=100)
    progress(console, 250)
    groups = {"overall": 40.0, "class_mean": 38.25, "many": 50.0, "few": None}
    console.evaluated("val", {"classifier": groups})
    console.stage_finished(83.4)
    console.table([ROW])
    console.close()


def test_every_event_is_a_plain_line_where_there_is_no_terminal():
    stream = io.StringIO()

    everything(Console(enabled=True, stream=stream, clock=Clock()))

    text = stream.getvalue()
    assert text.splitlines()[:6] == [
        "data: 457 images",
        "warning: slow disk",
        "ssd-I: 3 epochs of 100 steps",
        "ssd-I  epoch 3/3  step 250/300  ? left  loss: classification 1.235, rotation 0.5  "
        "accuracy: overall 41.3%  lr 0.1  5,234 images/s  data wait 0.3%",
        "ssd-I  val, classifier: class mean 38.2% (all 40.0, many 50.0, few -)",
        "ssd-I: done in 1 min 23 s",
    ]
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


def test_the_plain_table_lines_up_and_says_size_and_standard_error():
    stream = io.StringIO()

    Console(enabled=True, stream=stream).table([ROW, ROW | {"name": "CE", "many": 5.0}])

    text = stream.getvalue()
    header, rule, *rows = text.splitlines()[1:5]
    assert header.split()[:6] == ["Method", "Many", "Medium", "Few", "All", "+/-"]
    assert {len(line) for line in (header, rule, *rows)} == {len(header)}
    assert rows[0].split()[2:] == ["90.0", "55.5", "-", "61.2", "2.57", "61.2", "last"]
    assert "360 test images" in text
    assert "standard error" in text


@pytest.mark.parametrize(("columns", "has_box"), [(78, False), (110, True)])
def test_a_narrow_terminal_cuts_no_number(terminal, monkeypatch, columns, has_box):
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = [ROW, ROW | {"checkpoint": "best"}]

    Console(enabled=True, stream=terminal).table(rows)

    lines = terminal.getvalue().splitlines()
    assert all(any(text in line for line in lines) for text in ("(last)", "(best)", "2.57"))
    assert ("\u2502" in terminal.getvalue()) is has_box
    assert "\u2026" not in terminal.getvalue()


def test_each_plain_line_is_flushed_when_it_is_written():
    flushed = []

    class Recorder(io.StringIO):
        def flush(self):
            flushed.append(self.getvalue())

    console = Console(enabled=True, stream=Recorder())
    console.message("one")
    console.message("two")

    assert flushed == ["one\n", "one\ntwo\n"]


def test_line_ends_and_escapes_of_a_message_cannot_break_its_line():
    stream = io.StringIO()

    Console(enabled=True, stream=stream).message("a\nb\x1b[31mc\rd")

    assert stream.getvalue() == "a\\nb\\x1b[31mc\\rd\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_stream_that_cannot_encode_a_name_gets_an_escape(monkeypatch, is_terminal):
    monkeypatch.setenv("TERM", "xterm")
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    stream.isatty = lambda: is_terminal

    with Console(enabled=True, stream=stream) as console:
        everything(console)
        console.message("caf\u00e9")
    stream.flush()

    assert rb"caf\xe9" in raw.getvalue()


def test_a_disabled_console_is_silent(terminal):
    everything(Console(enabled=False, stream=terminal))

    assert terminal.getvalue() == ""


def test_a_terminal_shows_the_same_facts_below_the_lines(terminal):
    everything(Console(enabled=True, stream=terminal, clock=Clock()))

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    for fact in (
        "warning: slow disk",
        "epoch 3/3  step 250/300",
        "loss: classification 1.235, rotation 0.5",
        "accuracy: overall 41.3%",
        "5,234 images/s  data wait 0.3%",
        "83%",
        "val, classifier: class mean 38.2%",
        "done in 1 min 23 s",
        "SSD III-soft",
        "360 test images",
    ):
        assert fact in text


def test_square_brackets_are_text_on_a_terminal(terminal):
    with Console(enabled=True, stream=terminal) as console:
        console.message("classes [red]ant[/red] :bee:")

    assert "classes [red]ant[/red] :bee:" in terminal.getvalue()


@pytest.mark.parametrize("dumb", ["dumb", ""])
def test_a_terminal_without_cursor_movement_gets_plain_lines(terminal, monkeypatch, dumb):
    monkeypatch.setenv("TERM", dumb)

    everything(Console(enabled=True, stream=terminal))

    assert "\x1b" not in terminal.getvalue()


def test_an_exception_gives_the_cursor_back(terminal):
    def train():
        with Console(enabled=True, stream=terminal) as console:
            console.stage_started("ssd-I", epochs=3, steps_per_epoch=100)
            progress(console, 10)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        train()

    assert terminal.getvalue().rindex(SHOW_CURSOR) > terminal.getvalue().rindex(HIDE_CURSOR)


@pytest.mark.parametrize("ending", ["raise RuntimeError", "sys.exit(3)", "pass"])
def test_the_cursor_comes_back_where_nobody_closed_the_console(ending):
    program = (
        "import sys\n"
        "from fastssd.runtime.console import Console\n"
        "console = Console(enabled=True)\n"
        "console.stage_started('I', epochs=1, steps_per_epoch=9)\n" + ending
    )
    ours, theirs = pty.openpty()

    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(theirs)
    output = b""
    while chunk := _read(ours):
        output += chunk
    os.close(ours)
    process.wait()

    text = output.decode()
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)


def _read(file):
    try:
        return os.read(file, 65_536)
    except OSError:  # what Linux answers once the other side is closed
        return b""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_stream_that_breaks_ends_nothing_and_the_table_goes_to_standard_error(
    terminal, capsys, is_terminal
):
    class Broken(Terminal):
        def isatty(self):
            return is_terminal

        def write(self, text):
            raise OSError(5, "Input/output error")

    everything(Console(enabled=True, stream=Broken()))

    lines = capsys.readouterr().err.splitlines()
    assert "standard output takes nothing (Input/output error)" in lines[0]
    assert any("SSD III-soft" in line and "61." in line for line in lines)


def test_the_time_left_follows_the_recent_pace():
    stream, clock = io.StringIO(), Clock()
    console = Console(enabled=True, stream=stream, clock=clock)
    console.stage_started("ssd-I", epochs=10, steps_per_epoch=100)
    lefts = []

    # Slow at first, as while things compile; then a second a step.
    for step, now in [(10, 100.0), *((10 + s, 100.0 + s) for s in range(10, 300, 10))]:
        clock.now = now
        progress(console, step)
        lefts.append(re.search(r"  ([^ ].*) left", stream.getvalue().splitlines()[-1])[1])

    assert lefts[0].endswith("2 h 45 min")  # 990 steps at 10 s
    assert lefts[-1].endswith("11 min 40 s")  # 700 steps at 1 s


def test_a_resumed_stage_says_so_and_does_not_count_the_steps_before(monkeypatch):
    stream, clock = io.StringIO(), Clock()
    console = Console(enabled=True, stream=stream, clock=clock)

    console.stage_started("ssd-I", epochs=10, steps_per_epoch=100, first_step=500)
    clock.now = 10.0
    progress(console, 510)

    assert "resumed after step 500 of 1,000" in stream.getvalue()
    assert "step 510/1,000  8 min 10 s left" in stream.getvalue()


def test_losses_that_are_not_numbers_and_absent_accuracies_are_shown_as_they_are():
    stream = io.StringIO()
    console = Console(enabled=True, stream=stream)
    console.stage_started("ssd-II", epochs=1, steps_per_epoch=1)

    progress(console, 1, losses={"classification": float("nan")}, accuracy={})

    line = stream.getvalue().splitlines()[-1]
    assert "loss: classification nan" in line
    assert "accuracy" not in line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (42.4, "42 s"),
        (59.6, "1 min 00 s"),
        (3_599.7, "1 h 00 min"),
        (7_800, "2 h 10 min"),
        (100_800, "1 d 04 h"),
    ],
)
def test_times_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_a_stage_does_not_inherit_the_pace_of_the_one_before():
    stream, clock = io.StringIO(), Clock()
    console = Console(enabled=True, stream=stream, clock=clock)
    console.stage_started("ssd-I", epochs=1, steps_per_epoch=100)
    clock.now = 1000.0
    progress(console, 100)

    console.stage_started("ssd-II", epochs=1, steps_per_epoch=100)
    clock.now = 1010.0
    progress(console, 10)

    assert "step 10/100  1 min 30 s left" in stream.getvalue().splitlines()[-1]


def test_a_job_log_gets_a_line_of_progress_every_few_seconds_and_the_last_one():
    stream, clock = io.StringIO(), Clock()
    console = Console(enabled=True, stream=stream, clock=clock)
    console.stage_started("ssd-I", epochs=3, steps_per_epoch=100)

    for step in (1, 2, 3, 300):
        clock.now += 2.0
        progress(console, step)

    shown = [line for line in stream.getvalue().splitlines() if "step" in line][1:]
    assert [line.split("step ")[1].split("/")[0] for line in shown] == ["1", "300"]
