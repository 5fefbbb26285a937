"""What signals do to a run: the first asks it to stop, and no number of later ones ends it."""

import os
import signal

import pytest

from fastssd.runtime.signals import Signals

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@pytest.fixture(autouse=True)
def handlers_as_before(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    kept = {number: signal.getsignal(number) for number in HANDLED}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    "sent",
    [
        (signal.SIGINT, signal.SIGINT, signal.SIGTERM),  # Ctrl-C, passed on; the launcher's death
        (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
        (signal.SIGHUP, *[signal.SIGINT] * 20),
    ],
)
def test_the_first_signal_counts_and_none_that_follows_ends_the_process(sent):
    signals = Signals(loud=False)
    for number in sent:
        os.kill(os.getpid(), number)  # handled before this returns
        assert signals.number == sent[0]


def test_what_to_do_is_said_at_once_and_again_to_who_presses_ctrl_c_again(capfd):
    Signals(loud=True)
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)

    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "SIGINT" in lines[0]
    assert f"kill -QUIT {os.getpid()}" in lines[1]


def test_sigquit_is_left_to_the_kernel_so_that_it_ends_a_process_that_hangs():
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)  # as a shell's background job finds it
    Signals(loud=False)
    assert signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL


@pytest.mark.parametrize(("launcher", "handled"), [(None, False), ("TORCHELASTIC_RUN_ID", True)])
def test_under_nohup_a_lost_terminal_is_ignored_but_not_what_torchrun_passes_on(
    monkeypatch, launcher, handled
):
    if launcher:
        monkeypatch.setenv(launcher, "1")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals = Signals(loud=False)
    os.kill(os.getpid(), signal.SIGHUP)
    assert signals.number == (signal.SIGHUP if handled else 0)
