"""Flips and quarter turns of a batch, each image by its own parameter.

Which image gets what is only ever an index or a mask, so that no device is waited for.
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
        images: (B, channels, S, S) of any dtype; channels last in memory is fastest.
        turns: (B,) int64 in 0 to 3.

    Returns:
        A tensor like `images`, channels last in memory.

    Raises:
        ValueError: If the images are not square.
    """
    batch, channels, side, width = images.shape
    if side != width:
        raise ValueError(f"only square images turn in a batch, not {tuple(images.shape)}")
    # One copy, pixel by pixel: selecting between turned batches takes 5 times as long at 32 pixels.
    num_pixels = side * side
    grid = torch.arange(num_pixels, device=images.device).view(side, side)
    sources = torch.stack([torch.rot90(grid, quarters) for quarters in range(4)]).view(4, -1)
    first_pixels = torch.arange(batch, device=images.device) * num_pixels
    pixels = (sources[turns] + first_pixels[:, None]).flatten()
    turned = images.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, pixels)
    return turned.view(batch, side, side, channels).permute(0, 3, 1, 2)
