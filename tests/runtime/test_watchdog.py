"""A process that hangs says where and ends; one that works, or was stopped, is left alone."""

import sys
import threading

import pytest

from fastssd.runtime import watchdog
from fastssd.runtime.watchdog import Watchdog, lost_peer, place_of


@pytest.fixture
def ended(monkeypatch):
    """Return an event that is set, with the exit code, where the process would end."""
    event = threading.Event()

    def end(code):
        event.code = code
        event.set()

    monkeypatch.setattr(watchdog.os, "_exit", end)
    monkeypatch.setattr(watchdog, "Watch", lambda *_: None)  # which would end this process
    monkeypatch.setattr(watchdog.faulthandler, "dump_traceback", lambda **_: None)
    return event


def test_after_too_long_a_silence_the_message_names_rank_stage_and_place(ended, capfd, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    told = []
    with Watchdog(0.05, tell=told.append) as alive:
        alive.doing = "in ssd-III"
        assert ended.wait(20)
    assert ended.code == 1
    error = capfd.readouterr().err
    assert told[0] in error
    for words in ("rank 3 on ", "in ssd-III", "for 0 s", "start the same command again"):
        assert words in told[0]


def test_a_record_that_hangs_too_does_not_keep_the_process(ended, monkeypatch):
    monkeypatch.setattr(watchdog, "_SECONDS_TO_TELL", 0.05)
    hang = threading.Event()
    with Watchdog(0.05, tell=lambda message: hang.wait()):
        assert ended.wait(20)
    hang.set()


def test_signs_of_life_keep_a_process():
    with Watchdog(0, tell=print) as alive:
        alive._seconds = 4
        for _ in range(8):
            assert not alive.too_long(2)
            alive.beat()
        assert not alive.too_long(4)
        assert alive.too_long(0.1)


def test_time_in_which_the_whole_process_was_stopped_does_not_count(ended, monkeypatch):
    clock = [0.0]
    ticked = threading.Event()

    def now():
        clock[0] += 1000  # as after SIGSTOP and SIGCONT
        ticked.set()
        return clock[0]

    monkeypatch.setattr(watchdog.time, "monotonic", now)
    with Watchdog(0.4, tell=print) as alive:
        for _ in range(5):
            assert ticked.wait(20)
            ticked.clear()
            alive.beat()
    assert not ended.is_set()


def test_the_errors_of_lost_processes_are_told_from_others():
    gloo = RuntimeError(
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer "
        "[127.0.0.1]:2435\nmore"
    )
    assert "Connection closed by peer" in lost_peer(gloo) or "2435" in lost_peer(gloo)
    assert lost_peer(RuntimeError("CUDA out of memory")) is None
    assert lost_peer(KeyError("x")) is None


def test_the_place_is_the_innermost_line_of_ours():
    frame = sys._getframe()
    assert place_of(frame) == "no line of fastssd"
    assert place_of(None) == "no line of fastssd"
    with Watchdog(60, tell=print) as alive:
        thread = next(each for each in threading.enumerate() if each.name == "fastssd-watchdog")
        alive.beat()
        while "in _count" not in place_of(sys._current_frames()[thread.ident]):
            assert thread.is_alive()
