"""Colour operations against torchvision's on float images, image by image."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from fastssd.augment import colour

# Both round in float32, in different orders; 1e-5 is 1/400 of a grey level of 255.
TOLERANCE = {"atol": 1e-5, "rtol": 0}

TORCHVISION = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]


def as_planes(images):
    """(B, 3, S, S) -> (3, B, S, S), contiguous."""
    return images.permute(1, 0, 2, 3).contiguous()


def of_planes(planes):
    return planes.permute(1, 0, 2, 3)


def noise(batch, side=9, seed=0):
    """Images of whole grey levels, some of them dull so that channels come near each other."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, 3, side, side), generator=generator)
    images[1::3] = 100 + images[1::3] // 16
    return images / 255


def corner_cases():
    """Every mixture of 0, 1/2 and 1: black, white, greys, pure colours, ties of channels."""
    colours = torch.tensor(list(itertools.product([0.0, 0.5, 1.0], repeat=3)))
    return colours.T.reshape(1, 3, 3, 9).repeat(1, 1, 3, 1)


def torchvision_jitter(image, factors, order):
    for operation in order:
        image = TORCHVISION[operation](image, factors[operation])
    return image


@pytest.mark.parametrize("operation", [colour.BRIGHTNESS, colour.CONTRAST, colour.SATURATION])
def test_a_blend_is_torchvisions(operation):
    images = torch.cat([noise(6), corner_cases()])
    factors = torch.tensor([0.0, 0.3, 0.6, 1.0, 1.4, 2.5, 0.7])

    blended = colour.blend(as_planes(images), factors, torch.full((7,), operation))

    for image, result, factor in zip(images, of_planes(blended), factors.tolist(), strict=True):
        expected = TORCHVISION[operation](image, factor)
        torch.testing.assert_close(result, expected, **TOLERANCE)


@pytest.mark.parametrize("shift", [-0.5, -0.33, -0.1, -1 / 6, 0.05, 0.1, 0.25, 1 / 3, 0.5])
def test_a_hue_shift_is_torchvisions(shift):
    images = torch.cat([noise(6), corner_cases()])

    shifted = colour.shift_hue(as_planes(images), torch.full((7,), shift))

    torch.testing.assert_close(of_planes(shifted), tv.adjust_hue(images, shift), **TOLERANCE)


def test_a_third_of_the_circle_turns_red_to_green_and_green_to_blue():
    primaries = torch.eye(3).reshape(3, 3, 1, 1)  # one image each of red, green and blue

    shifted = of_planes(colour.shift_hue(as_planes(primaries), torch.full((3,), 1 / 3)))

    torch.testing.assert_close(shifted, primaries.roll(-1, dims=0), **TOLERANCE)


@settings(deadline=None)
@given(shift=st.floats(-0.5, 0.5, width=32), seed=st.integers(0, 1000))
def test_a_hue_shift_keeps_the_largest_and_smallest_channel_and_can_be_undone(shift, seed):
    planes = as_planes(noise(3, side=4, seed=seed))
    shifts = torch.full((3,), shift)

    shifted = colour.shift_hue(planes, shifts)

    torch.testing.assert_close(shifted.amax(0), planes.amax(0), **TOLERANCE)
    torch.testing.assert_close(shifted.amin(0), planes.amin(0), **TOLERANCE)
    torch.testing.assert_close(colour.shift_hue(shifted, -shifts), planes, atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_factors", [3, 4])
def test_a_jitter_is_torchvisions_in_every_order(num_factors):
    orders = torch.tensor(list(itertools.permutations(range(num_factors))))
    images = noise(len(orders))
    generator = torch.Generator().manual_seed(5)
    # Wide factors, so that images clip and every order gives another result.
    factors = torch.rand(len(orders), num_factors, generator=generator) * 1.6 + 0.2
    if num_factors == 4:
        factors[:, 3] = torch.rand(len(orders), generator=generator) - 0.5

    jittered = colour.jitter(as_planes(images), factors, orders)

    for image, result, of_image, order in zip(
        images, of_planes(jittered), factors.tolist(), orders.tolist(), strict=True
    ):
        expected = torchvision_jitter(image, of_image, order)
        torch.testing.assert_close(result, expected, **TOLERANCE)


def test_neutral_factors_leave_an_image_as_it_was_beside_others_that_change():
    planes = as_planes(noise(3))
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0])
    factors = torch.stack([neutral, torch.tensor([1.3, 0.7, 1.2, 0.1]), neutral])
    orders = torch.tensor([[3, 0, 1, 2], [0, 1, 3, 2], [1, 2, 0, 3]])

    jittered = colour.jitter(planes, factors, orders)

    assert torch.equal(jittered[:, 0], planes[:, 0])
    assert torch.equal(jittered[:, 2], planes[:, 2])
    assert not torch.equal(jittered[:, 1], planes[:, 1])


def test_only_the_chosen_images_lose_their_colours():
    images = noise(4)
    chosen = torch.tensor([True, False, True, False])

    gray = of_planes(colour.grayscale(as_planes(images), chosen))

    expected = tv.rgb_to_grayscale(images, num_output_channels=3)
    torch.testing.assert_close(gray[chosen], expected[chosen], **TOLERANCE)
    assert torch.equal(gray[~chosen], images[~chosen])


def test_the_planes_given_are_left_as_they_were():
    planes = as_planes(noise(2))
    before = planes.clone()
    factors = torch.tensor([[1.3, 0.7, 1.2, 0.1], [0.6, 1.4, 0.8, -0.1]])

    colour.jitter(planes, factors, torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]]))
    colour.grayscale(planes, torch.tensor([True, True]))

    assert torch.equal(planes, before)


def test_float_operations_are_within_a_few_grey_levels_of_torchvisions_on_bytes():
    images = (noise(24, side=16) * 255).round().to(torch.uint8)
    orders = torch.tensor(list(itertools.permutations(range(4))))
    generator = torch.Generator().manual_seed(6)
    factors = torch.rand(24, 4, generator=generator) * 0.8 + 0.6
    factors[:, 3] = torch.rand(24, generator=generator) * 0.2 - 0.1

    jittered = colour.jitter(as_planes(images / 255), factors, orders)

    for image, result, of_image, order in zip(
        images, of_planes(jittered), factors.tolist(), orders.tolist(), strict=True
    ):
        expected = torchvision_jitter(image, of_image, order).float()
        # Bytes are cut to whole levels after each of the four steps.
        assert (result * 255 - expected).abs().mean() < 4


def test_on_an_accelerator_no_operation_is_left_out():
    # The meta device stands in for an accelerator: looking at its values raises.
    active = torch.zeros(3, dtype=torch.bool, device="meta")

    assert not colour.nothing_to_do(active)
    assert colour.nothing_to_do(torch.zeros(3, dtype=torch.bool))
    assert not colour.nothing_to_do(torch.tensor([False, True]))
