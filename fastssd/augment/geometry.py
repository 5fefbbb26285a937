"""Flips and quarter turns of a batch, each image by its own parameter.

All of it selects between whole batches, so that no device is waited for.
"""

import torch
from torch import Tensor


def flip_chosen(images: Tensor, chosen: Tensor) -> Tensor:
    """Flip some images left to right.

    Args:
        images: (B, H, W, channels) of any dtype.
        chosen: (B,) bool.

    Returns:
        A tensor like `images`.
    """
    return torch.where(chosen[:, None, None, None], images.flip(2), images)


def turn_quarters(images: Tensor, turns: Tensor) -> Tensor:
    """Turn each image by quarter turns counter-clockwise, as torch.rot90 and np.rot90 do.

    Args:
        images: (B, channels, S, S) of any dtype.
        turns: (B,) int64 in 0 to 3.

    Returns:
        A tensor like `images`, in its memory format.

    Raises:
        ValueError: If the images are not square.
    """
    if images.shape[2] != images.shape[3]:
        raise ValueError(f"only square images turn in a batch, not {tuple(images.shape)}")
    turns = turns[:, None, None, None]
    half = torch.where(turns < 2, images, images.flip(2, 3))
    # The unturned images come first because the result takes the first tensor's memory format.
    return torch.where(turns % 2 == 0, half, torch.rot90(half, 1, (2, 3)))
