"""Damaged files through the native decoder: pixels or a reason, and nothing of a neighbour's."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastssd.data.decode.decoder import DecodeError
from fastssd.data.storage.image import StoredBatch, StoredImage
from fastssd.native.library import library

if library() is None:
    pytest.skip("the native kernels were not built", allow_module_level=True)

from fastssd.data.decode.native_decoder import NativeDecoder

DECODER = NativeDecoder(threads=2)
SIDE = 24
WHOLE = [0, 0, 60, 40]


def encode(seed, **options):
    noise = np.random.default_rng(seed).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", **{"quality": 60, **options})
    return buffer.getvalue()


def stored(content):
    return StoredImage("jpeg", np.frombuffer(content, np.uint8).copy())


KINDS = {
    "restart": {"restart_marker_blocks": 2},
    "plain": {},
    "progressive": {"progressive": True},
}
CONTENTS = {name: encode(number, **options) for number, (name, options) in enumerate(KINDS.items())}


def reason_of(content, box=WHOLE):
    with pytest.raises(DecodeError) as caught:
        DECODER.decode([stored(content)], np.array([[box]]), SIDE)
    return caught.value.reason


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("keep", [0, 1, 2, 3, 30, 700, -40, -2, -1])
def test_a_file_that_ends_early_is_damaged_whatever_the_box(name, keep):
    for box in (WHOLE, [0, 0, 8, 8]):
        assert reason_of(CONTENTS[name][:keep], box)


@pytest.mark.parametrize("name", KINDS)
def test_zeros_instead_of_the_end_are_damage(name):
    content = CONTENTS[name]
    assert reason_of(content[:-2] + bytes(2), [0, 0, 8, 8])


def test_what_is_no_jpeg_file_has_a_reason():
    assert "JPEG" in reason_of(b"no picture at all" * 10)


def test_a_missing_restart_marker_is_damage_even_outside_the_box():
    content = CONTENTS["restart"]
    at = content.index(b"\xff\xd1")
    assert "marker" in reason_of(content[:at] + content[at + 2 :], [0, 0, 8, 8])
    assert "marker" in reason_of(content[:at] + b"\xff\xd5" + content[at + 2 :], [0, 0, 8, 8])


def test_a_segment_too_short_or_too_long_is_damage():
    content = CONTENTS["restart"]
    start, end = content.index(b"\xff\xd0") + 2, content.index(b"\xff\xd1")
    # A segment cut by half: its last block's bits are missing, or what stands for them is no code.
    assert "image data" in reason_of(content[: (start + end) // 2] + content[end:])
    assert "too long" in reason_of(content[:end] + content[start : start + 4] + content[end:])


def test_fill_bytes_before_a_marker_are_none():
    content = CONTENTS["restart"]
    at = content.index(b"\xff\xd1")
    filled = content[:at] + b"\xff\xff" + content[at:]
    boxes = np.array([[WHOLE]] * 2)
    out = DECODER.decode([stored(content), stored(filled)], boxes, SIDE)
    assert np.array_equal(out[0, 0], out[0, 1])


def test_twelve_bits_are_named():
    content = CONTENTS["plain"]
    at = content.index(b"\xff\xc0") + 4
    assert "precision 12" in reason_of(content[:at] + b"\x0c" + content[at + 1 :])


def test_zeros_behind_the_end_of_a_segment_are_no_image():
    # All zeros are the code of a block's end in neither table: the reader runs on.
    content = encode(9, restart_marker_blocks=2, quality=1)
    start, end = content.index(b"\xff\xd0") + 2, content.index(b"\xff\xd1")
    assert "image data" in reason_of(content[:start] + content[end:])


def test_a_header_that_claims_a_huge_image_is_refused():
    content = CONTENTS["progressive"]
    at = content.index(b"\xff\xc2") + 5
    assert "2^28" in reason_of(content[:at] + b"\xff\x00\xff\x00" + content[at + 4 :])


def test_all_damaged_images_are_named_and_the_others_right():
    good = [stored(content) for content in CONTENTS.values()]
    broken = stored(CONTENTS["restart"][:-30])
    garbage = stored(bytes(50))
    images = [good[0], broken, good[1], garbage, good[2]]
    boxes = np.tile(np.array([[WHOLE, [3, 1, SIDE, SIDE]]]), (5, 1, 1))
    expected = DECODER.decode(good, boxes[:3], SIDE)
    out = np.empty((2, 5, SIDE, SIDE, 3), np.uint8)

    with pytest.raises(DecodeError) as caught:
        DECODER.decode(images, boxes, SIDE, out=out)

    assert caught.value.position == 1
    assert set(caught.value.damaged) == {1, 3}
    assert caught.value.damaged[1] == caught.value.reason
    assert np.array_equal(out[:, [0, 2, 4]], expected)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(list(KINDS)),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_overwritten_bytes_give_pixels_or_a_reason_and_spoil_no_neighbour(name, changes):
    content = bytearray(CONTENTS[name])
    for place, value in changes:
        content[int(place * len(content))] = value
    good = stored(CONTENTS["restart"])
    boxes = np.array([[WHOLE]] * 3)
    expected = DECODER.decode([good], boxes[:1], SIDE)
    out = np.empty((1, 3, SIDE, SIDE, 3), np.uint8)
    damaged = {}
    try:
        DECODER.decode([good, stored(bytes(content)), good], boxes, SIDE, out=out)
    except DecodeError as error:
        damaged = error.damaged
    assert set(damaged) <= {1}
    assert all(damaged.values())
    assert np.array_equal(out[:, [0, 2]], expected[:, [0, 0]])


def test_the_tables_of_another_file_are_not_used():
    content = CONTENTS["plain"]
    start = content.index(b"\xff\xdb")
    length = int.from_bytes(content[start + 2 : start + 4], "big")
    without = content[:start] + content[start + 2 + length :]
    DECODER.decode([stored(content)], np.array([[WHOLE]]), SIDE)
    assert "Quantization table" in reason_of(without)


def test_a_raw_image_whose_bytes_are_not_its_pixels_is_damaged():
    pixels = np.zeros((4, 4, 3), np.uint8)
    batch = StoredBatch.of([StoredImage("raw", pixels)])
    batch.sizes[0] = [5, 4]
    with pytest.raises(DecodeError, match="size"):
        DECODER.decode(batch, np.array([[[0, 0, 4, 4]]]), 4)


def test_a_box_beyond_all_measure_is_refused():
    raw = StoredImage("raw", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DecodeError, match="2\\^17"):
        DECODER.decode([raw], np.array([[[0, 0, 1 << 18, 4]]]), 4)
    with pytest.raises(ValueError, match="without pixels"):
        DECODER.decode([raw], np.array([[[0, 0, 0, 4]]]), 4)
