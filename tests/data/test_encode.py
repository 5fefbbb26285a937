import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("keep_jpeg", [True, False])
def test_tiff_files_of_every_mode_become_the_pixels_that_pillow_sees(
    picture, encoded, mode, keep_jpeg
):
    content = encoded(picture(21, 34), "TIFF", mode)
    assert np.array_equal(encode(content, keep_jpeg=keep_jpeg).image.data, pillow_rgb(content))


def png(width, height, depth, colour, data):
    """A PNG file from its header's fields and its filtered rows, by the book."""

    def chunk(kind, payload):
        crc = struct.pack(">I", zlib.crc32(kind + payload))
        return struct.pack(">I", len(payload)) + kind + payload + crc

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def sixteen_bits(values, colour):
    """(height, width, channels) uint16 as a PNG of 16 bits."""
    rows = [b"\0" + row.astype(">u2").tobytes() for row in values]
    return png(values.shape[1], values.shape[0], 16, colour, b"".join(rows))


@pytest.mark.parametrize(("channels", "colour"), [(1, 0), (3, 2)])
def test_of_16_bits_the_upper_8_are_kept(channels, colour):
    values = np.random.default_rng(0).integers(0, 1 << 16, (7, 5, channels))

    result = encode(sixteen_bits(values, colour), keep_jpeg=True).image.data

    assert np.array_equal(result, np.broadcast_to(values >> 8, (7, 5, 3)))


def with_exif(pixels, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def animated(pixels):
    buffer = io.BytesIO()
    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    return buffer.getvalue()


def floats(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0].astype(np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


# What the rows of the table in docs/datasets.md are: (encoded, pixels) -> the file.
FILES = {
    "JPEG 4:4:4": lambda e, p: e(p, subsampling="4:4:4"),
    "JPEG 4:2:2": lambda e, p: e(p, subsampling="4:2:2"),
    "JPEG 4:2:0": lambda e, p: e(p, subsampling="4:2:0"),
    "JPEG progressive": lambda e, p: e(p, progressive=True),
    "JPEG greyscale": lambda e, p: e(p, mode="L"),
    "JPEG with Exif orientation": lambda e, p: with_exif(p, "JPEG"),
    "JPEG CMYK": lambda e, p: e(p, mode="CMYK"),
    "PNG": lambda e, p: e(p, "PNG"),
    "PNG palette": lambda e, p: e(p, "PNG", "P"),
    "PNG 16 bit grey": lambda e, p: sixteen_bits(p[..., :1].astype(int) * 257, 0),
    "PNG 16 bit colour": lambda e, p: sixteen_bits(p.astype(int) * 257, 2),
    "PNG with alpha": lambda e, p: e(p, "PNG", "RGBA"),
    "PNG with Exif orientation": lambda e, p: with_exif(p, "PNG"),
    "WebP": lambda e, p: e(p, "WEBP"),
    "WebP animated": lambda e, p: animated(p),
    "GIF": lambda e, p: e(p, "GIF", "P"),
    "BMP": lambda e, p: e(p, "BMP"),
    "PPM": lambda e, p: e(p, "PPM"),
    "TIFF": lambda e, p: e(p, "TIFF"),
    "TIFF 32 bit float": lambda e, p: floats(p),
    "an empty file": lambda e, p: b"",
    "a truncated JPEG": lambda e, p: e(p)[:-40],
    "a truncated PNG": lambda e, p: e(p, "PNG")[:-40],
    "a text file": lambda e, p: b"hello world" * 9,
    "an image too large to be one": lambda e, p: png(60_000, 60_000, 8, 2, b""),
}


def documented():
    """The rows of the table in docs/datasets.md: image, outcome where JPEG is kept, and not."""
    text = (Path(__file__).resolve().parents[2] / "docs/datasets.md").read_text(encoding="utf-8")
    table = text.split("| image | where JPEG is kept | in `memory` |\n")[1].split("\n\n")[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.split("\n")[1:]]


def test_the_documented_table_has_the_rows_that_are_tested():
    assert [row[0] for row in documented()] == list(FILES)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "memory"])
@pytest.mark.parametrize("row", documented(), ids=lambda row: row[0])
def test_every_kind_of_image_becomes_what_is_documented(picture, encoded, row, kept):
    pixels = picture(21, 34)
    content = FILES[row[0]](encoded, pixels)
    outcome = row[1] if kept else row[2]

    if outcome == "refused":
        with pytest.raises(ValueError, match=r"\w"):
            encode(content, keep_jpeg=kept)
        return
    result = encode(content, keep_jpeg=kept)

    what, _, detail = outcome.partition(", ")
    assert (result.image.mode == "jpeg") == (what == "bytes")
    assert (result.orientation == 6) == (detail == "orientation beside them")
    if what == "bytes":
        assert result.image.data.tobytes() == content
        assert (result.height, result.width) == (21, 34)
    elif "upper 8 bits" in detail:
        wanted = pixels if "colour" in row[0] else np.repeat(pixels[..., :1], 3, 2)
        assert np.array_equal(result.image.data, wanted)
    else:
        wanted = pillow_rgb(content)
        wanted = np.rot90(wanted, -1) if detail == "turned" else wanted
        # Two builds of libjpeg-turbo may round differently.
        assert np.abs(result.image.data.astype(int) - wanted).max() <= 2 * ("JPEG" in row[0])


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG"]))
def test_any_damage_gives_pixels_or_a_reason(data, kind):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoded = encode(bytes(content), keep_jpeg=False)
        assert encoded.image.data.shape == (encoded.height, encoded.width, 3)


def test_a_picture_that_unpacks_to_gigabytes_is_refused():
    with pytest.raises(ValueError, match="decompression bomb"):
        encode(png(60_000, 60_000, 8, 2, b""), keep_jpeg=True)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), "u1")],
)
def test_pixels_of_another_form_are_refused(pixels):
    with pytest.raises(ValueError, match="pixels"):
        encode(pixels, keep_jpeg=True)
