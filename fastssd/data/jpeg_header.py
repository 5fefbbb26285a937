"""The header of a JPEG file, read without decoding."""

import re
from dataclasses import dataclass
from typing import Literal

SIGNATURE = b"\xff\xd8\xff"

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # DHT, JPG, DAC share the range
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_LOSSLESS = 0xC3
_SCAN = b"\xff\xda"
_SCANS = re.compile(_SCAN)  # faster than bytes.count()
# Behind a scan's header: the next marker that is not a restart's. FF 00 is a value of the data.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
MAX_SCANS = 100
"""Scans of a file that is converted. Writers make about 10; libjpeg-turbo's own tools stop fuzzed
files at 500, DALI takes 256."""
_WITHOUT_LENGTH = frozenset(range(0xD0, 0xD9)) | {0x01}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_EXIF, _EXIF_SIGNATURE, _ORIENTATION_TAG = 0xE1, b"Exif\0\0", 0x0112
_EXIF_INTEGERS = {3: 2, 4: 4}  # the types of integers that writers use here: bytes of each


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """What the header says.

    Attributes:
        process: The marker's second byte: 0xC0 baseline, 0xC1 extended, 0xC2 progressive, ...
        precision: Bits per sample.
        height: Pixels.
        width: Pixels.
        num_components: 1 grey, 3 colour, 4 CMYK.
        orientation: Exif's, 1 (upright) to 8; 1 where the file says nothing sensible.
    """

    process: int
    precision: int
    height: int
    width: int
    num_components: int
    orientation: int = 1

    @property
    def common(self) -> bool:
        """Whether every decoder that fastssd may meet, FFCV's among them, makes RGB of it."""
        return (
            self.process in (_BASELINE, _EXTENDED, _PROGRESSIVE)
            and self.precision == 8
            and self.num_components in (1, 3)
        )


def read_frame(content: bytes) -> Frame:
    """Return what stands before a JPEG file's data: the first frame header, the first Exif block.

    Args:
        content: The file, or its start with the frame header.

    Raises:
        ValueError: If there is no frame header; the message is the reason alone.
    """
    if not content.startswith(SIGNATURE):
        raise ValueError("it is not a JPEG file")
    at = 2
    frame: tuple[int, bytes] | None = None
    exif: bytes | None = None
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            if frame is not None:
                break
            raise ValueError(f"no marker where one is due, at byte {at}")
        marker = content[at + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            at += 1
            continue
        if marker in _WITHOUT_LENGTH:
            at += 2
            continue
        if marker in (_START_OF_SCAN, _END_OF_IMAGE):
            if frame is not None:
                break
            raise ValueError("its header describes no image")
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if marker in _START_OF_FRAME and frame is None:
            frame = marker, content[at + 4 : end]
        elif marker == _EXIF and exif is None and content.startswith(_EXIF_SIGNATURE, at + 4):
            exif = content[at + 4 + len(_EXIF_SIGNATURE) : end]
        at = end
    if frame is None:
        raise ValueError("it ends within its header")
    return _frame(*frame, _orientation(exif or b""))


def check_scans(content: bytes, frame: Frame) -> None:
    """Check that a file does not ask for many passes over its image in a few bytes each.

    That takes a kind of file in which a scan can say of many blocks at once that they get nothing.

    Args:
        content: The file.
        frame: Its frame header.

    Raises:
        ValueError: If it has more than `MAX_SCANS`; the message is the reason alone.
    """
    if frame.process in (_BASELINE, _EXTENDED, _LOSSLESS):
        return
    if len(_SCANS.findall(content)) <= MAX_SCANS:  # some may be in metadata
        return
    num_scans, at = 0, 2
    while True:
        found = _NEXT_MARKER.search(content, at)
        if found is None or found[0][1] == _END_OF_IMAGE:
            return
        num_scans += found[0] == _SCAN
        if num_scans > MAX_SCANS:
            raise ValueError(
                f"it has more than {MAX_SCANS} scans, each a pass over the whole image: save it "
                "again as an ordinary JPEG"
            )
        at = found.start() + 2
        if found[0][1] not in _WITHOUT_LENGTH:
            at += int.from_bytes(content[at : at + 2], "big")


def _orientation(exif: bytes) -> int:
    """Return the orientation of an Exif block; 1 if it holds none or cannot be read."""
    order: Literal["little", "big"] = "little" if exif.startswith(b"II") else "big"

    def number(at: int, num_bytes: int) -> int:
        return int.from_bytes(exif[at : at + num_bytes], order)  # 0 behind the end

    if not exif.startswith((b"II*\0", b"MM\0*")):
        return 1
    first = number(4, 4)
    entries = range(first + 2, min(first + 2 + 12 * number(first, 2), len(exif) - 11), 12)
    for at in entries:
        if number(at, 2) == _ORIENTATION_TAG and number(at + 2, 2) in _EXIF_INTEGERS:
            value = number(at + 8, _EXIF_INTEGERS[number(at + 2, 2)])
            return value if 1 <= value <= 8 else 1
    return 1


def _frame(marker: int, payload: bytes, orientation: int) -> Frame:
    if len(payload) < 6:
        raise ValueError("it ends within its header")
    return Frame(
        process=marker,
        precision=payload[0],
        height=int.from_bytes(payload[1:3], "big"),
        width=int.from_bytes(payload[3:5], "big"),
        num_components=payload[5],
        orientation=orientation,
    )
