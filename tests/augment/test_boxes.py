"""Crop boxes against scalar formulas and torchvision's own transforms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from fastssd.augment.boxes import CenterCrop, PaddedCrop, ResizedCrop, WholeImage

NO_UNIFORMS = np.empty((1, 0))
EXTREME_SIZES = [(10, 400), (400, 10), (1, 1), (1, 50), (3, 2), (64, 64), (375, 500), (500, 333)]

image_sizes = st.tuples(st.integers(1, 700), st.integers(1, 700))


def scalar_resized_box(numbers, height, width, scale, ratio):
    """RandomResizedCrop.get_params of torchvision, in float64, fed numbers instead of drawing."""
    for attempt in range(10):
        area_u, ratio_u, x_u, y_u = numbers[4 * attempt : 4 * attempt + 4]
        area = height * width * (scale[0] + area_u * (scale[1] - scale[0]))
        logs = math.log(ratio[0]), math.log(ratio[1])
        shape = math.exp(logs[0] + ratio_u * (logs[1] - logs[0]))
        box_width = round(math.sqrt(area * shape))
        box_height = round(math.sqrt(area / shape))
        if 0 < box_width <= width and 0 < box_height <= height:
            x = math.floor(x_u * (width - box_width + 1))
            y = math.floor(y_u * (height - box_height + 1))
            return [x, y, box_width, box_height]
    box_width, box_height = width, height
    if width / height < min(ratio):
        box_height = round(width / min(ratio))
    elif width / height > max(ratio):
        box_width = round(height * max(ratio))
    return [(width - box_width) // 2, (height - box_height) // 2, box_width, box_height]


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.2, 1.0)])
def test_resized_boxes_are_the_scalar_formula_on_the_same_numbers(scale):
    rng = np.random.default_rng(0)
    sizes = np.concatenate([np.array(EXTREME_SIZES * 20), rng.integers(1, 600, (500, 2))])
    crop = ResizedCrop(scale=scale)
    uniforms = rng.random((len(sizes), crop.num_uniforms))

    boxes = crop.boxes(uniforms, sizes, 224)

    expected = [
        scalar_resized_box(numbers, int(height), int(width), scale, crop.ratio)
        for numbers, (height, width) in zip(uniforms, sizes, strict=True)
    ]
    np.testing.assert_array_equal(boxes, expected)


@pytest.mark.parametrize("size", [(375, 500), (100, 30), (40, 80)])
def test_resized_boxes_are_distributed_as_torchvision_draws_them(size):
    num_draws = 2500
    crop = ResizedCrop(scale=(0.08, 1.0))
    uniforms = np.random.default_rng(1).random((num_draws, crop.num_uniforms))
    image = torch.empty(3, *size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        rows = [
            RandomResizedCrop.get_params(image, list(crop.scale), list(crop.ratio))
            for _ in range(num_draws)
        ]

    boxes = crop.boxes(uniforms, np.tile(size, (num_draws, 1)), 224)

    theirs = np.array(rows)[:, [1, 0, 3, 2]]
    for ours_column, theirs_column in zip(boxes.T, theirs.T, strict=True):
        # Two-sample Kolmogorov-Smirnov: beyond 2.2 * sqrt(2 / n) has odds of 1 in 8,000.
        values = np.union1d(ours_column, theirs_column)
        ours_below = np.searchsorted(np.sort(ours_column), values, side="right")
        theirs_below = np.searchsorted(np.sort(theirs_column), values, side="right")
        distance = np.abs(ours_below - theirs_below).max() / num_draws
        assert distance < 2.2 * math.sqrt(2 / num_draws)


@settings(deadline=None)
@given(sizes=st.lists(image_sizes, min_size=1, max_size=20), seed=st.integers(0, 2**32))
def test_resized_boxes_lie_within_their_images_and_are_not_empty(sizes, seed):
    crop = ResizedCrop(scale=(0.08, 1.0))
    uniforms = np.random.default_rng(seed).random((len(sizes), crop.num_uniforms))

    boxes = crop.boxes(uniforms, np.array(sizes), 32)

    assert_within(boxes, sizes)


def test_a_number_just_below_one_keeps_the_box_within_the_image():
    crop = ResizedCrop(scale=(0.08, 1.0))
    sizes = np.array([(375, 500), (32, 32)])

    boxes = crop.boxes(np.full((2, crop.num_uniforms), 1 - 2.0**-32), sizes, 32)

    assert_within(boxes, sizes)


def test_padded_boxes_reach_every_place_equally_often():
    crop = PaddedCrop(4)
    num_draws = 81 * 200
    uniforms = np.random.default_rng(3).random((num_draws, 2))

    boxes = crop.boxes(uniforms, np.full((num_draws, 2), 32), 32)

    places, counts = np.unique(boxes[:, :2], axis=0, return_counts=True)
    assert places.tolist() == [[x, y] for x in range(-4, 5) for y in range(-4, 5)]
    # 80 degrees of freedom, 6 deviations.
    assert np.sum((counts - 200) ** 2 / 200) < 80 + 6 * math.sqrt(160)
    np.testing.assert_array_equal(boxes[:, 2:], 32)


@settings(deadline=None)
@given(size=image_sizes, side=st.integers(1, 300))
def test_the_whole_image_is_the_whole_image(size, side):
    box = WholeImage().boxes(NO_UNIFORMS, np.array([size]), side)

    assert box.tolist() == [[0, 0, size[1], size[0]]]


@settings(deadline=None)
@given(sizes=st.lists(image_sizes, min_size=1, max_size=20), side=st.integers(1, 300))
def test_center_boxes_lie_within_their_images_and_are_not_empty(sizes, side):
    crop = CenterCrop(round(side * 256 / 224))

    boxes = crop.boxes(np.empty((len(sizes), 0)), np.array(sizes), side)

    assert_within(boxes, sizes)


@pytest.mark.parametrize(
    ("size", "short_side", "side"),
    [
        ((375, 500), 256, 224),
        ((500, 333), 256, 224),
        ((256, 256), 256, 224),
        ((257, 1031), 256, 224),
        ((100, 100), 73, 64),
        ((48, 61), 73, 64),
        ((32, 32), 37, 32),
    ],
)
def test_the_edges_of_a_center_box_are_half_a_stored_pixel_from_torchvisions(
    size, short_side, side
):
    height, width = size
    shape = tv.resize(torch.zeros(1, *size, dtype=torch.uint8), [short_side]).shape[1:]
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
    cut = tv.center_crop(torch.stack([columns, rows]), [side, side])
    scale = np.array([width / shape[1], height / shape[0]])

    x, y, box_width, box_height = CenterCrop(short_side).boxes(NO_UNIFORMS, np.array([size]), side)[
        0
    ]

    starts = cut[:, 0, 0].numpy() * scale
    ends = (cut[:, -1, -1].numpy() + 1) * scale
    np.testing.assert_allclose([x, y], starts, atol=0.5 + 1e-9, rtol=0)
    np.testing.assert_allclose([x + box_width, y + box_height], ends, atol=0.5 + 1e-9, rtol=0)


@pytest.mark.parametrize("size", [(375, 500), (501, 333)])
def test_a_center_box_shows_nearly_the_pixels_of_torchvisions_two_steps(size):
    coarse = np.random.default_rng(4).integers(0, 256, (3, 12, 16), dtype=np.uint8)
    image = tv.resize(torch.from_numpy(coarse), list(size))
    expected = tv.center_crop(tv.resize(image, [256]), [224, 224]).float()

    x, y, width, height = CenterCrop(256).boxes(NO_UNIFORMS, np.array([size]), 224)[0]

    shown = tv.resize(image[:, y : y + height, x : x + width], [224, 224]).float()
    # Half a pixel of a scene whose neighbours differ by up to about 8 grey levels.
    assert (shown - expected).abs().mean() < 1.5
    assert (shown - expected).abs().max() < 10


def test_a_center_box_of_an_image_of_the_short_side_is_the_plain_center_crop():
    box = CenterCrop(256).boxes(NO_UNIFORMS, np.array([(256, 256)]), 224)

    assert box.tolist() == [[16, 16, 224, 224]]


def assert_within(boxes, sizes):
    heights, widths = np.array(sizes).T
    x, y, box_widths, box_heights = boxes.T
    assert (box_widths >= 1).all()
    assert (box_heights >= 1).all()
    assert (x >= 0).all()
    assert (y >= 0).all()
    assert (x + box_widths <= widths).all()
    assert (y + box_heights <= heights).all()
    assert boxes.dtype == np.int64
