"""The blur against torchvision's, a float64 sum and Pillow's, image by image."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms.v2 import functional as tv

from fastssd.augment.blur import blur, reflected_taps

CPU = torch.device("cpu")
TOLERANCE = {"atol": 1e-5, "rtol": 0}


def noise(batch, side, seed=0):
    """(3, B, S, S) planes."""
    return torch.rand(3, batch, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("side", "kernel_size"), [(224, 23), (64, 7), (32, 3), (9, 17), (7, 1)])
def test_a_blur_is_torchvisions(side, kernel_size):
    planes = noise(4, side)
    sigmas = torch.tensor([0.1, 0.55, 1.3, 2.0])

    blurred = blur(planes, sigmas, reflected_taps(side, kernel_size, device=CPU))

    for row, sigma in enumerate(sigmas.tolist()):
        expected = tv.gaussian_blur(planes[:, row], [kernel_size, kernel_size], [sigma, sigma])
        torch.testing.assert_close(blurred[:, row], expected, **TOLERANCE)


def test_a_blur_is_the_sum_that_defines_it():
    side, radius, sigma = 6, 2, 0.9
    image = noise(1, side)[:, 0].double().numpy()
    weights = [math.exp(-(n**2) / (2 * sigma**2)) for n in range(-radius, radius + 1)]
    reflected = [abs(n) if n < side else 2 * (side - 1) - n for n in range(-radius, side + radius)]
    expected = np.zeros_like(image)
    for y in range(side):
        for x in range(side):
            for dy, row_weight in enumerate(weights):
                for dx, column_weight in enumerate(weights):
                    pixel = image[:, reflected[y + dy], reflected[x + dx]]
                    expected[:, y, x] += row_weight * column_weight * pixel
    expected /= sum(weights) ** 2

    blurred = blur(noise(1, side), torch.tensor([sigma]), reflected_taps(side, 5, device=CPU))

    np.testing.assert_allclose(blurred[:, 0].numpy(), expected, atol=1e-6)


def test_an_image_of_width_zero_is_left_as_it_was_beside_others_that_blur():
    planes = noise(3, 16)

    blurred = blur(planes, torch.tensor([0.0, 1.5, 0.0]), reflected_taps(16, 5, device=CPU))

    assert torch.equal(blurred[:, 0], planes[:, 0])
    assert torch.equal(blurred[:, 2], planes[:, 2])
    assert not torch.equal(blurred[:, 1], planes[:, 1])


def test_where_nothing_blurs_the_planes_come_back():
    planes = noise(2, 16)

    assert blur(planes, torch.zeros(2), reflected_taps(16, 5, device=CPU)) is planes


def test_a_flat_image_stays_flat_to_its_edges():
    planes = torch.full((3, 1, 12, 12), 0.7)

    blurred = blur(planes, torch.tensor([2.0]), reflected_taps(12, 9, device=CPU))

    torch.testing.assert_close(blurred, planes, **TOLERANCE)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_a_blur_is_near_the_one_of_pillow_that_moco_v2_uses(sigma):
    bytes_hwc = np.random.default_rng(7).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    by_pillow = np.asarray(Image.fromarray(bytes_hwc).filter(ImageFilter.GaussianBlur(sigma)))
    planes = torch.from_numpy(bytes_hwc).permute(2, 0, 1)[:, None] / 255

    blurred = blur(planes, torch.tensor([sigma]), reflected_taps(64, 23, device=CPU))

    inner = (slice(None), slice(8, -8), slice(8, -8))  # Pillow repeats edges, we reflect
    ours = blurred[:, 0][inner].numpy() * 255
    theirs = by_pillow.transpose(2, 0, 1)[inner]
    # White noise, the worst case, and three box filters instead of a Gaussian.
    assert np.abs(ours - theirs).mean() < 4
