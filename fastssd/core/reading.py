"""Reading files that somebody else may have made: regular files alone, of a bounded size, and JSON.

A name may lead to a pipe that nobody writes to, to a device, or to eight terabytes of zeros; JSON
may be nested deeper than any parser goes. Whatever a user, a source, a dataset directory or a run
directory names is opened here, so that each of these is said at once, with the file.
"""

import errno
import io
import json
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from fastssd.errors import DataError

MAX_BYTES = 1 << 30
"""Of a file that is read into memory whole: a list of 10 million images is smaller."""

_Value = TypeVar("_Value")
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
# What reading content that is not as expected leads to, besides OSError and LookupError.
_DAMAGE = (
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    EOFError,
    RuntimeError,  # RecursionError among them
    MemoryError,
    SyntaxError,
    struct.error,
    zlib.error,
)


@contextmanager
def reading(where: Path | str, remedy: str = "") -> Iterator[None]:
    """Say what cannot be read, and why, where the block fails to open it or to understand it.

    The block should do nothing else: what it raises counts as a fault of the file.

    Args:
        where: The file, maybe with a line or member.
        remedy: What to do about it.

    Raises:
        DataError: In place of whatever the file's content made the block raise.
    """
    try:
        yield
    except (OSError, LookupError, *_DAMAGE) as error:
        if isinstance(error, OSError) and error.strerror:
            reason = f"cannot be read: {reason_of(error)}"
        elif isinstance(error, KeyError):
            reason = f"damaged: it lacks {error}"
        else:
            reason = f"damaged: {reason_of(error)}"
        raise DataError(f"{where}: {reason}{f'; {remedy}' if remedy else ''}") from error


def reason_of(error: Exception) -> str:
    """Return why something could not be read, without the file's name and in one line."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).splitlines()
    return lines[0] if lines and lines[0] else type(error).__name__


def check_regular(path: Path) -> None:
    """Check that a name leads to a regular file, for libraries that open files by themselves.

    Raises:
        OSError: If it does not.
    """
    _check_mode(path, path.stat().st_mode)


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading; anything else is not opened.

    Raises:
        OSError: If it is no regular file or cannot be opened.
    """
    return os.fdopen(_open(path)[0], "rb")


def open_text(
    path: Path,
    *,
    encoding: str = "utf-8",
    errors: str = "strict",
    newline: str | None = None,
) -> TextIO:
    """Open a regular file of at most `MAX_BYTES` for reading text; see the built-in `open`.

    Raises:
        OSError: If it is none, or larger, or cannot be opened.
    """
    descriptor, size = _open(path)
    file = os.fdopen(descriptor, "rb")
    if size > MAX_BYTES:
        file.close()
        raise _too_large(path, size, MAX_BYTES)
    return io.TextIOWrapper(file, encoding=encoding, errors=errors, newline=newline)


def read_bytes(path: Path, *, limit: int = MAX_BYTES) -> bytes:
    """Return the content of a regular file.

    Args:
        path: The file.
        limit: Bytes at most.

    Raises:
        OSError: If it is no regular file, or larger, or cannot be read.
    """
    descriptor, size = _open(path)
    try:
        if size > limit:
            raise _too_large(path, size, limit)
        content = os.read(descriptor, size + 1)
        if len(content) == size and size:
            return content
        # It changes just now, or its file system knows no sizes, as /proc: on to its end.
        parts, total = [content], len(content)
        while content and total <= limit:
            content = os.read(descriptor, min(limit + 1 - total, 1 << 20))
            parts.append(content)
            total += len(content)
        if total > limit:
            raise _too_large(path, total, limit)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def read_text(path: Path, *, encoding: str = "utf-8") -> str:
    """Return the text of a regular file of at most `MAX_BYTES`.

    Raises:
        OSError: If it is none, or larger, or cannot be read.
        ValueError: If it is not text.
    """
    return read_bytes(path).decode(encoding)


def parse_json(content: str | bytes, kind: type[_Value]) -> _Value:
    """Return the value of a JSON text.

    Args:
        content: The text.
        kind: The type that the value must have, such as `dict`; `object` for any.

    Raises:
        ValueError: If it is not JSON, or of another type; the message is the reason alone.
    """
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError("it is not JSON that can be read: it is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    return _checked(value, kind, "it")


def value_at(content: Mapping[str, Any], key: str, kind: type[_Value]) -> _Value:
    """Return the value of a key of a JSON object.

    Raises:
        ValueError: If there is none, or it has another type; the message is the reason alone.
    """
    if key not in content:
        raise ValueError(f"it lacks {key!r}")
    return _checked(content[key], kind, repr(key))


def read_json(path: Path, keys: Mapping[str, type], *, remedy: str) -> dict[str, Any]:
    """Return the JSON object that a file holds.

    Args:
        path: The file.
        keys: What it must have, and of which types.
        remedy: What to do where it cannot be read.

    Raises:
        DataError: If it cannot be read or is another; names the file and the key.
    """
    with reading(path, remedy):
        content: dict[str, Any] = parse_json(read_bytes(path), dict)
        for key, kind in keys.items():
            value_at(content, key, kind)
    return content


def read_json_lines(path: Path, kind: type[_Value], *, remedy: str) -> list[_Value]:
    """Return what the lines of a file hold, one JSON value each.

    A last line without its end was cut by a kill and is left out.

    Raises:
        DataError: If the file or a line cannot be read; names both.
    """
    with reading(path, remedy):
        lines = read_bytes(path).split(b"\n")
    values = []
    for number, line in enumerate(lines[:-1], start=1):
        with reading(f"{path}, line {number}", remedy):
            values.append(parse_json(line, kind))
    return values


def _checked(value: Any, kind: type[_Value], what: str) -> _Value:  # noqa: ANN401 - JSON's
    if isinstance(value, kind) and (kind is not int or not isinstance(value, bool)):
        return value
    raise ValueError(f"{what} is {_JSON_NAMES[type(value)]} where {_JSON_NAMES[kind]} is expected")


def _open(path: Path) -> tuple[int, int]:
    """Return the descriptor and the size of a regular file."""
    check_regular(path)  # first: devices may do something when they are opened
    # It may have become another since then: a pipe must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        _check_mode(path, status.st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, status.st_size


def _check_mode(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, f"it is {kind}, not a file", str(path))


def _too_large(path: Path, size: int, limit: int) -> OSError:
    reason = f"it has {size:,} bytes, more than the {limit:,} that are read of such a file"
    return OSError(errno.EFBIG, reason, str(path))
