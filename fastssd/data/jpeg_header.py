"""The frame header of a JPEG file, read without decoding."""

from dataclasses import dataclass

SIGNATURE = b"\xff\xd8\xff"

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # DHT, JPG, DAC share the range
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_WITHOUT_LENGTH = frozenset(range(0xD0, 0xD9)) | {0x01}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """What the frame header says.

    Attributes:
        process: The marker's second byte: 0xC0 baseline, 0xC1 extended, 0xC2 progressive, ...
        precision: Bits per sample.
        height: Pixels.
        width: Pixels.
        num_components: 1 grey, 3 colour, 4 CMYK.
    """

    process: int
    precision: int
    height: int
    width: int
    num_components: int

    @property
    def common(self) -> bool:
        """Whether every decoder that fastssd may meet, FFCV's among them, makes RGB of it."""
        return (
            self.process in (_BASELINE, _EXTENDED, _PROGRESSIVE)
            and self.precision == 8
            and self.num_components in (1, 3)
        )


def read_frame(content: bytes) -> Frame:
    """Return the frame header of a JPEG file.

    Raises:
        ValueError: If there is none; the message is the reason alone.
    """
    if not content.startswith(SIGNATURE):
        raise ValueError("it is not a JPEG file")
    at = 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            raise ValueError(f"no marker where one is due, at byte {at}")
        marker = content[at + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            at += 1
            continue
        if marker in _WITHOUT_LENGTH:
            at += 2
            continue
        if marker in (_START_OF_SCAN, _END_OF_IMAGE):
            raise ValueError("its header describes no image")
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        if marker in _START_OF_FRAME:
            return _frame(marker, content[at + 4 : at + 2 + length])
        at += 2 + length
    raise ValueError("it ends within its header")


def _frame(marker: int, payload: bytes) -> Frame:
    if len(payload) < 6:
        raise ValueError("it ends within its header")
    return Frame(
        process=marker,
        precision=payload[0],
        height=int.from_bytes(payload[1:3], "big"),
        width=int.from_bytes(payload[3:5], "big"),
        num_components=payload[5],
    )
