"""Ending a process whose interpreter hangs: a thread in C, which needs none of its locks.

Seconds in which the whole process was stopped (Ctrl-Z, a paused container) do not count.
"""

import ctypes
import faulthandler
import signal

from fastssd.native.library import function, library

_STDERR = 2  # sys.stderr may be an object without a descriptor
_DUMP = signal.SIGRTMAX - 1 if hasattr(signal, "SIGRTMAX") else signal.SIGUSR2
"""Raised by the thread itself, for faulthandler to write every thread's stack."""


class Watch:
    """Ends this process, with every thread's stack and code 1, after too long without a `beat`.

    One at a time. Where the native kernels are missing it does nothing.

    Args:
        seconds: That are too long.
        message: Written first.

    Attributes:
        watches: Whether it does anything.
    """

    def __init__(self, seconds: float, message: str) -> None:
        self.watches = library() is not None
        if not self.watches:
            return
        faulthandler.register(_DUMP, file=_STDERR, all_threads=True)
        arguments = [ctypes.c_double, ctypes.c_int, ctypes.c_char_p]
        start = function("fastssd_watch", arguments=arguments, result=ctypes.c_int)
        self.watches = start(seconds, _DUMP, f"{message}\n".encode(errors="replace")) == 0
        self._beat = function("fastssd_beat", arguments=[], result=None)

    def beat(self) -> None:
        """Say that the interpreter runs."""
        if self.watches:
            self._beat()

    def close(self) -> None:
        """Watch no longer."""
        if self.watches:
            self.watches = False
            function("fastssd_stop_watching", arguments=[], result=None)()
