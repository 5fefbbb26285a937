"""A run directory as a whole: whose it is, who is writing it, and what its run is doing."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastssd.core.files import remove_partial, write_atomically
from fastssd.core.places import check_output
from fastssd.core.reading import parse_json, read_bytes, reading, value_at
from fastssd.core.streams import tell
from fastssd.core.untrusted import error_for_terminal
from fastssd.errors import ConfigError, DataError
from fastssd.method_file import own_method_files
from fastssd.recipe_file import Recipe, load_recipe, to_yaml, with_earlier

CONFIG = "config.yaml"
METHODS = "methods"
"""Files of methods that no package brings: with them the config can be read anywhere."""
_LOCK = ".lock"
_OLD_FOLDERS = ("1-features", "2-balance", "3-distill", "baseline-ce")


@contextmanager
def claimed(output: Path, recipe: Recipe, *, write: bool) -> Iterator[Callable[[], None]]:
    """Make the run directory, and keep other runs out of it.

    Whether the stages in it are those that are asked for is known once the dataset is open
    (`fastssd.runtime.record.check_folders`).

    Args:
        output: The directory.
        recipe: This run's.
        write: Whether this process does so for all.

    Yields:
        What notes the config in the directory, where it isn't yet: to be called once nothing else
        refuses it, or stages that are there would get the settings of another run.

    Raises:
        ConfigError: If it holds a run of an earlier version, can't be made, is a part of a dataset
            or of another run, or another run is writing it.
        DataError: If it can't be read or written.
    """
    with reading(output):
        check_output(output, Path(recipe.config.data.path))
        _check_version(output)
    if not write:
        yield lambda: None
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output={output} can't be written: {error.strerror}") from error
    with _alone(output):
        remove_partial(output)
        path = output / CONFIG

        def note() -> None:
            whole = _with_earlier(path, recipe)
            _keep_methods(output / METHODS, recipe)
            write_atomically(path, to_yaml(whole))

        yield note


def _keep_methods(folder: Path, recipe: Recipe) -> None:
    """Copy the methods' files that are only found from the recipe to where the config is."""
    for name, path in own_method_files(recipe.path, recipe.methods).items():
        with reading(path):
            content = read_bytes(path)
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{name}.yaml", content)


def _with_earlier(path: Path, recipe: Recipe) -> Recipe:
    """Return the recipe with the methods that the directory has already."""
    try:
        return with_earlier(recipe, load_recipe(path)) if path.exists() else recipe
    except ConfigError:  # written by hand, or naming a method that there is no more
        return recipe


def _check_version(output: Path) -> None:
    """Refuse a run of fastssd 0.1, whose stages had other names and settings."""
    if any((output / folder).is_dir() for folder in _OLD_FOLDERS):
        raise ConfigError(
            f"output={output} holds a run of fastssd 0.1 ({', '.join(_OLD_FOLDERS[:2])}, ...), "
            "whose stages this version can't go on with: choose another output"
        )


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
