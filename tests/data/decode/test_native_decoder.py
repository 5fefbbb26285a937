"""The native decoder against Pillow, torchvision and exact formulas."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate

from fastssd.data.decode.crop import crop, crop_resized
from fastssd.data.decode.torchvision_decoder import TorchvisionDecoder
from fastssd.data.orientation import turn_batch
from fastssd.data.storage.image import StoredBatch, StoredImage
from fastssd.errors import ConfigError
from fastssd.native.library import library

if library() is None:
    pytest.skip("the native kernels were not built", allow_module_level=True)

from fastssd.data.decode.native_decoder import NativeDecoder

DECODER = NativeDecoder(threads=2, shrink=False)
PLAIN = NativeDecoder(threads=1, shrink=False, simd=False)
SIDE = 24


def picture(height, width, seed, *, noise=False):
    random = np.random.default_rng(seed)
    if noise:
        return random.integers(0, 256, (height, width, 3)).astype(np.uint8)
    small = random.integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encode(pixels, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def stored(content):
    return StoredImage("jpeg", np.frombuffer(content, np.uint8).copy())


def pillow(content):
    with Image.open(io.BytesIO(content)) as image:
        return np.array(image.convert("RGB"))


def boxes_of(*boxes):
    """Boxes of one image each, or lists of them."""
    return np.array([box if isinstance(box[0], list) else [box] for box in boxes], np.int64)


def expected_of(pixels, boxes, size):
    out = np.empty((len(boxes), size, size, 3), np.uint8)
    for view, box in enumerate(boxes):
        crop_resized(pixels, box, out[view])
    return out


KINDS = st.fixed_dictionaries(
    {
        "subsampling": st.sampled_from([0, 1, 2]),
        "quality": st.sampled_from([1, 20, 75, 95, 100]),
        "progressive": st.sampled_from([False, False, False, True]),
        "optimize": st.booleans(),
        "restart_marker_blocks": st.integers(0, 9),
        "mode": st.sampled_from(["RGB", "RGB", "RGB", "L", "CMYK"]),
    }
)
SIDES = st.one_of(st.integers(1, 20), st.integers(1, 110))
PLACES = st.integers(-30, 110)


@settings(max_examples=150, deadline=None)
@given(
    KINDS,
    SIDES,
    SIDES,
    st.booleans(),
    st.lists(st.tuples(PLACES, PLACES), min_size=1, max_size=3),
    st.sampled_from([1, 7, 24, 40]),
    st.sampled_from([DECODER, PLAIN]),
)
def test_boxes_of_the_outputs_size_are_pillows_pixels(
    kind, height, width, noise, places, size, decoder
):
    content = encode(picture(height, width, height, noise=noise), **kind)
    boxes = boxes_of([[x, y, size, size] for x, y in places])

    out = decoder.decode([stored(content)], boxes, size)

    whole = pillow(content)
    for view, box in enumerate(boxes[0]):
        assert np.array_equal(out[view, 0], crop(whole, box))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["raw", "4:4:4", "4:2:0"]),
    SIDES,
    SIDES,
    st.lists(
        st.tuples(PLACES, PLACES, st.integers(1, 150), st.integers(1, 150)), min_size=1, max_size=2
    ),
    st.sampled_from([1, 5, 16, 24, 33]),
    st.sampled_from([DECODER, PLAIN]),
)
def test_resized_boxes_are_torchvisions_but_for_one_grey_level(
    kind, height, width, boxes, size, decoder
):
    pixels = picture(height, width, width, noise=True)
    image = StoredImage("raw", pixels)
    if kind != "raw":
        content = encode(pixels, subsampling=kind, restart_marker_blocks=2)
        image, pixels = stored(content), pillow(content)
    boxes = boxes_of([list(box) for box in boxes])

    out = decoder.decode([image], boxes, size)

    difference = np.abs(out[:, 0].astype(int) - expected_of(pixels, boxes[0], size))
    assert difference.max() <= 1


def test_a_resized_photo_is_pillows_but_for_one_grey_level():
    content = encode(picture(160, 240, 3), quality=90)
    boxes = boxes_of([10, 5, 210, 150])

    out = DECODER.decode([stored(content)], boxes, 64)

    cut = Image.fromarray(pillow(content)).crop((10, 5, 220, 155))
    expected = np.asarray(cut.resize((64, 64), Image.Resampling.BILINEAR))
    difference = np.abs(out[0, 0].astype(int) - expected)
    assert difference.max() <= 1
    assert difference.mean() < 0.3


@pytest.mark.parametrize(("height", "width"), [(2, 3000), (2500, 3), (1200, 1100)])
def test_boxes_of_very_many_pixels_keep_the_difference(height, width):
    pixels = picture(height, width, 5, noise=True)
    boxes = boxes_of([0, 0, width, height])
    for decoder in (DECODER, PLAIN):
        out = decoder.decode([StoredImage("raw", pixels)], boxes, 9)
        assert np.abs(out[:, 0].astype(int) - expected_of(pixels, boxes[0], 9)).max() <= 1


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_a_box_of_one_colour_keeps_it(value):
    pixels = np.full((300, 400, 3), value, np.uint8)
    boxes = boxes_of([[0, 0, 400, 300], [5, 7, 13, 293], [1, 2, 399, 20]])
    out = DECODER.decode([StoredImage("raw", pixels)], boxes, 32)
    assert (out == value).all()


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        *((3000, 3000, 1), (1, 3000, 1), (3000, 1, 1), (2, 30000, 2), (4, 60000, 4), (2, 90000, 3)),
        *((1, 70000, 1), (1, 131072, 1), (131072, 1, 1), (131072, 2, 2), (900, 700, 1)),
    ],
)
def test_boxes_of_so_many_pixels_that_a_weight_is_next_to_nothing(height, width, size):
    boxes = boxes_of([0, 0, width, height])
    noise = picture(height, width, 5, noise=True)
    flat = np.full((height, width, 3), 100, np.uint8)
    for decoder in (DECODER, PLAIN):
        assert (decoder.decode([StoredImage("raw", flat)], boxes, size) == 100).all()
        out = decoder.decode([StoredImage("raw", noise)], boxes, size)
        expected = expected_of(noise, boxes[0], size)
        assert np.abs(out[:, 0].astype(int) - expected).max() <= 1


@settings(max_examples=60, deadline=None)
@given(KINDS, SIDES, SIDES, st.tuples(PLACES, PLACES, st.integers(1, 150), st.integers(1, 150)))
def test_vector_instructions_change_no_pixel(kind, height, width, box):
    image = stored(encode(picture(height, width, 1, noise=True), **kind))
    for shrink in (False, True):
        first, second = (
            NativeDecoder(threads=1, shrink=shrink, simd=simd).decode([image], boxes_of([*box]), 20)
            for simd in (True, False)
        )
        assert np.array_equal(first, second)


def shrunk(pixels, scale):
    """Means of squares, the last ones of what is there."""
    height, width = (-(-side // scale) for side in pixels.shape[:2])
    margin = ((0, height * scale - pixels.shape[0]), (0, width * scale - pixels.shape[1]), (0, 0))
    padded = np.pad(pixels.astype(float), margin, mode="edge")
    return padded.reshape(height, scale, width, scale, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0", "grey"])
def test_a_jpeg_is_decoded_smaller_as_the_mean_of_its_pixels(scale, subsampling):
    # Far from black and white: the mean of clamped pixels is not that of unclamped ones.
    size, pixels = 14, picture(260, 330, scale) // 3 + 80
    options = {"mode": "L"} if subsampling == "grey" else {"subsampling": subsampling}
    content = encode(pixels, quality=90, restart_marker_blocks=3, **options)
    side = 2 * size * scale
    boxes = boxes_of([scale * 2, scale * 1, side, side])

    out = NativeDecoder(threads=1).decode([stored(content)], boxes, size)

    means = shrunk(pillow(content), scale)[1 : 1 + 2 * size, 2 : 2 + 2 * size]
    expected = interpolate(
        torch.from_numpy(means).permute(2, 0, 1)[None],
        (size, size),
        mode="bilinear",
        antialias=True,
    )
    difference = np.abs(out[0, 0] - expected[0].permute(1, 2, 0).numpy())
    # Chroma of half the pixels is taken as it is stored, not interpolated and averaged.
    assert difference.max() <= (3 if subsampling == "4:2:0" else 1.5)
    assert difference.mean() < 0.6


def test_a_smaller_decode_stays_near_the_filter_of_all_pixels():
    content = encode(picture(300, 420, 8) // 3 + 80, quality=90, restart_marker_blocks=3)
    boxes = boxes_of([[31, 17, 333, 275], [0, 0, 420, 300], [100, 60, 150, 130]])
    out = NativeDecoder(threads=1).decode([stored(content)], boxes, 64)
    difference = np.abs(out[:, 0].astype(int) - expected_of(pillow(content), boxes[0], 64))
    assert difference.max() <= 3
    assert difference.mean() < 0.5


def test_a_crop_does_not_depend_on_the_other_crops_of_its_image():
    content = encode(picture(200, 260, 2), restart_marker_blocks=3)
    boxes = boxes_of([[3, 5, 190, 170], [40, 60, 50, 41], [-9, 0, 230, 180], [150, 30, 90, 100]])
    decoder = NativeDecoder(threads=1)
    together = decoder.decode([stored(content)], boxes, 32)
    for view in range(4):
        alone = decoder.decode([stored(content)], boxes[:, view : view + 1], 32)
        assert np.array_equal(alone[0], together[view])


def patched(content, *, sampling, size, precision=8):
    """Another geometry for the same blocks: new sampling factors of the luma and a new size."""
    at = content.index(b"\xff\xc0") + 4
    frame = bytes([precision]) + b"".join(side.to_bytes(2, "big") for side in size) + b"\x03\x01"
    return content[:at] + frame + bytes([sampling]) + content[at + 8 :]


@pytest.mark.parametrize(
    ("subsampling", "sampling", "size"),
    [("4:2:2", 0x12, (96, 80)), ("4:2:0", 0x41, (48, 160)), ("4:2:0", 0x14, (192, 40))],
    ids=["4:4:0", "4:1:1", "4:1:0 upright"],
)
def test_rare_subsamplings_are_pillows_pixels(subsampling, sampling, size):
    content = encode(picture(48 if subsampling == "4:2:2" else 96, 160, 1), subsampling=subsampling)
    if subsampling == "4:2:0":
        content = encode(picture(96, 80, 1), subsampling=subsampling)
    content = patched(content, sampling=sampling, size=size)
    whole = pillow(content)
    assert whole.shape[:2] == size
    for box in ([0, 0, SIDE, SIDE], [11, 13, SIDE, SIDE], [size[1] - 20, size[0] - 9, SIDE, SIDE]):
        out = DECODER.decode([stored(content)], boxes_of(box), SIDE)
        assert np.array_equal(out[0, 0], crop(whole, np.array(box)))


def test_colour_spaces_are_pillows_pixels():
    pixels = picture(50, 70, 4)
    cmyk = encode(pixels, mode="CMYK")
    at = cmyk.index(b"Adobe") + 11
    contents = [
        encode(pixels, keep_rgb=True),
        cmyk,
        cmyk[:at] + b"\x02" + cmyk[at + 1 :],  # the same numbers as YCCK
    ]
    boxes = boxes_of(*[[9, 5, SIDE, SIDE]] * 3)
    out = DECODER.decode([stored(content) for content in contents], boxes, SIDE)
    for number, content in enumerate(contents):
        assert np.array_equal(out[0, number], crop(pillow(content), boxes[number, 0]))


def test_exif_orientation_is_left_to_the_caller():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode(picture(40, 60, 2), exif=exif)
    out = DECODER.decode([stored(content)], boxes_of([30, 5, SIDE, SIDE]), SIDE)
    assert np.array_equal(out[0, 0], crop(pillow(content), np.array([30, 5, SIDE, SIDE])))


@pytest.mark.parametrize("size", [SIDE, 17])
@pytest.mark.parametrize("kind", ["jpeg", "raw"])
def test_turns_are_those_of_exif(kind, size):
    pixels = picture(50, 70, 4)
    image = stored(encode(pixels)) if kind == "jpeg" else StoredImage("raw", pixels)
    boxes = boxes_of(*[[[9, -5, SIDE, SIDE], [1, 2, 33, 22]]] * 8)
    turns = np.arange(1, 9, dtype=np.uint8)
    expected = DECODER.decode([image] * 8, boxes, size)
    turn_batch(expected, turns)

    assert np.array_equal(DECODER.decode([image] * 8, boxes, size, turns=turns), expected)


MIXED = [
    stored(encode(picture(40, 60, 0), restart_marker_blocks=2)),
    StoredImage("raw", picture(40, 60, 1)),
    stored(encode(picture(40, 60, 2), progressive=True)),
    stored(encode(picture(40, 60, 3), mode="L")),
] * 5
MIXED_BOXES = np.tile(boxes_of([[2, 3, SIDE, SIDE], [-5, 1, 50, 30]]), (20, 1, 1))


def test_pixels_are_written_where_the_caller_wants_them():
    out = np.full((2, 20, SIDE, SIDE, 3), 77, np.uint8)
    result = DECODER.decode(MIXED, MIXED_BOXES, SIDE, out=out)
    assert result is out
    assert np.array_equal(out, DECODER.decode(MIXED, MIXED_BOXES, SIDE))


def test_threads_give_the_same_pixels():
    expected = NativeDecoder(threads=1).decode(MIXED, MIXED_BOXES, SIDE)
    decoder = NativeDecoder(threads=4)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: decoder.decode(MIXED, MIXED_BOXES, SIDE), range(12)))
    assert all(np.array_equal(result, expected) for result in results)


def test_a_batch_by_addresses_has_the_pixels_of_its_images():
    expected = DECODER.decode(MIXED, MIXED_BOXES, SIDE)
    batch = StoredBatch.of(MIXED)
    assert np.array_equal(DECODER.decode(batch, MIXED_BOXES, SIDE), expected)
    assert np.array_equal(DECODER.decode(batch[3:7], MIXED_BOXES[3:7], SIDE), expected[:, 3:7])


def test_no_image_and_no_view_are_no_pixels():
    assert DECODER.decode([], np.zeros((0, 2, 4), np.int64), 8).shape == (2, 0, 8, 8, 3)
    assert DECODER.decode(MIXED, np.zeros((20, 0, 4), np.int64), 8).shape == (0, 20, 8, 8, 3)


def test_more_views_than_are_decoded_at_once():
    boxes = boxes_of([[i % 30, i % 17, SIDE, SIDE] for i in range(150)])
    out = DECODER.decode(MIXED[:1], boxes, SIDE)
    assert np.array_equal(out, TorchvisionDecoder().decode(MIXED[:1], boxes, SIDE))


def test_without_kernels_the_decoder_says_what_to_install(monkeypatch):
    monkeypatch.setattr("fastssd.data.decode.native_decoder.library", lambda: None)
    with pytest.raises(ConfigError, match=r"data\.decoder=native.*libjpeg"):
        NativeDecoder()


def test_the_manifest_tells_other_pixels_apart():
    assert NativeDecoder().filter != NativeDecoder(shrink=False).filter
