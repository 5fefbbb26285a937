"""What processes exchange in the middle of a stage's step; does nothing with one process."""

import torch
import torch.distributed as dist
from torch import Tensor, nn


def num_processes() -> int:
    """Return the number of processes of the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gathered(values: Tensor) -> Tensor:
    """Return every process's values in one tensor, rank after rank, without gradient.

    Args:
        values: (B, ...), of one shape on all processes.

    Returns:
        (processes * B, ...), the same on all processes.
    """
    if num_processes() == 1:
        return values.detach()
    # Before `empty_like`: parts that keep channels-last strides would be filled in another order.
    values = values.detach().contiguous()
    parts = [torch.empty_like(values) for _ in range(num_processes())]
    dist.all_gather(parts, values)
    return torch.cat(parts)


def own_share(values: Tensor) -> Tensor:
    """Return this process's part of values that all processes hold: the inverse of `gathered`."""
    return values.chunk(num_processes())[dist.get_rank()] if num_processes() > 1 else values


def shared_permutation(length: int, state: Tensor) -> Tensor:
    """Return a permutation that all processes agree on and that changes with `state`.

    Args:
        length: Of the permutation.
        state: Integer scalar, the same on all processes.

    Returns:
        (length,) int64 on the device of `state`, without waiting for it.
    """
    # A hash on the device; a generator would need the state on the host.
    numbers = torch.arange(length, device=state.device) + state * 0x9E3779B1
    for shift, factor in ((16, 0x45D9F3B), (16, 0x45D9F3B)):
        numbers = ((numbers ^ (numbers >> shift)) * factor) & 0xFFFFFFFF
    return (numbers ^ (numbers >> 16)).argsort(stable=True)


def average_batchnorm(module: nn.Module) -> None:
    """Set BatchNorm's running statistics to their mean over the processes."""
    if num_processes() == 1:
        return
    statistics = [
        statistic
        for layer in module.modules()
        for name in ("running_mean", "running_var")
        if isinstance(statistic := getattr(layer, name, None), Tensor)
    ]
    if not statistics:
        return
    mean = torch.cat(statistics)
    dist.all_reduce(mean)
    mean /= num_processes()
    first = 0
    for statistic in statistics:
        statistic.copy_(mean[first : first + len(statistic)])
        first += len(statistic)
