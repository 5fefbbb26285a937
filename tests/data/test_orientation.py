"""Exif orientation against Pillow's exif_transpose, on whole images and on boxes."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from small_jpegs import picture_jpeg, segment

from fastssd.data.convert import convert
from fastssd.data.dataset import META_FILE, open_dataset
from fastssd.data.decode.crop import crop
from fastssd.data.decode.decoders import build_decoder
from fastssd.data.draws import Draws
from fastssd.data.encode import Encoding, encode
from fastssd.data.images import PIXELS, image_fetch
from fastssd.data.jpeg_header import read_frame
from fastssd.data.meta_file import write_meta
from fastssd.data.orientation import stored_boxes, turn, turn_batch, upright_sizes
from fastssd.data.sources.sources import open_source
from fastssd.errors import DataError

ORIENTATIONS = range(1, 9)


def tagged(pixels, orientation, kind="JPEG", **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def upright_by_pillow(content):
    return np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_an_image_is_turned_as_pillow_turns_it(picture, orientation):
    pixels = picture(21, 34)
    content = tagged(pixels, orientation, "PNG")

    assert np.array_equal(turn(pixels, orientation), upright_by_pillow(content))
    assert np.array_equal(
        encode(content, Encoding(jpeg="restart")).image.data, upright_by_pillow(content)
    )


def exif_block(orientation, order="little"):
    """Return an APP1 segment of two entries, the second being the orientation."""
    entry = (0x0112).to_bytes(2, order) + (3).to_bytes(2, order) + (1).to_bytes(4, order)
    other = (0x010F).to_bytes(2, order) + (2).to_bytes(2, order) + (4).to_bytes(4, order) + b"abc\0"
    block = (b"II*\0" if order == "little" else b"MM\0*") + (8).to_bytes(4, order)
    block += (2).to_bytes(2, order) + other + entry + orientation.to_bytes(2, order) + b"\0\0"
    return segment(0xE1, b"Exif\0\0" + block + bytes(4))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("order", ["little", "big"])
def test_the_orientation_of_a_jpeg_is_read_from_its_header(encoded, picture, orientation, order):
    content = encoded(picture(21, 34))
    content = content[:2] + exif_block(orientation, order) + content[2:]

    assert Image.open(io.BytesIO(content)).getexif()[0x0112] == orientation
    assert read_frame(content).orientation == orientation


@given(
    st.lists(st.tuples(st.integers(1, 8), st.integers(0, 9)), min_size=1, max_size=3),
    st.booleans(),
)
def test_of_several_exif_blocks_the_first_counts_wherever_it_stands(blocks, other):
    content = picture_jpeg(8, 8)
    starts = [2]  # of the segments
    while content[starts[-1] + 1] != 0xDA:
        length = int.from_bytes(content[starts[-1] + 2 : starts[-1] + 4], "big")
        starts.append(starts[-1] + 2 + length)
    if other:  # of a name that is not Exif's
        blocks = [*blocks, (0, 0)]
    for orientation, place in sorted(blocks, key=lambda block: block[1], reverse=True):
        at = starts[min(place, len(starts) - 1)]
        block = exif_block(orientation) if orientation else segment(0xE1, b"http://ns.adobe\0<x/>")
        content = content[:at] + block + content[at:]

    assert read_frame(content).orientation == Image.open(io.BytesIO(content)).getexif()[0x0112]


def test_the_start_of_a_file_with_its_frame_header_is_enough(encoded, picture):
    content = encoded(picture(21, 34))
    frame = content.index(b"\xff\xc0")
    assert read_frame(content[: frame + 21]).width == 34
    assert read_frame(content[: frame + 19] + b"no marker").height == 21


@given(st.binary(max_size=60), st.sampled_from([b"II*\0", b"MM\0*", b""]))
def test_damaged_exif_data_count_as_upright_or_as_an_orientation(junk, start):
    exif = b"Exif\0\0" + start + junk
    frame = bytes.fromhex("ffc0000b080010001001011100")
    content = b"\xff\xd8\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + frame
    assert 1 <= read_frame(content).orientation <= 8


@given(
    st.integers(1, 8),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 12), st.integers(1, 12)),
)
def test_a_box_of_the_upright_image_is_the_turned_box_of_the_stored_one(orientation, size, box):
    stored = np.random.default_rng(0).integers(1, 256, (*size, 3)).astype(np.uint8)
    orientations = np.array([orientation], np.uint8)

    there = stored_boxes(np.array([[box]]), orientations, np.array([size], np.int32))[0, 0]

    expected = crop(turn(stored, orientation), np.array(box))
    assert np.array_equal(turn(crop(stored, there), orientation), expected)
    sizes = upright_sizes(np.array([size], np.int32), orientations)
    assert tuple(sizes[0]) == turn(stored, orientation).shape[:2]


def test_only_the_turned_images_of_a_batch_change():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 5, 3)).astype(np.uint8)
    before = pixels.copy()

    turn_batch(pixels, np.array([1, 6, 1], np.uint8))

    assert np.array_equal(pixels[:, [0, 2]], before[:, [0, 2]])
    assert np.array_equal(pixels[1, 1], np.rot90(before[1, 1], -1))


class Boxes:
    """One crop of every image, in upright pixels."""

    size = 16

    def boxes(self, samples, views, sizes):
        heights, widths = sizes.T.astype(np.int64)
        return np.stack([widths // 4, heights // 3, widths // 2, heights // 2], 1)[:, None]

    def parameters(self, samples, views):
        return {}


@pytest.fixture
def turned_tree(tmp_path, picture):
    """Eight JPEG files of each of two classes, one for each orientation."""
    for seed, name in enumerate(("ant", "bee")):
        (tmp_path / "source" / name).mkdir(parents=True)
        for orientation in ORIENTATIONS:
            content = tagged(picture(48, 64, seed=seed), orientation, quality=95)
            (tmp_path / "source" / name / f"{orientation}.jpg").write_bytes(content)
    return tmp_path / "source"


@pytest.mark.parametrize("format", ["memory", "ffcv", "webdataset"])
def test_crops_of_every_format_are_those_of_the_upright_image(tmp_path, turned_tree, format):
    meta = convert(open_source(str(turned_tree)), tmp_path / "out", format=format)

    split = open_dataset(tmp_path / "out").split("train")
    draws = Draws(np.arange(16), np.zeros(16, np.int64))
    pixels = image_fetch(split, build_decoder(), Boxes())(draws)[PIXELS][0].numpy()

    assert meta["splits"]["train"]["turned"] == (0 if format == "memory" else 14)
    for sample in range(16):
        upright = upright_by_pillow((turned_tree / split.describe(sample)).read_bytes())
        assert tuple(split.sizes[sample]) == upright.shape[:2]
        height, width = upright.shape[:2]
        x, y = width // 4, height // 3
        part = Image.fromarray(upright).crop((x, y, x + width // 2, y + height // 2))
        expected = np.array(part.resize((16, 16), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(pixels[sample] - expected).max() <= 4  # the order of the two passes differs


def test_orientation_can_be_ignored(tmp_path, turned_tree):
    meta = convert(
        open_source(str(turned_tree)), tmp_path / "out", format="ffcv", orientation="ignore"
    )

    split = open_dataset(tmp_path / "out").split("train")
    assert (split.sizes == [48, 64]).all()
    assert split.orientations is None
    assert meta["conversion"]["orientation"] == "ignore"


@pytest.mark.parametrize("orientations", [np.full(16, 9), np.zeros(16), np.ones(3)])
def test_orientations_that_make_no_sense_are_an_error(tmp_path, turned_tree, orientations):
    meta = convert(open_source(str(turned_tree)), tmp_path / "out", format="ffcv")
    np.save(tmp_path / "out/train.orientations.npy", orientations.astype(np.uint8))
    write_meta(tmp_path / "out", META_FILE, meta)  # as if the conversion had written it so
    with pytest.raises(DataError, match=r"train\.orientations\.npy.*1 to 8"):
        open_dataset(tmp_path / "out").split("train")
