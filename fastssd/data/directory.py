"""A directory that appears whole or not at all, and what a killed writer of it left behind."""

import contextlib
import ctypes
import fcntl
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from fastssd.core.files import sync_path
from fastssd.core.reading import parse_json, read_bytes
from fastssd.errors import ConfigError

Say = Callable[[str], None]
"""Called with a line for the user."""

_OURS = re.compile(
    r"(train|val|test)(\.\w+\.npy|\.names\.jsonl|\.beton|-\d+\.(tar|idx))|rejects\.jsonl|\..*"
)
"""Names of what conversions write beside their marker, and of hidden files."""
_SHOWN = 5
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h

# In the unfinished directory: its writer's host and number, locked for as long as it lives. The
# kernel ends the lock with the process, on whatever machine; a number alone may be another's.
_LOCK_FILE = ".writer"


def silent(line: str) -> None:
    """Say nothing."""


def check_target(out: Path, *, overwrite: bool, marker: str) -> None:
    """Check that a directory may be made, or replaced.

    Args:
        out: The directory.
        overwrite: Whether it may exist.
        marker: A file that a directory must hold to be replaced, unless it is empty.

    Raises:
        ConfigError: If not, or if it holds what no conversion wrote.
    """
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise ConfigError(f"{out} exists: choose another OUT, or replace it with --overwrite")
    if out.is_symlink() or not out.is_dir():
        raise ConfigError(f"{out} is not a directory, so it is not overwritten: remove it yourself")
    if not (out / marker).is_file() and any(out.iterdir()):
        raise ConfigError(
            f"{out} is not a dataset directory (it has no {marker}), so it is not overwritten: "
            "choose another OUT"
        )
    if (out / marker).is_file():
        _check_ours(out, marker)


def _check_ours(out: Path, marker: str) -> None:
    """Raise ConfigError if a directory that is to be replaced has more than conversions write."""
    try:
        meta = parse_json(read_bytes(out / marker), dict)
        listed = {"layout", "format", "splits"} <= meta.keys() and meta.get("files", {}).keys()
    except (OSError, ValueError, AttributeError):
        listed = False
    if listed is False:
        raise ConfigError(
            f"{out} is not overwritten: its {marker} is damaged, or not of a dataset directory: "
            "remove it yourself, or choose another OUT"
        )
    others = sorted(
        entry.name
        for entry in out.iterdir()
        if entry.name not in {marker, *listed}
        and (entry.is_dir() or not _OURS.fullmatch(entry.name))
    )
    if others:
        shown = ", ".join(others[:_SHOWN]) + (", ..." if len(others) > _SHOWN else "")
        raise ConfigError(
            f"{out} is not overwritten: it also holds what no conversion wrote ({shown}): move "
            "that away, or choose another OUT"
        )


@contextmanager
def new_directory(out: Path, *, overwrite: bool, marker: str, say: Say = silent) -> Iterator[Path]:
    """Yield an empty directory beside `out` that takes its name when the block ends well.

    If the block raises, it is removed and `out` is as before. If the process is killed, it stays
    as `OUT.partial-HOST-PID`, and the next call for the same `out` removes it.

    Args:
        out: The directory to make.
        overwrite: Whether to replace an existing one.
        marker: See `check_target`.
        say: Told what was removed.

    Raises:
        ConfigError: If `out` may not be made or replaced, or another process is making it.
    """
    with contextlib.ExitStack() as held:
        try:
            with contextlib.suppress(FileExistsError):  # maybe a file, said below
                out.parent.mkdir(parents=True)
            with _only_one(out.parent) as alone:
                _clear(out, say, alone=alone)
                check_target(out, overwrite=overwrite, marker=marker)
                partial = held.enter_context(_claimed(out))
        except OSError as error:
            raise ConfigError(f"{out}: cannot be made: {error.strerror}") from error
        yield partial
        for file in partial.iterdir():
            sync_path(file)
        sync_path(partial)
        with _only_one(out.parent):
            check_target(out, overwrite=overwrite, marker=marker)
            _replace(partial, out)


