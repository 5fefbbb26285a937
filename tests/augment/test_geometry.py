"""Flips and turns against torch, numpy and torchvision, image by image."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from fastssd.augment.geometry import flip_chosen, turn_quarters

TURNS = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0, 1])


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_each_image_turns_as_torch_and_numpy_turn_it(side):
    batch = images(len(TURNS), 3, side, side).contiguous(memory_format=torch.channels_last)

    turned = turn_quarters(batch, TURNS)

    for image, result, turns in zip(batch, turned, TURNS.tolist(), strict=True):
        assert torch.equal(result, torch.rot90(image, turns, (1, 2)))
        by_numpy = np.rot90(image.permute(1, 2, 0).numpy(), turns)
        np.testing.assert_array_equal(result.permute(1, 2, 0).numpy(), by_numpy)


def test_turned_images_are_channels_last_and_the_originals_untouched():
    batch = images(len(TURNS), 3, 8, 8).contiguous(memory_format=torch.channels_last)
    before = batch.clone()

    turned = turn_quarters(batch, TURNS)

    assert turned.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, before)


def test_images_that_are_not_square_do_not_turn():
    with pytest.raises(ValueError, match="square"):
        turn_quarters(images(1, 3, 4, 5), torch.tensor([1]))


def test_only_the_chosen_images_are_mirrored_as_torchvision_mirrors():
    batch = (images(4, 5, 7, 3) * 255).to(torch.uint8)
    chosen = torch.tensor([True, False, True, False])

    flipped = flip_chosen(batch, chosen)

    for image, result, mirrored in zip(batch, flipped, chosen.tolist(), strict=True):
        planes = image.permute(2, 0, 1)
        expected = tv.horizontal_flip(planes) if mirrored else planes
        assert torch.equal(result.permute(2, 0, 1), expected)
