import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate

from fastssd.data.decode.crop import crop, crop_resized

HEIGHT, WIDTH = 9, 13
PIXELS = np.random.default_rng(0).integers(1, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)

sides = st.integers(1, 20)
places = st.integers(-25, 25)


@given(places, places, sides, sides)
def test_a_crop_is_the_box_of_the_image_on_an_endless_black_ground(x, y, width, height):
    margin = 50
    ground = np.pad(PIXELS, ((margin, margin), (margin, margin), (0, 0)))

    result = crop(PIXELS, np.array([x, y, width, height]))

    rows, columns = slice(margin + y, margin + y + height), slice(margin + x, margin + x + width)
    assert np.array_equal(result, ground[rows, columns])


@settings(max_examples=60, deadline=None)
@given(places, places, sides, sides, st.integers(1, 24))
def test_a_resized_crop_is_the_exact_one_rounded(x, y, width, height, size):
    box = np.array([x, y, width, height])
    out = np.full((size, size, 3), 77, np.uint8)

    crop_resized(PIXELS, box, out)

    exact = torch.from_numpy(crop(PIXELS, box).astype(np.float64)).permute(2, 0, 1)[None]
    exact = interpolate(exact, size=(size, size), mode="bilinear", antialias=True)
    # The kernel rounds after each of the two directions.
    assert np.abs(out - exact[0].permute(1, 2, 0).numpy()).max() <= 1.01


def test_a_resized_photo_is_pillows(picture):
    pixels = picture(120, 160)
    out = np.empty((48, 48, 3), np.uint8)

    crop_resized(pixels, np.array([10, 5, 130, 110]), out)

    cut = Image.fromarray(pixels).crop((10, 5, 140, 115))
    expected = np.asarray(cut.resize((48, 48), Image.Resampling.BILINEAR))
    assert np.abs(out.astype(int) - expected).max() <= 1


def test_a_box_of_the_outputs_size_is_copied_exactly():
    out = np.empty((6, 6, 3), np.uint8)
    crop_resized(PIXELS, np.array([3, 2, 6, 6]), out)
    assert np.array_equal(out, PIXELS[2:8, 3:9])


def test_a_box_outside_the_image_is_black_at_any_size():
    for side in (6, 11):
        out = np.full((6, 6, 3), 77, np.uint8)
        crop_resized(PIXELS, np.array([WIDTH + 5, 0, side, side]), out)
        assert not out.any()


@pytest.mark.parametrize("box", [[0, 0, 0, 5], [0, 0, 5, -1]])
def test_an_empty_box_is_refused(box):
    with pytest.raises(ValueError, match="a box of"):
        crop(PIXELS, np.array(box))
