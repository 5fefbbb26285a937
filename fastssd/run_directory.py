"""A run directory as a whole: whose it is, who is writing it, and what its run is doing."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastssd.config import Config
from fastssd.errors import ConfigError, DataError
from fastssd.files import remove_partial, write_atomically
from fastssd.places import check_output
from fastssd.reading import parse_json, read_bytes, reading, value_at
from fastssd.recipe_file import differences, load_config, to_yaml
from fastssd.streams import tell
from fastssd.untrusted import error_for_terminal

_MAY_CHANGE = (
    "data.path",
    "data.decoder",
    "data.threads",
    "data.prefetch",
    "data.read_ahead",
    "data.timeout",
    "compile",
    "compute_threads",
    "log.every",
    "output",
    "watchdog",
)
"""Keys that a resumed run may have otherwise: they change results by rounding, if at all. Which
dataset and decoder they come to is compared with each stage's record (stages/record.py)."""

_LOCK = ".lock"


@contextmanager
def claimed(output: Path, config: Config, *, write: bool) -> Iterator[Callable[[], None]]:
    """Make the run directory, or check that the run in it is this one, and keep others out.

    Args:
        output: The directory.
        config: This run's.
        write: Whether this process does so for all.

    Yields:
        What notes the config in the directory, where it isn't yet: to be called once nothing else
        refuses it, or stages that are there would get the settings of another run.

    Raises:
        ConfigError: If it holds a run with other settings, naming them, can't be made, is a part of
            a dataset or of another run, or another run is writing it. A run that failed before its
            first stage doesn't count: its settings were to be mended.
        DataError: If it can't be read or written.
    """
    path = output / "config.yaml"
    with reading(output):
        check_output(output, Path(config.data.path))
        begun = path.exists() and any(entry.is_dir() for entry in output.iterdir())
    if begun:
        differing = [
            line for key, line in differences(load_config(path), config) if key not in _MAY_CHANGE
        ]
        if differing:
            raise ConfigError(
                f"output={output} holds a run with other settings: {'; '.join(differing)}; "
                "choose another output, or delete the old run"
            )
        new = False
    else:
        new = True
    if not write:
        yield lambda: None
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output={output} can't be written: {error.strerror}") from error
    with _alone(output):
        remove_partial(output)
        yield lambda: write_atomically(path, to_yaml(config)) if new else None


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Keep the directory locked, where its file system has locks; the kernel frees it at our end.

    Raises:
        ConfigError: If another process holds it.
    """
    try:
        lock = os.open(output / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(f"output={output} can't be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(lock, 1000, 0).decode(errors="replace").strip()
            raise ConfigError(
                f"output={output}: another run is writing it ({owner or 'an unknown process'}): "
                "wait for its end, or stop it"
            ) from error
        except OSError:  # of a file system without locks
            yield
            return
        with contextlib.suppress(OSError):  # a full disk, which is said where more is written
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


class Status:
    """Writes status.json: what a run is doing, and what ended it.

    Launchers flatten exit codes to 1; this file keeps the one of the process that failed first.

    Args:
        path: The file.
        is_main: Whether this process speaks for all; any process tells of its own failure.
    """

    def __init__(self, path: Path, *, is_main: bool) -> None:
        self._path = path
        self._is_main = is_main
        self._stage: str | None = None

    def running(self, stage: str | None) -> None:
        """Note the stage that begins; None before the first.

        Raises:
            DataError: If it can't be written.
        """
        self._stage = stage
        if self._is_main:
            self._write("running")

    def ended(self, state: str, *, exit_code: int, error: str | None = None) -> None:
        """Note a last state: `done`, `stopped` or `failed`; a full disk keeps it from nothing."""
        # What the others fail of, once a process has failed, is only that it is gone.
        told_by_another = state == "failed" and self._state() == "failed"
        if (self._is_main or state == "failed") and not told_by_another:
            try:
                self._write(state, exit_code=exit_code, error=error)
            except DataError as problem:
                tell(f"fastssd: {error_for_terminal(problem)}")

    def _state(self) -> str | None:
        try:
            return value_at(parse_json(read_bytes(self._path), dict), "state", str)
        except (OSError, ValueError):
            return None

    def _write(self, state: str, *, exit_code: int | None = None, error: str | None = None) -> None:
        content = {"state": state, "stage": self._stage, "error": error, "exit_code": exit_code}
        write_atomically(self._path, json.dumps(content, indent=2) + "\n")
