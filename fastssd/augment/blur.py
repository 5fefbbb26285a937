"""Gaussian blur of a batch, each image by its own width, as two batched matrix products.

A blur along one axis, reflections at the edge included, is a product with an S x S matrix. That
needs neither padding nor a convolution with a group per image, which accelerators are slow at.
"""

import torch
from torch import Tensor

from fastssd.augment.colour import nothing_to_do

_LEAST_SIGMA = 1e-3  # a kernel this narrow is exactly 1 at the centre, and 0 / 0 is avoided


def reflected_taps(side: int, kernel_size: int, *, device: torch.device) -> Tensor:
    """Return which pixels each tap of a symmetric kernel touches, reflecting at the edges.

    Args:
        side: Pixels along the axis.
        kernel_size: Width of the kernel, odd, less than twice the side.
        device: Where the tensor shall be.

    Returns:
        (kernel_size // 2 + 1, side, side) float32: `taps[n, i, j]` is how many of the pixels i - n
        and i + n fall on pixel j.
    """
    pixels = torch.arange(side, device=device)
    taps = torch.zeros(kernel_size // 2 + 1, side, side, device=device)
    for distance in range(kernel_size // 2 + 1):
        for position in {distance, -distance}:
            touched = (side - 1) - ((side - 1) - (pixels + position).abs()).abs()
            taps[distance] += touched[:, None] == pixels
    return taps


def blur(planes: Tensor, sigmas: Tensor, taps: Tensor) -> Tensor:
    """Blur each image with a Gaussian of its own width.

    Args:
        planes: (3, B, S, S) float32.
        sigmas: (B,) standard deviations in pixels; 0 leaves an image as it was.
        taps: From `reflected_taps`.

    Returns:
        Planes, not necessarily contiguous. Under TF32 (`torch.set_float32_matmul_precision`) they
        are off by about a tenth of a grey level of 255.
    """
    blurred = sigmas > 0
    if nothing_to_do(blurred):
        return planes
    _, batch, side, _ = planes.shape
    distances = torch.arange(len(taps), device=planes.device)
    weights = torch.exp(-0.5 * (distances / sigmas.clamp_min(_LEAST_SIGMA)[:, None]).square())
    weights = weights / (2 * weights.sum(dim=1, keepdim=True) - weights[:, :1])
    matrices = (weights @ taps.flatten(1)).view(batch, side, side)
    # (B, row, channel, column): both products see each image as one matrix.
    rows = planes.permute(1, 2, 0, 3).contiguous()
    across = rows.view(batch, side * 3, side) @ matrices.transpose(1, 2)
    both = matrices @ across.view(batch, side, 3 * side)
    result = both.view(batch, side, 3, side).permute(2, 0, 1, 3)
    # A product with the identity is exact, but under TF32 it rounds.
    return torch.where(blurred[:, None, None], result, planes)
