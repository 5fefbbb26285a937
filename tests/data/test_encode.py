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
from small_jpegs import flat_jpeg, picture_jpeg

from fastssd.data.decode.crop import crop
from fastssd.data.decode.decoders import build_decoder
from fastssd.data.decode.shrink import Limit
from fastssd.data.decode.torchvision_decoder import decode_pixels
from fastssd.data.encode import VERIFY_EVERY, Encoding, UnequalPixelsError, encode, encode_all
from fastssd.data.jpeg_rewrite import transcode
from fastssd.data.storage.image import StoredImage

RESTART, KEPT, AS_PIXELS = (Encoding(jpeg=choice) for choice in ("restart", "keep", "raw"))
NO_KIND = (
    "it is none of the image files that are read: "
    "JPEG, PNG, WEBP, GIF, BMP, PPM, TIFF, AVIF, JPEG2000"
)
SMALLER = Encoding(jpeg="restart", limit=Limit(max_side=40, quality=80))


def pillow_rgb(content):
    return np.array(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_common_jpeg_is_kept_byte_by_byte(picture, encoded, mode):
    content = encoded(picture(21, 34), mode=mode, quality=60)

    result = encode(content, KEPT)

    assert result.image.mode == "jpeg"
    assert result.image.data.tobytes() == content
    assert (result.height, result.width) == (21, 34)


def test_a_jpeg_becomes_the_pixels_that_pillow_sees_where_jpeg_is_not_stored(picture, encoded):
    content = encoded(picture(21, 34))

    result = encode(content, AS_PIXELS)

    assert result.image.mode == "raw"
    # Two builds of libjpeg-turbo may round differently.
    assert np.abs(result.image.data.astype(int) - pillow_rgb(content)).max() <= 2


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGB"), ("PNG", "L"), ("PNG", "RGBA"), ("PNG", "P"), ("BMP", "RGB"), ("GIF", "P")],
)
def test_other_files_become_the_pixels_that_pillow_sees(picture, encoded, kind, mode):
    content = encoded(picture(21, 34), kind, mode)

    result = encode(content, KEPT)

    assert result.image.mode == "raw"
    assert np.array_equal(result.image.data, pillow_rgb(content))


def test_a_cmyk_jpeg_becomes_pixels_since_ffcv_cannot_decode_it(picture, encoded):
    content = encoded(picture(21, 34), mode="CMYK")

    result = encode(content, KEPT)

    assert result.image.mode == "raw"
    assert np.array_equal(result.image.data, pillow_rgb(content))


def test_pixels_are_stored_as_they_are(picture):
    pixels = picture(5, 6)
    assert encode(pixels, KEPT).image.data is pixels


@pytest.mark.kernels
@pytest.mark.parametrize("how", [KEPT, AS_PIXELS, RESTART])
def test_every_truncation_of_a_jpeg_is_refused(picture, encoded, how):
    content = encoded(picture(40, 40))
    for end in [*range(0, len(content), 37), len(content) - 2, len(content) - 1]:
        with pytest.raises(ValueError, match=r"\w"):
            encode(content[:end], how)


@pytest.mark.kernels
@pytest.mark.parametrize("how", [KEPT, AS_PIXELS, RESTART, SMALLER])
def test_damage_that_a_plain_decode_does_not_see_is_refused(picture, encoded, how):
    content = encoded(picture(64, 64), quality=90)
    content = content[:-200] + content[-100:]

    assert decode_pixels(StoredImage("jpeg", np.frombuffer(bytearray(content), np.uint8))).any()
    with pytest.raises(ValueError, match="Corrupt JPEG data"):
        encode(content, how)


SAMPLING = st.sampled_from([0x11, 0x11, 0x21, 0x12, 0x22, 0x31, 0x13, 0x41, 0x14])
JPEGS = st.one_of(
    st.builds(
        flat_jpeg,
        st.one_of(st.tuples(SAMPLING), st.tuples(SAMPLING, SAMPLING, SAMPLING)),
        size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
        interval=st.integers(0, 3),
    ),
    st.builds(
        picture_jpeg,
        st.integers(1, 40),
        st.integers(1, 40),
        progressive=st.booleans(),
        subsampling=st.integers(0, 2),
        restart_marker_blocks=st.integers(0, 3),
    ),
)


@pytest.mark.kernels
@settings(max_examples=150, deadline=None)
@given(data=st.data(), content=JPEGS, how=st.sampled_from([KEPT, RESTART]))
def test_what_is_stored_is_decoded_whatever_the_box(data, content, how):
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(0, 2))):
        changed[data.draw(st.integers(2, len(content) - 1))] = data.draw(st.integers(0, 255))
    (result,) = encode_all([bytes(changed)], how, [0])
    if isinstance(result, str):
        assert result
        return
    if result.image.mode == "jpeg":
        (checked,) = transcode([result.image.data.tobytes()], rewrite=False)
        assert (checked.height, checked.width) == (result.height, result.width)
    decoder, side = build_decoder("native"), max(result.height, result.width)
    whole = decoder.decode([result.image], np.array([[[0, 0, side, side]]]), side)[0, 0]
    places = st.integers(-5, 40)
    boxes = [[data.draw(places), data.draw(places), 7, 7], [0, 0, result.width, result.height]]
    pixels = decoder.decode([result.image], np.array([boxes]), 7)
    assert np.array_equal(pixels[0, 0], crop(whole, np.array(boxes[0])))


