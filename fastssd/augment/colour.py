"""Colour jitter and grayscale of a batch, each image by its own factors and in its own order.

Images are planes: (3, B, S, S) float32 in [0, 1], so that every operation runs over contiguous
memory. Results are those of torchvision.transforms.v2.functional on float images (its uint8
variants round after each step; these do not).
"""

import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
"""Columns of the factors, and the numbers that an order consists of."""

_LUMA = (0.2989, 0.587, 0.114)  # as torchvision rounds ITU-R BT.601
_TINY = 1e-12


def jitter(planes: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Apply brightness, contrast, saturation and hue, each image in its own order.

    Args:
        planes: (3, B, S, S).
        factors: (B, 3 or 4) float32: brightness, contrast, saturation, hue shift.
        order: (B, 3 or 4) int64, a permutation of the columns in each row.

    Returns:
        Planes. Neutral factors (1, 1, 1, 0) leave an image as it was, bit for bit.
    """
    num_steps = order.shape[1]
    if num_steps == HUE:
        for step in range(num_steps):
            operations = order[:, step]
            planes = blend(planes, _picked(factors, operations), operations)
        return planes
    # Hue is dear and the blends are cheap, so hue runs once for all images, wherever it stands in
    # their orders; the blends run before it and after it, neutral where it is not their turn.
    hue_step = (order == HUE).int().argmax(dim=1)
    for step in range(num_steps - 1):
        operations = order[:, step]
        turn = step < hue_step
        planes = blend(planes, torch.where(turn, _picked(factors, operations), 1.0), operations)
    planes = shift_hue(planes, factors[:, HUE])
    for step in range(1, num_steps):
        operations = order[:, step]
        turn = step > hue_step
        planes = blend(planes, torch.where(turn, _picked(factors, operations), 1.0), operations)
    return planes


def grayscale(planes: Tensor, chosen: Tensor) -> Tensor:
    """Take the colours from some images: (3, B, S, S) planes and (B,) bool."""
    return blend(
        planes, 1.0 - chosen.float(), torch.full_like(chosen, SATURATION, dtype=torch.int64)
    )


def blend(planes: Tensor, factors: Tensor, operations: Tensor) -> Tensor:
    """Blend each image with black, its mean grey or its own grey, then clamp to [0, 1].

    Brightness, contrast and saturation are one formula, `base + factor * (image - base)`, with
    these three bases; an image whose factor is 1 is left as it was, bit for bit.

    Args:
        planes: (3, B, S, S).
        factors: (B,) float32, non-negative.
        operations: (B,) int64: BRIGHTNESS, CONTRAST or SATURATION.
    """
    if nothing_to_do(factors != 1):
        return planes
    base = luma(planes)
    # Rows first: one mean over all would be summed in another order when B is 1.
    mean = base.mean(dim=2).mean(dim=1) * (operations == CONTRAST)
    base = base.mul_((operations == SATURATION)[:, None, None]).add_(mean[:, None, None])
    return torch.lerp(base, planes, factors[:, None, None]).clamp_(0, 1)


def luma(planes: Tensor) -> Tensor:
    """Return the grey (B, S, S) of (3, B, S, S) planes."""
    red, green, blue = planes.unbind(0)
    grey: Tensor = red * _LUMA[0]
    return grey.add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def shift_hue(planes: Tensor, shifts: Tensor) -> Tensor:
    """Turn the colours of each image around the HSV colour circle.

    Args:
        planes: (3, B, S, S).
        shifts: (B,) float32 in turns, within [-0.5, 0.5]; 0 leaves an image as it was.
    """
    if nothing_to_do(shifts != 0):
        return planes
    red, green, blue = planes.unbind(0)
    high = torch.maximum(torch.maximum(red, green), blue)
    spread = high - torch.minimum(torch.minimum(red, green), blue)
    inverse = spread.clamp_min(_TINY).reciprocal_()
    # In sixths of the circle: 0 is red, 2 green, 4 blue.
    hue = torch.where(
        high == red,
        (green - blue) * inverse,
        torch.where(high == green, (blue - red) * inverse + 2, (red - green) * inverse + 4),
    )
    hue = hue.add_(6 * shifts[:, None, None])
    hue = hue.sub_((hue / 6).floor_(), alpha=6)
    shifted = torch.empty_like(planes)
    # A channel falls short of the largest by the spread times its distance from its own third.
    for channel, short in enumerate(
        (2 - (hue - 3).abs_(), (hue - 2).abs_() - 1, (hue - 4).abs_() - 1)
    ):
        torch.addcmul(high, spread, short.clamp_(0, 1), value=-1, out=shifted[channel])
    return torch.where((shifts != 0)[:, None, None], shifted, planes)


def nothing_to_do(active: Tensor) -> bool:
    """Say whether an operation can be left out because it is neutral for the whole batch.

    Only the CPU is asked: on an accelerator the answer would mean waiting for it.
    """
    return active.device.type == "cpu" and not bool(active.any())


def _picked(factors: Tensor, operations: Tensor) -> Tensor:
    """Return (B,) the factor of each image's operation."""
    return factors.gather(1, operations[:, None])[:, 0]
