import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from fastssd.data.decode.shrink import Limit, shrink
from fastssd.data.decode.torchvision_decoder import decode_pixels
from fastssd.data.storage.image import StoredImage


def jpeg(content):
    return StoredImage("jpeg", np.frombuffer(content, np.uint8).copy())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 60))
def test_pixels_become_those_of_torchvisions_resize_of_the_short_side(height, width, short_side):
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)

    result = shrink(StoredImage("raw", pixels), Limit(short_side=short_side))

    assert result.mode == "raw"
    if min(height, width) <= short_side:
        assert np.array_equal(result.data, pixels)
    else:
        expected = tv.resize(Image.fromarray(pixels), [short_side], tv.InterpolationMode.BILINEAR)
        assert np.array_equal(result.data, np.asarray(expected))


def test_a_large_jpeg_is_encoded_again_and_stays_near(picture, encoded):
    content = encoded(picture(120, 200), quality=95)

    result = shrink(jpeg(content), Limit(short_side=60))

    assert result.mode == "jpeg"
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.resize((100, 60), Image.Resampling.BILINEAR))
    pixels = decode_pixels(result)
    assert pixels.shape == (60, 100, 3)
    assert np.abs(pixels.astype(int) - expected).mean() < 2
    assert len(result.data) < len(content)


def test_a_grey_jpeg_has_three_equal_channels_afterwards(picture, encoded):
    pixels = decode_pixels(shrink(jpeg(encoded(picture(90, 90), mode="L")), Limit(short_side=30)))
    assert np.ptp(pixels.astype(int), axis=2).max() <= 1


def test_a_small_jpeg_keeps_its_bytes(picture, encoded):
    image = jpeg(encoded(picture(60, 100)))
    assert shrink(image, Limit(short_side=60)) is image


def test_a_damaged_jpeg_is_an_error(picture, encoded):
    with pytest.raises(ValueError, match=r"\w"):
        shrink(jpeg(encoded(picture(60, 100))[:-2]), Limit(short_side=30))


@pytest.mark.parametrize(
    ("limit", "size", "expected"),
    [
        (Limit(), (50, 80), (50, 80)),
        (Limit(max_side=80), (50, 80), (50, 80)),
        (Limit(max_side=40), (50, 80), (25, 40)),
        (Limit(max_side=40), (80, 50), (40, 25)),
        (Limit(short_side=40, max_side=70), (50, 80), (40, 64)),
        (Limit(short_side=40, max_side=48), (50, 80), (30, 48)),
        (Limit(max_side=7), (1, 1000), (1, 7)),
        (Limit(max_side=500), (333, 501), (332, 500)),
    ],
)
def test_both_limits_hold_and_the_ratio_stays(limit, size, expected):
    assert limit.size(*size) == expected


def test_a_lower_quality_is_a_smaller_file(picture, encoded):
    image = jpeg(encoded(picture(120, 200), quality=95))
    sizes = [len(shrink(image, Limit(max_side=150, quality=q)).data) for q in (60, 80, 95)]
    assert sizes == sorted(set(sizes))
