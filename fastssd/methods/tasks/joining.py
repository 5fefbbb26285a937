"""Two batches as one, without a copy where they lie one behind the other in memory."""

import torch
from torch import Tensor


def joined(first: Tensor, second: Tensor) -> Tensor:
    """Return two batches of images as one, the second behind the first.

    An augmentation that makes both, the upright and the turned ones, puts them into one piece of
    memory: then this is a view of it.

    Args:
        first: (B, ...), dense in memory, in any format.
        second: Of the same shape.

    Returns:
        (2B, ...) in the format of `first`.
    """
    behind = (
        first.shape == second.shape
        and first.stride() == second.stride()
        and first.dtype == second.dtype
        and first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
        and second.storage_offset() == first.storage_offset() + len(first) * first.stride(0)
    )
    if not behind:
        return torch.cat([first, second])
    return first.as_strided((2 * len(first), *first.shape[1:]), first.stride())
