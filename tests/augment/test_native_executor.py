"""The native kernels against torchvision, numpy and PyTorch's own operations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from fastssd.augment.boxes import WholeImage
from fastssd.augment.executor import Task
from fastssd.augment.native_executor import NativeExecutor
from fastssd.augment.recipe import GaussianBlur, Recipe
from fastssd.augment.torch_executor import TorchExecutor

pytestmark = pytest.mark.kernels

CPU = torch.device("cpu")
IDENTITY = {"scale": (1.0, 1.0, 1.0), "shift": (0.0, 0.0, 0.0)}
# Of the pixels' range: both round in float32, in different orders, after up to six operations.
TOLERANCE = {"atol": 2e-6, "rtol": 0}
TORCHVISION = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
SIDES = [1, 2, 7, 16, 33, 50]


def task(side, kernel_size=1, **statistics):
    blur = GaussianBlur(sigma=(0.1, 2.0), kernel_size=kernel_size) if kernel_size > 1 else None
    recipe = Recipe(name="test", size=side, crop=WholeImage(), blur=blur)
    return Task(recipe, **(IDENTITY | statistics), device=CPU)


def noise(batch, side, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, side, side, 3), generator=generator)
    images[1::3] = 100 + images[1::3] // 16  # dull, so that channels come near each other
    return images.to(torch.uint8)


def as_floats(image):
    """(S, S, 3) bytes -> (3, S, S) floats, as torchvision's references take them."""
    return image.permute(2, 0, 1) / 255


def finished(images, *, kernel_size=1, turns=None, **parameters):
    executor = NativeExecutor(task(images.shape[1], kernel_size))
    return executor.finish(images, parameters, turns)


def one_operation(operation, factor, batch):
    """Jitter parameters under which only one operation changes anything."""
    factors = torch.tensor([[1.0, 1.0, 1.0, 0.0]]).repeat(batch, 1)
    factors[:, operation] = factor
    return {"jitter": factors, "order": torch.arange(4).repeat(batch, 1)}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("operation", [BRIGHTNESS, CONTRAST, SATURATION])
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4, 9.0])
def test_a_blend_is_torchvisions(side, operation, factor):
    images = noise(4, side)

    result, _ = finished(images, **one_operation(operation, factor, 4))

    for image, found in zip(images, result, strict=True):
        expected = TORCHVISION[operation](as_floats(image), factor)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shift", [-0.5, -0.33, -1 / 6, -0.1, 0.05, 0.1, 1 / 3, 0.5])
def test_a_hue_shift_is_torchvisions(shift):
    images = noise(6, 33)
    corners = torch.cartesian_prod(*[torch.tensor([0, 127, 255], dtype=torch.uint8)] * 3)
    images[5, :27, 0] = corners  # black, white, greys, pure colours, ties of channels

    result, _ = finished(images, **one_operation(HUE, shift, 6))

    for image, found in zip(images, result, strict=True):
        expected = tv.adjust_hue(as_floats(image), shift)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", SIDES)
def test_grayscale_is_torchvisions_for_the_chosen(side):
    images, chosen = noise(4, side), torch.tensor([True, False, True, False])

    result, _ = finished(images, grayscale=chosen)

    for image, found, gray in zip(images, result, chosen, strict=True):
        floats = as_floats(image)
        expected = tv.rgb_to_grayscale(floats, num_output_channels=3) if gray else floats
        torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("side", "kernel_size"), [(2, 3), (7, 3), (7, 13), (33, 23), (50, 5), (20, 39)]
)
def test_a_blur_is_torchvisions_however_narrow_or_wide(side, kernel_size):
    sigmas = torch.tensor([0.0, 1e-4, 0.1, 0.55, 1.3, 2.0, 5.0, 100.0])
    images = noise(len(sigmas), side)

    result, _ = finished(images, kernel_size=kernel_size, blur=sigmas)

    for image, found, sigma in zip(images, result, sigmas.tolist(), strict=True):
        expected = as_floats(image)
        if sigma > 0.01:  # torchvision divides 0 by 0 below
            expected = tv.gaussian_blur(expected.double(), [kernel_size] * 2, [sigma] * 2)
        torch.testing.assert_close(found, expected.float(), **TOLERANCE)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("coloured", [False, True], ids=["plain", "coloured"])
def test_flips_and_turns_are_numpys(side, coloured):
    images = noise(8, side)
    flip = torch.tensor([False, True] * 4)
    turns = torch.arange(8) // 2
    gray = torch.full((8,), coloured)

    upright, turned = finished(images, flip=flip, grayscale=gray, turns=turns)

    straight, _ = finished(images, grayscale=gray)
    for row in range(8):
        expected = straight[row].permute(1, 2, 0).numpy()
        expected = expected[:, ::-1] if flip[row] else expected
        np.testing.assert_array_equal(upright[row].permute(1, 2, 0).numpy(), expected)
        expected = np.rot90(expected, int(turns[row]))
        np.testing.assert_array_equal(turned[row].permute(1, 2, 0).numpy(), expected)


def test_values_are_scaled_and_shifted_channel_by_channel():
    images, scale, shift = noise(3, 9), (4.0, 0.5, -2.0), (-1.0, 0.25, 3.0)
    executor = NativeExecutor(task(9, scale=scale, shift=shift))

    result, _ = executor.finish(images, {"grayscale": torch.tensor([True, False, False])}, None)

    for image, found, gray in zip(images, result, [True, False, False], strict=True):
        expected = as_floats(image)
        expected = tv.rgb_to_grayscale(expected, 3) if gray else expected
        expected = expected * torch.tensor(scale)[:, None, None]
        expected = expected + torch.tensor(shift)[:, None, None]
        torch.testing.assert_close(found, expected, atol=8e-6, rtol=0)


