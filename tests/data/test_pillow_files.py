"""Which image files are read, and that whatever is wrong with one is a reason."""

import io
import os
import struct
import sys

import numpy as np
import pytest
from PIL import Image, ImageFile

from fastssd.data import pillow_files
from fastssd.data.convert import convert
from fastssd.data.encode import Encoding, encode, encode_all
from fastssd.data.pillow_files import KINDS, check_pixels, decode_file, pillow_limit
from fastssd.data.sources.sources import open_source
from fastssd.data.storage.image import MAX_PIXELS
from fastssd.errors import ConfigError, DataError

KEPT, AS_PIXELS = Encoding(jpeg="keep"), Encoding(jpeg="raw")
OTHER_KINDS = ("EPS", "DDS", "SPIDER", "ICO", "TGA", "PCX", "SGI", "ICNS", "DIB", "QOI")


def written(kind, size=(16, 16)):
    """An image file of a kind that Pillow writes."""
    buffer = io.BytesIO()
    Image.new("F" if kind == "SPIDER" else "RGB", size).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A stand-in for Ghostscript, first on the path; the file that it writes when it is run."""
    ran = tmp_path / "ran"
    for name in ("gs", "gswin64c"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!{sys.executable}\nopen({str(ran)!r}, 'w')\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return ran


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_files_of_other_kinds_are_not_opened(ghostscript, kind):
    with pytest.raises(ValueError, match="it is none of the image files that are read: JPEG, PNG"):
        encode(written(kind), KEPT)
    assert not ghostscript.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_all_kinds_that_are_listed_are_read(kind):
    assert decode_file(written(kind), upright=True, max_pixels=256).shape == (16, 16, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_counted_before_they_are_decoded(monkeypatch, kind):
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    content = written(kind, (20, 13))

    with pytest.raises(ValueError, match=r"it has 20 x 13 pixels, more than 259: .*--max-pixels"):
        decode_file(content, upright=True, max_pixels=259)


@pytest.mark.kernels
@pytest.mark.parametrize("jpeg", ["restart", "keep", "raw"])
def test_one_limit_holds_for_all_that_is_stored(monkeypatch, jpeg):
    def none(files, *, rewrite):
        assert not files
        return []

    monkeypatch.setattr("fastssd.data.encode.transcode", none)
    monkeypatch.setattr("fastssd.data.encode.decode_pixels", None)
    how = Encoding(jpeg=jpeg, max_pixels=259)
    small = written("JPEG")
    frame = small.index(b"\xff\xc0") + 5
    large = small[:frame] + struct.pack(">HH", 4200, 65_000) + small[frame + 4 :]
    contents = [written("JPEG", (20, 13)), np.zeros((13, 20, 3), np.uint8)]

    assert all("20 x 13 pixels" in reason for reason in encode_all(contents, how, [0, 1]))
    for limit in (1 << 27, MAX_PIXELS):
        with pytest.raises(ValueError, match="65,000 x 4,200 pixels, more than"):
            encode(large, Encoding(jpeg=jpeg, max_pixels=limit))


def test_the_message_says_how_far_the_limit_can_be_raised():
    check_pixels(1 << 14, 1 << 14, MAX_PIXELS)
    with pytest.raises(ValueError, match="allow up to 268,435,456 with --max-pixels"):
        check_pixels(1 << 14, 1 << 14, MAX_PIXELS - 1)
    with pytest.raises(ValueError, match="which no decoder takes: make it smaller"):
        check_pixels(1 << 15, 1 << 14, MAX_PIXELS)


def test_pillows_own_limit_is_ours_while_images_are_read():
    before = Image.MAX_IMAGE_PIXELS
    with pillow_limit(5), pytest.raises(ValueError, match=r"too many pixels, more than 5"):
        decode_file(written("PNG"), upright=True, max_pixels=5)
    assert before == Image.MAX_IMAGE_PIXELS


def raising(error):
    def load(self):
        raise error

    return load


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("decode failed"),
        NotImplementedError(),
        AttributeError("fp"),
        KeyError("x"),
        MemoryError(),
        RecursionError("too deep"),
        struct.error("short"),
        AssertionError(),
        Exception("anything"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_reader_raises_is_a_reason(monkeypatch, error):
    monkeypatch.setattr(ImageFile.ImageFile, "load", raising(error))
    content = written("PNG")

    (reason,) = encode_all([content], KEPT, [0])

    assert isinstance(reason, str)
    assert reason


def test_a_damaged_file_of_any_kind_is_left_out_by_name(tmp_path, picture, encoded):
    folder = tmp_path / "source/ant"
    folder.mkdir(parents=True)
    (folder / "0.jpg").write_bytes(encoded(picture(9, 8)))
    for kind in ("AVIF", "JPEG2000", "TIFF", "WEBP", "DDS", "SPIDER"):
        content = written(kind, (64, 64))
        damaged = content[:60] + b"\xff" * 20 + content[80 : len(content) // 2 + 40]
        (folder / f"{kind}.jpg").write_bytes(damaged)

    meta = convert(open_source(str(tmp_path / "source")), tmp_path / "out", on_error="skip")

    assert len(meta["rejected"]) == 6
    assert all(one["reason"] for one in meta["rejected"])
    assert "max_pixels" not in meta["conversion"]


@pytest.mark.parametrize("value", [0, MAX_PIXELS + 1])
def test_a_limit_that_no_decoder_keeps_is_refused(tmp_path, tree, value):
    with pytest.raises(ConfigError, match=rf"--max-pixels {value}: choose 1 to 268435456"):
        convert(open_source(str(tree)), tmp_path / "out", max_pixels=value)


def test_the_limit_of_a_conversion_is_noted_where_it_is_not_the_usual_one(tmp_path, tree):
    meta = convert(open_source(str(tree)), tmp_path / "out", max_pixels=1000)
    assert meta["conversion"]["max_pixels"] == 1000
    with pytest.raises(DataError, match=r"ant/.*pixels, more than 500"):
        convert(open_source(str(tree)), tmp_path / "small", max_pixels=500)


def test_a_pillow_without_some_kinds_reads_the_others(monkeypatch):
    monkeypatch.setitem(pillow_files._PLUGINS, "AVIF", "OfALaterPillow")
    monkeypatch.delitem(Image.OPEN, "AVIF")
    assert pillow_files._installed() == [kind for kind in KINDS if kind != "AVIF"]


@pytest.mark.kernels
def test_a_file_for_which_memory_does_not_reach_costs_no_other(monkeypatch, picture, encoded):
    from fastssd.data.jpeg_rewrite import transcode

    contents = [encoded(picture(9 + i, 8)) for i in range(3)]

    def too_little(files, *, rewrite):
        if contents[1] in files:
            raise MemoryError
        return transcode(files, rewrite=rewrite)

    monkeypatch.setattr("fastssd.data.encode.transcode", too_little)
    for how in (KEPT, AS_PIXELS, Encoding(jpeg="restart")):
        results = encode_all(contents, how, [1, 2, 3])
        assert [isinstance(one, str) for one in results] == [False, True, False]
        assert "memory" in results[1]


@pytest.mark.kernels
@pytest.mark.parametrize("verify", [True, False])
def test_a_file_that_the_comparing_decoder_does_not_take_is_damaged(
    monkeypatch, picture, encoded, verify
):
    def refuse(image):
        raise ValueError("Fractional sampling not implemented yet")

    monkeypatch.setattr("fastssd.data.encode.decode_pixels", refuse)
    (result,) = encode_all([encoded(picture(9, 8))], Encoding(jpeg="restart", verify=verify), [64])
    assert result == "Fractional sampling not implemented yet"
