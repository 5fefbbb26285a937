"""Signals that ask a run to stop. However many come, and whenever: they ask, and never kill."""

import os
import signal
from types import FrameType

from fastssd.core.streams import tell_at_once


class Signals:
    r"""Remembers the first of SIGINT, SIGTERM and SIGHUP; later ones change nothing.

    One Ctrl-C may reach a process three times: from the terminal, from a launcher that passes it
    on, and as the SIGTERM of that launcher's death, on a busy machine many seconds later. No
    counting and no clock tells that from a person who is impatient. So ending at once, without a
    checkpoint, has a signal of its own, which no launcher sends unasked: SIGQUIT, Ctrl-\ on a
    terminal. It is the kernel's doing, so that it ends a process that hangs as well.

    A SIGHUP that is ignored, as under nohup, stays so; but torchrun, which does not ignore it,
    passes it on and kills what has not ended soon after.

    Args:
        loud: Whether to say what a signal does, as one process of a run should.

    Attributes:
        number: Of the first signal, or 0.
    """

    def __init__(self, *, loud: bool) -> None:
        self.number = 0
        self._loud = loud
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        if not ignored or "TORCHELASTIC_RUN_ID" in os.environ:
            signal.signal(signal.SIGHUP, self._note)
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a shell's background jobs ignore it

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_first = not self.number
        self.number = self.number or number
        # A launcher's SIGTERM behind a Ctrl-C is no news; a second Ctrl-C asks for an answer.
        if self._loud and (is_first or number == signal.SIGINT):
            tell_at_once(
                f"fastssd: {signal.Signals(self.number).name}: the run stops at its next step, "
                "with a checkpoint; Ctrl-\\, or kill -QUIT "
                f"{os.getpid()}, ends it at once and loses what came after the last checkpoint"
            )
