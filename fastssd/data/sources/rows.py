"""The labels and paths that the files of a source write: read and checked alike for all sources."""

import math
import os
import re
import unicodedata
from pathlib import Path

_LONGEST = 1000  # characters of a label
_TOO_LARGE = 1 << 60  # for a number: such ones could be chosen to collide as keys
_DIGITS = re.compile(f"-?\\d{{1,{_LONGEST}}}", re.ASCII)


def label_text(value: object) -> str:
    """Return a label as text: a name, or a whole number.

    Args:
        value: What stands in the source. A number with nothing behind its point is a whole one.

    Raises:
        ValueError: If it is no label, such as null, NaN or a list; the message is the reason.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise ValueError("bytes that are no text are no label") from error
    if isinstance(value, str):
        text = value.strip()
        if not text:
            raise ValueError("an empty text is no label")
        if len(text) > _LONGEST:
            raise ValueError(f"a text of {len(text):,} characters is no label ({text[:20]}...)")
        if not text.isprintable() and ("\0" in text or len(text.splitlines()) > 1):
            raise ValueError(f"{text[:40]!r} is no label, which is one line of text")
        # One text in two forms of Unicode would be two classes that look alike.
        return text if text.isascii() else unicodedata.normalize("NFC", text)
    if isinstance(value, bool):
        return str(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise ValueError(f"{'null' if value is None else 'NaN'} is no label")
    if isinstance(value, int | float):
        return str(whole_number(value))
    raise ValueError(f"a {type(value).__name__} is no label, which is one whole number or one name")


def whole_number(value: object) -> int:
    """Return a whole number that stands in a source as a number or a text.

    Raises:
        ValueError: If it is none; the message is the reason.
    """
    number = None
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        number = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    if number is None:
        raise ValueError(f"{str(value)[:40]!r} is not a whole number")
    if abs(number) >= _TOO_LARGE:
        raise ValueError(f"{str(value)[:40]} is too large for the number of a class or an image")
    return number


class Within:
    """The paths that a source may name: those below one folder.

    A file that was fetched from somewhere must not choose what is read from this machine. Links on
    the disk are followed: whoever made the folder made them.

    Args:
        root: The folder; relative paths start there.
        remedy: What to do about a path outside of it, for messages.
    """

    def __init__(self, root: Path, remedy: str = "") -> None:
        self._root = root
        self._remedy = remedy
        # A root that is a link may be named by either of its paths.
        places = (os.path.abspath(root), os.path.realpath(root))  # noqa: PTH100 - keeps links
        self._prefixes = [place.rstrip("/") + "/" for place in places]

    def relative(self, text: str) -> str:
        """Return the path from the root, without ``.``, ``..`` and double slashes.

        Raises:
            ValueError: If it is none, or leads out of the root; the message is the reason.
        """
        if not text or "\0" in text:
            raise ValueError(f"{text!r} is not the path of a file")
        path = os.path.normpath(text)
        if path.startswith("/"):
            path = "/" + path.lstrip("/")  # normpath leaves two slashes as they are
            inside = [prefix for prefix in self._prefixes if path.startswith(prefix)]
            path = path.removeprefix(inside[0]) if inside else ".."
        if path == ".." or path.startswith("../"):
            raise ValueError(f"{text!r} lies outside of {self._root}{self._remedy}")
        if path in (".", ""):
            raise ValueError(f"{text!r} is the path of a folder, not of a file")
        return path
