"""The places that a process of a run comes by, counted, and the one at which it is killed."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

_OPERATIONS = ("os.rename", "os.remove", "os.truncate", "os.mkdir", "os.link")


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where a run is killed.

    Attributes:
        place: Number of the place, None for a moment.
        torn: Share of a file that stands there when the place is in its writing.
        seconds: After the start, for a moment.
        rank: The process that is killed; None for all.
    """

    place: int | None = None
    torn: float = 1.0
    seconds: float | None = None
    rank: int | None = None


def count_places(output: Path, point: Point | None, rank: int) -> None:
    """Count the places that this process comes by, and kill it at the point's."""
    import fastssd.runtime.session
    import fastssd.train

    number = 0
    folder = f"{output}/"
    record = output.with_name(f"{output.name}.places.{rank}")

    def pass_by(what: str, tear=None) -> None:  # noqa: ANN001
        nonlocal number
        if point and point.place == number:
            if tear:
                tear()
            record.write_text(what, encoding="utf-8")
            os.kill(os.getpid(), signal.SIGKILL)
        number += 1

    def audit(event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            if not isinstance(path, str) or not path.startswith(folder):
                return
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                appends = isinstance(mode, str) and "a" in mode
                pass_by(f"open {path}", (lambda: _append_half_a_line(path)) if appends else None)
        elif event in _OPERATIONS and str(arguments[0]).startswith(folder):
            pass_by(f"{event} {arguments[0]}")

    def fsync(descriptor: int, real=os.fsync) -> None:  # noqa: ANN001
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if name.startswith(folder):
            is_new = ".partial" in name

            def tear() -> None:
                if is_new:
                    size = os.fstat(descriptor).st_size
                    os.truncate(name, int(point.torn * size) if point else size)

            pass_by(f"fsync {name}", tear)
        real(descriptor)

    def asked(session, real=fastssd.runtime.session.Session._asked_of_us) -> int:  # noqa: ANN001
        pass_by("a step or batch")
        return real(session)

    sys.addaudithook(audit)
    os.fsync = fsync
    fastssd.runtime.session.Session._asked_of_us = asked
    main = fastssd.train._run_claimed

    def run(*arguments) -> int:  # noqa: ANN002
        code = main(*arguments)
        if point is None:
            record.write_text(str(number), encoding="utf-8")
        return code

    fastssd.train._run_claimed = run


def _append_half_a_line(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, b'{"kind": "train", "epo')
    os.close(descriptor)
