"""The bytes of a WebDataset shard: member headers, padding, end marks, and the lines of its index.

A shard is an ordinary ustar archive. A sample is two members of one stem, its number in the split:
`000000007.cls`, the label in ASCII digits, then `000000007.jpg`, a JPEG file byte by byte, or
`000000007.ppm`, RGB pixels behind a line of PPM header. The index beside it has the text format
v1.2 that DALI's reader and its `wds2idx` share.

Source:
    POSIX.1-1988 ustar; netpbm's PPM (P6); the documentation of DALI's `fn.readers.webdataset`.
"""

import tarfile
from dataclasses import dataclass
from pathlib import Path

BLOCK = 512
RECORD = 20 * BLOCK  # archives are filled up to whole records
END_MARKS = 2 * BLOCK
MAX_MEMBER_BYTES = 8**11 - 1  # what ustar's octal size field holds

_SIZE_FIELD, _CHECKSUM_FIELD = slice(124, 135), slice(148, 156)


def _empty_header() -> bytes:
    """Return the header of a member without name, size and checksum."""
    block = bytearray(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT))
    block[_SIZE_FIELD] = bytes(11)
    block[_CHECKSUM_FIELD] = b" " * 8  # what counts in the sum in place of the sum itself
    return bytes(block)


_EMPTY_HEADER = _empty_header()
_EMPTY_SUM = sum(_EMPTY_HEADER)

JPEG_SUFFIX, RAW_SUFFIX, LABEL_SUFFIX = "jpg", "ppm", "cls"


@dataclass(frozen=True, slots=True)
class Member:
    """One file within a shard.

    Attributes:
        suffix: Its name after the stem, without a dot.
        offset: Where its content begins in the shard, in bytes.
        size: Bytes of its content.
    """

    suffix: str
    offset: int
    size: int


def stem(sample: int) -> str:
    """Return what the members of a sample are called, without their suffix."""
    return f"{sample:09d}"


def shard_path(folder: Path, split: str, shard: int) -> Path:
    """Return the path of a split's shard."""
    return folder / f"{split}-{shard:06d}.tar"


def member_header(sample: int, suffix: str, size: int) -> bytes:
    """Return the block before a member's content; the same for every writer and day."""
    name = f"{stem(sample)}.{suffix}".encode()
    digits = b"%011o" % size
    block = bytearray(_EMPTY_HEADER)
    block[: len(name)] = name
    block[_SIZE_FIELD] = digits
    block[_CHECKSUM_FIELD] = b"%06o\0 " % (_EMPTY_SUM + sum(name) + sum(digits))
    return bytes(block)


def pixels_header(height: int, width: int) -> bytes:
    """Return what stands before the pixels of a PPM file."""
    return b"P6\n%d %d\n255\n" % (width, height)


def padded(num_bytes: int, unit: int = BLOCK) -> int:
    """Return a number of bytes filled up to whole units."""
    return -(-num_bytes // unit) * unit


def shard_bytes(end_of_content: int) -> int:
    """Return the length of a shard whose last member's content ends there."""
    return padded(padded(end_of_content) + END_MARKS, RECORD)


class IndexLines:
    """The index of a shard, kept as text: a line of a small image takes less than its objects."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._num_samples = 0

    def add(self, sample: int, members: list[Member]) -> None:
        """Append a sample with its number and members."""
        name = stem(sample)
        line = " ".join(f"{m.suffix} {m.offset} {m.size} {name}.{m.suffix}" for m in members)
        self._text += line.encode() + b"\n"
        self._num_samples += 1

    def text(self) -> str:
        """Return the whole index."""
        return f"v1.2 {self._num_samples}\n{self._text.decode()}"