@pytest.mark.kernels
@pytest.mark.parametrize("how", [KEPT, RESTART, AS_PIXELS, Encoding(jpeg="restart", verify=True)])
def test_what_no_decoder_takes_is_refused_before_it_is_stored(how):
    wide, high = 65496, 4200
    contents = {
        "fraction": flat_jpeg([0x31, 0x21, 0x11], size=(40, 60)),
        "pixels": flat_jpeg([0x11], size=(high, wide)),
    }
    for word, content in contents.items():
        with pytest.raises(ValueError, match=word):
            encode(content, how)
    long = np.zeros((1, (1 << 17) + 1, 3), np.uint8)
    with pytest.raises(ValueError, match="131,072 a side"):
        encode(long, how)
    box = [[[0, 0, 1 << 17, 1]]]
    build_decoder("native").decode([encode(long[:, 1:], how).image], np.array(box), 1)


@pytest.mark.kernels
def test_a_rewriter_that_changes_pixels_is_found_and_the_image_is_told(
    picture, encoded, monkeypatch
):
    contents = [encoded(picture(21, 34, seed=i)) for i in range(3)]

    def wrong(files, *, rewrite):
        made = transcode(files, rewrite=rewrite)
        return [made[0], made[2], made[2]] if len(made) == 3 else made

    monkeypatch.setattr("fastssd.data.encode.transcode", wrong)
    every = Encoding(jpeg="restart", verify=True)
    with pytest.raises(UnequalPixelsError) as error:
        encode_all(contents, every, [10, 11, 12])

    assert error.value.index == 1
    encode_all(contents, RESTART, [10, 11, 12])  # none of these is in the sample
    with pytest.raises(UnequalPixelsError):
        encode_all(contents, RESTART, [VERIFY_EVERY - 1, VERIFY_EVERY, VERIFY_EVERY + 1])


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_progressive_file_of_many_scans_is_not_decoded(picture, encoded, monkeypatch, mode):
    monkeypatch.setattr("fastssd.data.jpeg_header.MAX_SCANS", 2)
    monkeypatch.setattr("fastssd.data.encode.decode_file", None)
    for how in (KEPT, AS_PIXELS, RESTART):
        with pytest.raises(ValueError, match="it has more than 2 scans, each a pass"):
            encode(encoded(picture(21, 34), mode=mode, progressive=True), how)


@pytest.mark.kernels
def test_images_of_all_kinds_in_one_call_come_back_in_order(picture, encoded):
    contents = [
        encoded(picture(21, 34)),
        b"hello world" * 20,
        encoded(picture(90, 50), quality=95),
        picture(8, 9),
        encoded(picture(20, 30), "PNG"),
        encoded(picture(22, 33))[:-30],
        encoded(picture(12, 13), mode="CMYK"),
    ]

    results = encode_all(contents, SMALLER, range(7))

    kinds = [r if isinstance(r, str) else (r.image.mode, r.height, r.width) for r in results]
    assert kinds == [
        ("jpeg", 21, 34),
        NO_KIND,
        ("jpeg", 40, 22),
        ("raw", 8, 9),
        ("raw", 20, 30),
        "Premature end of JPEG file",
        ("raw", 12, 13),
    ]
    for result in results:
        if not isinstance(result, str) and result.image.mode == "jpeg":
            assert decode_pixels(result.image).shape == (result.height, result.width, 3)
            assert b"\xff\xdd\x00\x04" in result.image.data.tobytes()  # a restart interval


def test_a_truncated_png_is_refused(picture, encoded):
    content = encoded(picture(40, 40), "PNG")
    with pytest.raises(ValueError, match=r"\w"):
        encode(content[: len(content) // 2], KEPT)


def test_garbage_is_refused_with_a_reason_for_a_person():
    with pytest.raises(ValueError, match=NO_KIND):
        encode(b"hello world" * 20, KEPT)


def test_without_the_kernels_reasons_do_not_name_the_source_of_pytorch(
    picture, encoded, monkeypatch
):
    monkeypatch.setattr("fastssd.data.encode.missing", lambda: "not built")
    with pytest.raises(ValueError, match="incomplete or truncated") as error:
        encode(encoded(picture(40, 40))[:-100], KEPT)
    assert ".cpp" not in str(error.value)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("how", [KEPT, AS_PIXELS])
def test_tiff_files_of_every_mode_become_the_pixels_that_pillow_sees(picture, encoded, mode, how):
    content = encoded(picture(21, 34), "TIFF", mode)
    assert np.array_equal(encode(content, how).image.data, pillow_rgb(content))


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

    result = encode(sixteen_bits(values, colour), KEPT).image.data

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
    "a JPEG damaged in its middle": lambda e, p: e(p)[:-100] + e(p)[-40:],
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


@pytest.mark.kernels
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "memory"])
@pytest.mark.parametrize("row", documented(), ids=lambda row: row[0])
def test_every_kind_of_image_becomes_what_is_documented(picture, encoded, row, kept):
    pixels = picture(21, 34)
    content = FILES[row[0]](encoded, pixels)
    outcome = row[1] if kept else row[2]

    if outcome == "refused":
        with pytest.raises(ValueError, match=r"\w"):
            encode(content, KEPT if kept else AS_PIXELS)
        return
    result = encode(content, KEPT if kept else AS_PIXELS)

    what, _, detail = outcome.partition(", ")
    assert (result.image.mode == "jpeg") == (what == "JPEG")
    assert (result.orientation == 6) == (detail == "orientation beside it")
    if what == "JPEG":
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
        encoded = encode(bytes(content), AS_PIXELS)
        assert encoded.image.data.shape == (encoded.height, encoded.width, 3)


def test_a_picture_that_unpacks_to_gigabytes_is_refused():
    with pytest.raises(
        ValueError, match=r"too many pixels, more than 134,217,728: .* --max-pixels"
    ):
        encode(png(60_000, 60_000, 8, 2, b""), KEPT)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), "u1")],
)
def test_pixels_of_another_form_are_refused(pixels):
    with pytest.raises(ValueError, match="pixels"):
        encode(pixels, KEPT)