@contextmanager
def _claimed(out: Path) -> Iterator[Path]:
    """Make a directory of our own, locked; remove it if the block raises."""
    name = f"{out.name}.partial-{socket.gethostname()}-{os.getpid()}"
    partial = out.with_name(name)
    number = 1
    while os.path.lexists(partial):  # a container's process has our number
        number += 1
        partial = out.with_name(f"{name}.{number}")
    partial.mkdir()
    try:
        with (partial / _LOCK_FILE).open("w", encoding="utf-8") as lock:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.write(f"{socket.gethostname()} {os.getpid()}")
            lock.flush()
            yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _clear(out: Path, say: Say, *, alone: bool) -> None:
    """Remove what killed writers of `out` left.

    Args:
        out: The directory to make.
        say: Told of each.
        alone: Whether no other process is at this.

    Raises:
        ConfigError: If another process is writing `out`.
    """
    for path in sorted(out.parent.iterdir()):
        if path.name.startswith(f"{out.name}.partial-"):
            _clear_partial(out, path, say, alone=alone)
        elif path.name.startswith(f"{out.name}.replaced-") and alone:
            # Killed between the two names of `_replace`, or while it removed the old one.
            if os.path.lexists(out):
                shutil.rmtree(path)
                say(f"removed {path}: {out} had replaced it when its conversion was killed")
            else:
                path.rename(out)
                say(f"{out} is the old one again: a conversion was killed when it replaced it")


def _clear_partial(out: Path, partial: Path, say: Say, *, alone: bool) -> None:
    lives, owner = _owner(out, partial, alone=alone)
    if lives:
        raise ConfigError(
            f"{out}: another conversion is writing it ({owner}, in {partial.name}): wait for its "
            "end, or choose another OUT"
        )
    if lives is None:
        say(
            f"{partial} was left by {owner}, which may still run: remove it yourself if it does not"
        )
        return
    shutil.rmtree(partial)
    say(f"removed {partial}, left by a conversion that was killed ({owner}); starting over")


def _owner(out: Path, partial: Path, *, alone: bool) -> tuple[bool | None, str]:
    """Return whether the writer of a directory lives, None if it cannot be told, and who it is."""
    # Its name tells too: the writer may have been killed before it wrote who it was.
    host, _, number = partial.name.removeprefix(f"{out.name}.partial-").rpartition("-")
    try:
        with (partial / _LOCK_FILE).open("r+", encoding="utf-8") as lock:
            if written := lock.read():
                host, _, number = written.partition(" ")
            return _lives(lock, host), _named(host, number)
    except FileNotFoundError:
        # Killed between two moments of which the other processes of this machine see none, or
        # after it had put the new directory in the place of this one.
        dead = alone and host == socket.gethostname()
        return False if dead else None, _named(host, number)
    except OSError:
        return None, _named(host, number)


def _named(host: str, number: str) -> str:
    return f"process {number} on {host}" if host and number else "an unknown process"


def _lives(lock: TextIO, host: str) -> bool | None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    # Some network file systems keep the locks of each machine to itself.
    return False if host == socket.gethostname() else None


@contextmanager
def _only_one(folder: Path) -> Iterator[bool]:
    """Let one process at a time into the block; yield whether the file system could do that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # network file systems lock no directories
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _replace(partial: Path, out: Path) -> None:
    old = None
    if out.exists() and _exchange(partial, out):
        old = partial
    else:
        if out.exists():
            old = out.with_name(f"{out.name}.replaced-{os.getpid()}")
            out.rename(old)
        partial.rename(out)
    # Only now: if we are killed before, the next writer knows by it that we are dead.
    (out / _LOCK_FILE).unlink()
    sync_path(out)
    if old is not None:
        shutil.rmtree(old)
    sync_path(out.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one moment; return whether the system could do that."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    names = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
    return bool(rename(*names, _RENAME_EXCHANGE) == 0)
