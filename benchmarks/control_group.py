"""A limit of memory for processes, their share of the page cache included: Linux control groups."""

import os
import time
from pathlib import Path
from types import TracebackType

_ROOT = Path("/sys/fs/cgroup")


class ControlGroup:
    """A group that exists within a `with`; processes `enter` it.

    Args:
        limit: Bytes; None for no group at all.

    Raises:
        SystemExit: If this system does not let us make one.
    """

    def __init__(self, limit: float | None) -> None:
        self._folder: Path | None = None
        if limit is None:
            return
        in_version_1 = (_ROOT / "memory").is_dir()
        folder = (_ROOT / "memory" if in_version_1 else _ROOT) / f"fastssd-{os.getpid()}"
        try:
            folder.mkdir()
            self._folder = folder
            name = "memory.limit_in_bytes" if in_version_1 else "memory.max"
            (folder / name).write_text(str(int(limit)), encoding="ascii")
        except OSError as error:
            self.__exit__(None, None, None)
            raise SystemExit(
                f"{folder}: no control group can be made ({error.strerror}): start this as root, "
                "or in `systemd-run --scope -p MemoryMax=...` with --limits none"
            ) from error

    def enter(self) -> None:
        """Put the calling process, and those that it will start, into the group."""
        if self._folder is not None:
            (self._folder / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")

    def __enter__(self) -> "ControlGroup":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for _ in range(100):
            try:
                if self._folder is not None:
                    self._folder.rmdir()
                return
            except OSError:  # the last process is still ending
                time.sleep(0.1)
