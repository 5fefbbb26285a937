"""A process in which nothing happens any more says so, and ends: a peer or a disk may be gone."""

import faulthandler
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import torch.distributed as dist

from fastssd.core.streams import tell_at_once
from fastssd.native.watch import Watch

_PACKAGE = str(Path(__file__).parents[1])
_SECONDS_TO_TELL = 10.0
_STDERR = 2  # sys.stderr may be an object without a descriptor


def myself() -> str:
    """Return this process as messages name it: its rank, and its host."""
    return f"rank {os.environ.get('RANK', '0')} on {socket.gethostname()}"


class Watchdog:
    """Ends this process, with a message and every thread's stack, after too long a silence.

    A thread counts the seconds since the last `beat`. Should it be kept from running itself (a
    read that never returns may hold Python's lock), a second one, in C, ends the process after
    twice the time. Time in which the whole process was stopped does not count for either.

    Args:
        seconds: Of silence that are too long; 0 never ends the process.
        tell: Told the message before the end, for a record; it may hang itself.

    Attributes:
        doing: What the process is at, in words.
    """

    def __init__(self, seconds: float, *, tell: Callable[[str], None]) -> None:
        self.doing = "starting"
        self._seconds = seconds
        self._tell = tell
        self._silence = 0.0
        self._closed = threading.Event()
        self._watch: Watch | None = None
        if seconds:
            self._watch = Watch(
                2 * seconds,
                f"fastssd: {myself()}: nothing has happened for {2 * seconds:.0f} s, and Python "
                "itself stands still: a file system that does not answer is the usual reason; "
                "start the same command again when it does (key watchdog sets the time)",
            )
            threading.Thread(target=self._count, name="fastssd-watchdog", daemon=True).start()

    def beat(self) -> None:
        """Say that something happened."""
        self._silence = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._watch is not None:
            self._watch.close()

    def too_long(self, seconds: float) -> bool:
        """Count seconds of silence, and return whether it has become too long."""
        self._silence += seconds
        return self._silence > self._seconds

    def _count(self) -> None:
        tick = min(self._seconds / 4, 5.0)
        before = time.monotonic()
        while not self._closed.wait(tick):
            now = time.monotonic()
            if self.too_long(min(now - before, 2 * tick)):
                self._end()
            before = now
            if self._watch is not None:
                self._watch.beat()

    def _end(self) -> None:
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        message = (
            f"{myself()}, {self.doing}: nothing has happened for {self._seconds:.0f} s, at "
            f"{place_of(frame)}: another process or a file system does not answer; start the same "
            "command again when it does (key watchdog sets the time)"
        )
        tell_at_once(f"fastssd: {message}")
        faulthandler.dump_traceback(all_threads=True, file=_STDERR)
        telling = threading.Thread(target=self._tell, args=(message,), daemon=True)
        telling.start()
        telling.join(_SECONDS_TO_TELL)
        os._exit(1)


def lost_peer(error: BaseException) -> str | None:
    """Return what to say if an error is that of waiting for another process, else None."""
    # Gloo raises plain RuntimeErrors, known by their C++ file alone.
    if not isinstance(error, dist.DistError) and "gloo/" not in str(error):
        return None
    reason = str(error).splitlines()[0].rpartition("] ")[2] or type(error).__name__
    return (
        f"{myself()}: lost another process of the run, at {place_of(error.__traceback__)}: "
        f"{reason}; see what that one says, then start the same command again"
    )


def place_of(where: FrameType | TracebackType | None) -> str:
    """Return the innermost line of ours in a stack or a traceback, as `file:line in function`."""
    frames = []
    while isinstance(where, TracebackType):
        frames.append((where.tb_frame, where.tb_lineno))
        where = where.tb_next
    frames.reverse()
    while isinstance(where, FrameType):
        frames.append((where, where.f_lineno))
        where = where.f_back
    for frame, line in frames:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            file = Path(frame.f_code.co_filename).relative_to(Path(_PACKAGE).parent)
            return f"{file}:{line} in {frame.f_code.co_name}"
    return "no line of fastssd"