@st.composite
def jobs(draw):
    """A size, a blur kernel and the parameters of a batch, any of them missing."""
    side, batch = draw(st.integers(1, 40)), draw(st.integers(1, 5))
    num_steps = draw(st.sampled_from([0, 3, 4]))
    many = lambda values: draw(st.lists(values, min_size=batch, max_size=batch))  # noqa: E731
    parameters = {}
    if num_steps:
        blends = st.floats(0, 2, width=32)
        factors = st.tuples(blends, blends, blends, st.floats(-0.5, 0.5, width=32))
        orders = st.permutations(range(num_steps))
        parameters["jitter"] = torch.tensor(many(factors))[:, :num_steps]
        parameters["order"] = torch.tensor(many(orders))
    if draw(st.booleans()):
        parameters["flip"] = torch.tensor(many(st.booleans()))
    if draw(st.booleans()):
        parameters["grayscale"] = torch.tensor(many(st.booleans()))
    kernel_size = 1
    if side > 1 and draw(st.booleans()):
        kernel_size = 2 * draw(st.integers(1, side - 1)) + 1
        widths = st.one_of(st.just(0.0), st.floats(0.015625, 8, width=32))
        parameters["blur"] = torch.tensor(many(widths))
    turns = torch.tensor(many(st.integers(0, 3)))
    return noise(batch, side, seed=draw(st.integers(0, 99))), kernel_size, parameters, turns


@settings(max_examples=80, deadline=None)
@given(jobs())
def test_any_recipe_gives_what_pytorchs_operations_give(job):
    images, kernel_size, parameters, turns = job
    side = images.shape[1]
    recipe = task(side, kernel_size).recipe
    if "jitter" in parameters or "grayscale" in parameters:
        recipe = Recipe(name="test", size=side, crop=WholeImage(), grayscale=0.5, blur=recipe.blur)
    by_torch = TorchExecutor(Task(recipe, **IDENTITY, device=CPU))

    results = finished(images, kernel_size=kernel_size, turns=turns, **parameters)

    for found, expected in zip(results, by_torch.finish(images, parameters, turns), strict=True):
        # Where two channels tie for the largest, a rounding before a hue shift may decide which.
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def every_operation(batch, side):
    generator = torch.Generator().manual_seed(1)
    factors = torch.rand(batch, 4, generator=generator) * 0.8 + 0.6
    factors[:, HUE] -= 1
    factors[::5] = torch.tensor([1.0, 1.0, 1.0, 0.0])
    return {
        "flip": torch.rand(batch, generator=generator) < 0.5,
        "jitter": factors,
        "order": torch.rand(batch, 4, generator=generator).argsort(1),
        "grayscale": torch.rand(batch, generator=generator) < 0.2,
        "blur": torch.rand(batch, generator=generator) * (torch.arange(batch) % 2) * 2,
    }


@pytest.mark.parametrize("side", [7, 32, 96])
@pytest.mark.parametrize("rows", [slice(0, 1), slice(5, 18), [31, 3, 17]])
def test_an_image_has_the_same_bits_in_any_batch(rows, side):
    images, parameters = noise(40, side), every_operation(40, side)
    turns = torch.arange(40) % 4

    together = finished(images, kernel_size=5, turns=turns, **parameters)
    of_rows = {name: values[rows] for name, values in parameters.items()}
    apart = finished(images[rows], kernel_size=5, turns=turns[rows], **of_rows)

    for one, other in zip(apart, together, strict=True):
        assert torch.equal(one, other[rows])


def test_an_image_has_the_same_bits_on_any_number_of_threads():
    # Of fewer pixels a thread the kernel takes fewer threads.
    images, parameters = noise(40, 96), every_operation(40, 96)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 40):
            torch.set_num_threads(count)
            results.append(finished(images, kernel_size=5, **parameters)[0])
    finally:
        torch.set_num_threads(threads)

    assert all(torch.equal(result, results[0]) for result in results)


def test_the_images_given_are_left_as_they_were_and_may_lie_anywhere():
    images, parameters = noise(12, 20), every_operation(12, 20)
    before = images.clone()
    expected, _ = finished(images, kernel_size=5, **parameters)

    scattered = images.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    spread = {name: torch.stack([values, values], 1)[:, 0] for name, values in parameters.items()}
    found, _ = finished(scattered, kernel_size=5, **spread)

    assert torch.equal(images, before)
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_an_order_of_unknown_operations_is_refused():
    order = torch.tensor([[0, 1, 3]])

    with pytest.raises(ValueError, match="no permutation"):
        finished(noise(1, 4), jitter=torch.ones(1, 3), order=order)


def test_parameters_of_another_batch_are_refused():
    with pytest.raises(ValueError, match="3 flip for 2 images"):
        finished(noise(2, 4), flip=torch.zeros(3, dtype=torch.bool))


def test_memory_of_results_is_used_again_but_never_while_one_is_kept():
    executor = NativeExecutor(task(8))
    images, parameters, turns = noise(3, 8), {}, torch.tensor([1, 2, 3])
    first, turned = executor.finish(images, parameters, turns)
    before = turned.clone()

    second, _ = executor.finish(images + 9, parameters, turns)
    assert second.data_ptr() != first.data_ptr()
    assert torch.equal(turned, before)  # though nothing but it refers to both halves' memory

    where = second.data_ptr()
    del second, _
    third, _ = executor.finish(images, parameters, turns)
    assert third.data_ptr() == where
    assert torch.equal(third, first)
