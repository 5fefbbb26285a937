"""A directory that appears whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastssd.errors import ConfigError


def check_target(out: Path, *, overwrite: bool, marker: str) -> None:
    """Check that a directory may be made, or replaced.

    Args:
        out: The directory.
        overwrite: Whether it may exist.
        marker: A file that a directory must hold to be replaced, unless it is empty.

    Raises:
        ConfigError: If not.
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


@contextmanager
def new_directory(out: Path, *, overwrite: bool, marker: str) -> Iterator[Path]:
    """Yield an empty directory beside `out` that takes its name when the block ends well.

    If the block raises, it is removed and `out` is as before. If the process is killed, it stays
    as `OUT.partial-PID`.

    Args:
        out: The directory to make.
        overwrite: Whether to replace an existing one.
        marker: See `check_target`.

    Raises:
        ConfigError: If `out` may not be made or replaced.
    """
    check_target(out, overwrite=overwrite, marker=marker)
    partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed process that had our number
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be made: {error.strerror}") from error
    try:
        yield partial
        for file in partial.iterdir():
            _sync(file)
        _sync(partial)
        check_target(out, overwrite=overwrite, marker=marker)
        _replace(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _replace(partial: Path, out: Path) -> None:
    if not out.exists():
        partial.rename(out)
    else:
        old = out.with_name(f"{out.name}.replaced-{os.getpid()}")
        out.rename(old)
        partial.rename(out)
        shutil.rmtree(old)
    _sync(out.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
