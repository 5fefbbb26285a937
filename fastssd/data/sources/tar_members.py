"""Which files lie where in a tar archive, whoever wrote it; nothing is unpacked.

Python's own reader reads a header of any length into memory and searches it in a time that grows
with the square of that. Here every block is read once, in order, and headers are bounded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
MAX_HEADER_BYTES = 1 << 20
"""Of what stands before a member to extend its header: longer names than paths can be."""

_FILES = (b"0", b"\0", b"7")
_WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes
_FOLDER, _SPARSE, _LONG_NAME, _LONG_LINK = b"5", b"S", b"L", b"K"
_PAX, _PAX_OF_ALL = (b"x", b"X"), b"g"  # what is of all members is a comment: git's commit
_MAX_LENGTH_DIGITS = 20


class TarError(ValueError):
    """An archive is damaged, cut short or too large; the message is the reason alone."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive.

    Attributes:
        name: As the archive has it; never a path to be opened.
        start: Where its content begins in the archive, in bytes.
        size: Bytes of its content.
        is_file: Whether the content is that of a file, as it lies there.
        is_folder: Whether it is a folder. What is neither is a link, device or the like.
    """

    name: str
    start: int
    size: int
    is_file: bool
    is_folder: bool


def read_members(file: BinaryIO, *, limit: int) -> Iterator[Member]:
    """Yield the members of an archive in order.

    Forms: ustar, GNU and pax, with names and sizes of any length. The file stands at a member's
    content when that is yielded and may be moved.

    Args:
        file: The archive, uncompressed or as it is unpacked, at its start.
        limit: Bytes that it may have.

    Raises:
        TarError: If it is damaged, ends without an end mark, or is larger.
        OSError: If it cannot be read.
    """
    at = 0
    pax: dict[bytes, bytes] = {}
    while True:
        file.seek(at)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise TarError(f"it is cut short after {at + len(block)} bytes: it has no end mark")
        if not block.strip(b"\0"):
            return
        _check_sum(block, at)
        kind = block[156:157]
        size = _number(block[124:136])
        start = at + BLOCK
        if kind in (_LONG_NAME, _LONG_LINK, *_PAX, _PAX_OF_ALL):
            if size > MAX_HEADER_BYTES:
                raise TarError(f"it has a header of {size} bytes at byte {at}")
            content = file.read(size)
            if len(content) < size:
                raise TarError("it is cut short within a header")
            if kind == _LONG_NAME:
                pax = {b"path": content.split(b"\0", 1)[0], **pax}
            elif kind in _PAX:
                pax |= _pax_records(content)
            at = start + _padded(size)
            continue
        if kind == _SPARSE:
            start = _behind_sparse_map(file, block, start)
        elif b"size" in pax:
            size = _decimal(pax[b"size"])
        if kind in _WITHOUT_CONTENT:
            size = 0
        if start + size > limit:
            raise TarError(
                f"it is cut short or too large: the member at byte {at:,} ends at byte "
                f"{start + size:,}, behind the {limit:,} that it may have"
            )
        name = pax.get(b"path", _name(block))
        is_folder = kind == _FOLDER or (kind == b"\0" and name.endswith(b"/"))
        is_file = kind in _FILES and not is_folder and b"sparse" not in pax
        text = name.decode("utf-8", "surrogateescape")
        yield Member(text, start, size, is_file, is_folder)
        at = start + _padded(size)
        pax = {}


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _check_sum(block: bytes, at: int) -> None:
    written = _number(block[148:156])
    others = block[:148] + block[156:]
    total = sum(others) + 8 * ord(" ")
    # Some old writers added the bytes up as signed numbers.
    if written != total and written != total - 256 * sum(byte > 127 for byte in others):
        raise TarError(f"it is damaged: at byte {at} is no header of a member")


def _number(field: bytes) -> int:
    """Return a number in octal digits or, where it is too large for them, in bytes."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
    digits = field.split(b"\0", 1)[0].strip()
    try:
        return int(digits or b"0", 8)
    except ValueError:
        raise TarError(f"it is damaged: {field!r} is no number of a header") from None


def _decimal(digits: bytes) -> int:
    if len(digits) > _MAX_LENGTH_DIGITS or not digits.isdigit():
        raise TarError("it is damaged: a header has a size that is no number")
    return int(digits)


def _name(block: bytes) -> bytes:
    name, prefix = block[:100].split(b"\0", 1)[0], b""
    if block[257:263] == b"ustar\0":  # GNU's own form has other things there
        prefix = block[345:500].split(b"\0", 1)[0]
    return prefix + b"/" + name if prefix else name


def _behind_sparse_map(file: BinaryIO, block: bytes, start: int) -> int:
    """Return where the content of a sparse member starts, behind the blocks of its map."""
    more = block[482]
    while more:
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise TarError("it is cut short within a header")
        start += BLOCK
        more = block[504]
    return start


def _pax_records(content: bytes) -> dict[bytes, bytes]:
    """Return path, size and sparse of an extended header's records, ``LENGTH KEY=VALUE``."""
    records = {}
    at = 0
    while at < len(content) and content[at]:
        blank = content.find(b" ", at, at + _MAX_LENGTH_DIGITS + 1)
        end = at + _decimal(content[at:blank]) if blank >= 0 else 0
        if not blank < end <= len(content) or content[end - 1 : end] != b"\n":
            raise TarError("it is damaged: an extended header has a record of a wrong length")
        key, _, value = content[blank + 1 : end - 1].partition(b"=")
        if key in (b"path", b"size"):
            records[key] = value
        elif key.startswith(b"GNU.sparse."):
            records[b"sparse"] = b"yes"
        at = end
    return records
