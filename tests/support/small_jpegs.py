"""JPEG files written bit by bit: kinds that no encoder writes, on which readers have to agree."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image


def picture_jpeg(height: int = 61, width: int = 83, **options: object) -> bytes:
    """Return a picture as Pillow writes it with these options."""
    small = np.random.default_rng(0).integers(0, 256, (9, 8, 3)).astype(np.uint8)
    content = io.BytesIO()
    picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    picture.save(content, "JPEG", **{"quality": 90, **options})
    return content.getvalue()


def segment(marker: int, payload: bytes) -> bytes:
    """Return a marker with its segment."""
    return bytes([0xFF, marker]) + (2 + len(payload)).to_bytes(2, "big") + payload


def huffman_table(kind_and_slot: int, symbols: dict[str, int]) -> bytes:
    """Return a DHT segment of symbols by their codes, which are those that T.81 gives in order."""
    codes = sorted(symbols, key=lambda code: (len(code), code))
    counts = bytes(sum(len(code) == length for code in codes) for length in range(1, 17))
    return segment(0xC4, bytes([kind_and_slot]) + counts + bytes(symbols[code] for code in codes))


def packed(bits: str) -> bytes:
    """Return entropy-coded data: filled up with ones, zeros stuffed in."""
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return data.replace(b"\xff", b"\xff\x00")


def scan(bits: list[str], *, first: int = 0, last: int = 63) -> bytes:
    """Return a scan of one component: the bits of each segment between restart markers."""
    data = b"".join(
        bytes([0xFF, 0xD0 + (number - 1) % 8]) * (number > 0) + packed(one)
        for number, one in enumerate(bits)
    )
    return segment(0xDA, bytes([1, 1, 0, first, last, 0])) + data


def flat_jpeg(samplings: Sequence[int], *, size: tuple[int, int], interval: int = 0) -> bytes:
    """Return a file of one colour, with all its blocks empty.

    Args:
        samplings: Of each component: times 16 those across, and those down.
        size: Height and width.
        interval: MCUs between restart markers.
    """
    grey = len(samplings) == 1
    across = max(sampling >> 4 for sampling in samplings) if not grey else 1
    down = max(sampling & 15 for sampling in samplings) if not grey else 1
    num_mcus = -(-size[0] // (8 * down)) * -(-size[1] // (8 * across))
    blocks = 1 if grey else sum((sampling >> 4) * (sampling & 15) for sampling in samplings)
    frame = b"\x08" + b"".join(side.to_bytes(2, "big") for side in size) + bytes([len(samplings)])
    for number, sampling in enumerate(samplings, 1):
        frame += bytes([number, sampling, 0])
    header = bytes([len(samplings)])
    header += b"".join(bytes([number, 0]) for number in range(1, len(samplings) + 1))
    mcu, step = "00" * blocks, interval or num_mcus
    segments = [mcu * min(step, num_mcus - start) for start in range(0, num_mcus, step)]
    return b"".join(
        [
            b"\xff\xd8",
            segment(0xDB, b"\0" + b"\1" * 64),
            segment(0xC0, frame),
            huffman_table(0x00, {"0": 0}),
            huffman_table(0x10, {"0": 0}),
            segment(0xDD, interval.to_bytes(2, "big")),
            segment(0xDA, header + b"\0\x3f\0"),
            *(
                (bytes([0xFF, 0xD0 + (number - 1) % 8]) if number else b"") + packed(bits)
                for number, bits in enumerate(segments)
            ),
            b"\xff\xd9",
        ]
    )


def grey_jpeg(
    scans: bytes,
    *,
    size: tuple[int, int],
    dc: dict[str, int],
    ac: dict[str, int],
    quantiser: int = 1,
    interval: int = 0,
    progressive: bool = False,
) -> bytes:
    """Return a file of one component.

    Args:
        scans: What `scan` made.
        size: Height and width.
        dc: Symbols of the DC coefficients by their codes.
        ac: Those of the others.
        quantiser: Of all coefficients.
        interval: MCUs between restart markers.
        progressive: Whether it says that it is.
    """
    frame = b"\x08" + b"".join(side.to_bytes(2, "big") for side in size) + b"\x01\x01\x11\x00"
    return b"".join(
        [
            b"\xff\xd8",
            segment(0xDB, b"\x10" + quantiser.to_bytes(2, "big") * 64),
            segment(0xC2 if progressive else 0xC1, frame),
            huffman_table(0x00, dc),
            huffman_table(0x10, ac),
            segment(0xDD, interval.to_bytes(2, "big")),
            scans,
            b"\xff\xd9",
        ]
    )
