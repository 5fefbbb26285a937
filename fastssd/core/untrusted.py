"""Text that users bring (names, paths, keys) as data, wherever it is shown.

Every file name and class name may hold what a terminal, Markdown or Matplotlib takes for a command:
escape sequences, markup, formulas, line ends, bytes that are no text. Each function here returns
text that shows what was brought and does nothing else. None of them fails.
"""

import re
import unicodedata

_JOINERS = "\u200c\u200d"
"""Characters without a width that some scripts and emoji cannot be spelled without."""

_MARKDOWN = {ord(char): f"\\{char}" for char in "\\`*_[]{}|~^$@"} | {
    # Not every dialect knows a backslash before these.
    ord("&"): "&amp;",
    ord("<"): "&lt;",
    ord(">"): "&gt;",
}
_LINK = re.compile(r":(?=//)|(?<=www)\.", re.IGNORECASE)
_BLOCK = re.compile(r"^(?:[0-9]{1,9}(?=[.)])|(?=[#+=:-]))")
_EDGE = re.compile(r"^\s+|\s+$")


def for_terminal(text: object, *, encoding: str = "utf-8") -> str:
    r"""Return one line in which control characters, line ends and the like are escapes.

    Text that turns the direction of what follows it counts as control, and so does what was no
    text: a byte of a file name that is not UTF-8 becomes ``\xff``.

    Args:
        text: Shown as `str` has it.
        encoding: Of the stream; what it lacks is an escape too.
    """
    line = str(text)
    if not line.isprintable():
        line = "".join(map(_visible, line))
    return line.encode(encoding, "backslashreplace").decode(encoding)


def error_for_terminal(error: BaseException) -> str:
    """Return what an error says, a line for each of its arguments."""
    return "\n".join(map(for_terminal, error.args))


def for_markdown(text: object) -> str:
    """Return text that Markdown renders as it stands, within a line, a table's cell or alone."""
    line = _LINK.sub(r"\\\g<0>", for_terminal(text).translate(_MARKDOWN))
    line = _BLOCK.sub(r"\g<0>\\", line)
    return _EDGE.sub(lambda match: "".join(f"&#{ord(char)};" for char in match[0]), line)


def for_figure(text: object) -> str:
    """Return text that Matplotlib draws as it stands, in a legend too.

    It takes what stands between two dollars for a formula, and leaves lines out of a legend whose
    names begin with an underscore.
    """
    line = for_terminal(text).replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line


def _visible(char: str) -> str:
    if char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs":
        return char
    if "\udc80" <= char <= "\udcff":  # how Python keeps a byte that is not UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()
