"""Standard output and error that may go away: what a person reads must never cost the work.

A pipe whose reader has left, a terminal that is gone, a full disk under a log file, a descriptor
that was closed from the start: lines are lost, and nothing else is. A reader that stands still (a
pager, Ctrl-S on a terminal) makes nobody wait.
"""

import io
import os
import select
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

_PATIENCE = 1.0
"""Seconds that a reader which stands still is waited for, once; then lines are left out."""
_STDIN, _STDOUT, _STDERR = 0, 1, 2


class Lasting:
    """A text stream that drops what cannot be written.

    Args:
        stream: Written to; None, as Python has it for a closed descriptor, drops everything.

    Attributes:
        problem: Why the last text was dropped; empty where it was not.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._stalled = False
        self.problem = ""

    def write(self, text: str) -> int:
        """Write, or drop, a text; return its length either way."""
        if self._stream is None:
            self.problem = "it is closed"
        elif not self._takes():
            self.problem = "nobody reads it"
        else:
            self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Pass on what is written, as far as that can be done."""
        if self._stream is not None and not self.problem:
            self._try(self._stream.flush)

    def isatty(self) -> bool:
        """Return whether there is a terminal."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    @property
    def encoding(self) -> str:
        """Of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else a text stream has
        return getattr(self._stream, name)

    def _try(self, work: Any, *arguments: str) -> None:  # noqa: ANN401
        try:
            work(*arguments)
        except OSError as error:
            self.problem = error.strerror or str(error)
        except ValueError as error:
            if not getattr(self._stream, "closed", False):
                raise
            self.problem = str(error)
        else:
            self.problem = ""

    def _takes(self) -> bool:
        """Return whether writing a line would not have to wait for a reader."""
        try:
            descriptor = cast(TextIO, self._stream).fileno()
        except (OSError, ValueError, AttributeError):  # of memory, or closed
            return True
        takes = _is_ready(descriptor, 0.0 if self._stalled else _PATIENCE)
        self._stalled = not takes
        return takes


def lasting(stream: TextIO | None) -> TextIO:
    """Return `Lasting(stream)`, as the type that libraries ask for."""
    return cast(TextIO, Lasting(stream))


def tell(text: str) -> None:
    """Print a line on standard error, whatever becomes of it."""
    _print(text, sys.stderr)


def show(text: str) -> None:
    """Print a line on standard output, whatever becomes of it."""
    _print(text, sys.stdout)


def tell_at_once(text: str) -> None:
    """Print a line on standard error past Python's buffers: for signal handlers and last words."""
    with suppress(OSError):
        if _is_ready(_STDERR, 0.0):
            os.write(_STDERR, (text + "\n").encode(errors="backslashreplace"))


def prepare() -> None:
    """Make standard streams safe to write to; the first thing that a command does.

    A descriptor that is closed would be given to the next file that is opened, and what a library
    prints would stand in that file.
    """
    for descriptor in (_STDIN, _STDOUT, _STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            _to_nowhere(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def finish(exit_code: int) -> int:
    """Return a command's exit code, which the interpreter then keeps; the last thing that it does.

    It would end with 120 where standard output cannot be flushed.
    """
    for stream, descriptor in ((sys.stdout, _STDOUT), (sys.stderr, _STDERR)):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            _to_nowhere(descriptor)
    return exit_code


def _print(text: str, stream: TextIO | None) -> None:
    target = Lasting(stream)
    target.write(text.encode(target.encoding, "backslashreplace").decode(target.encoding) + "\n")
    target.flush()


def _is_ready(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(1000 * seconds))


def _to_nowhere(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
    os.set_inheritable(descriptor, True)
