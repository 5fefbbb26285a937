import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fastssd.data.encode import encode


def pillow_rgb(content):
    return np.array(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_common_jpeg_is_kept_byte_by_byte(picture, encoded, mode):
    content = encoded(picture(21, 34), mode=mode, quality=60)

    result = encode(content, keep_jpeg=True)

    assert result.image.mode == "jpeg"
    assert result.image.data.tobytes() == content
    assert (result.height, result.width) == (21, 34)


def test_a_jpeg_becomes_the_pixels_that_pillow_sees_where_jpeg_is_not_stored(picture, encoded):
    content = encoded(picture(21, 34))

    result = encode(content, keep_jpeg=False)

    assert result.image.mode == "raw"
    # Two builds of libjpeg-turbo may round differently.
    assert np.abs(result.image.data.astype(int) - pillow_rgb(content)).max() <= 2


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGB"), ("PNG", "L"), ("PNG", "RGBA"), ("PNG", "P"), ("BMP", "RGB"), ("GIF", "P")],
)
def test_other_files_become_the_pixels_that_pillow_sees(picture, encoded, kind, mode):
    content = encoded(picture(21, 34), kind, mode)

    result = encode(content, keep_jpeg=True)

    assert result.image.mode == "raw"
    assert np.array_equal(result.image.data, pillow_rgb(content))


def test_a_cmyk_jpeg_becomes_pixels_since_ffcv_cannot_decode_it(picture, encoded):
    content = encoded(picture(21, 34), mode="CMYK")

    result = encode(content, keep_jpeg=True)

    assert result.image.mode == "raw"
    assert np.array_equal(result.image.data, pillow_rgb(content))


def test_pixels_are_stored_as_they_are(picture):
    pixels = picture(5, 6)
    assert encode(pixels, keep_jpeg=True).image.data is pixels


def test_every_truncation_of_a_jpeg_is_refused(picture, encoded):
    content = encoded(picture(40, 40))
    for end in [*range(0, len(content), 37), len(content) - 2, len(content) - 1]:
        with pytest.raises(ValueError, match=r"\w"):
            encode(content[:end], keep_jpeg=True)


def test_a_truncated_png_is_refused(picture, encoded):
    content = encoded(picture(40, 40), "PNG")
    with pytest.raises(ValueError, match=r"\w"):
        encode(content[: len(content) // 2], keep_jpeg=True)


def test_garbage_is_refused_with_a_reason_for_a_person():
    with pytest.raises(ValueError, match="not an image file of a known kind"):
        encode(b"hello world" * 20, keep_jpeg=True)


def test_reasons_do_not_name_the_source_of_pytorch(picture, encoded):
    with pytest.raises(ValueError, match="incomplete or truncated") as error:
        encode(encoded(picture(40, 40))[:-100], keep_jpeg=True)
    assert ".cpp" not in str(error.value)


def test_16_bit_pixels_are_refused_rather_than_clipped(encoded):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 5), 40_000, np.uint16)).save(buffer, "PNG")
    with pytest.raises(ValueError, match="more than 8 bits"):
        encode(buffer.getvalue(), keep_jpeg=True)


def test_a_picture_that_unpacks_to_gigabytes_is_refused():
    def chunk(kind, payload):
        crc = struct.pack(">I", zlib.crc32(kind + payload))
        return struct.pack(">I", len(payload)) + kind + payload + crc

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(ValueError, match="decompression bomb"):
        encode(bomb, keep_jpeg=True)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), "u1")],
)
def test_pixels_of_another_form_are_refused(pixels):
    with pytest.raises(ValueError, match="pixels"):
        encode(pixels, keep_jpeg=True)
