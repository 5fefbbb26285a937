"""Cutting an epoch's global sequence into batches, and a batch into the ranks' shares.

The same images meet in the same global batch whatever the number of processes; resuming is an
offset. What is cut are rows: the images of a row of several columns stay together, and batch sizes
count rows.
"""

from collections.abc import Iterator

from fastssd.data.draws import Draws
from fastssd.errors import ConfigError


def steps_per_epoch(num_draws: int, batch_size: int) -> int:
    """Return the optimizer steps of an epoch; the draws beyond the last full batch are left out."""
    return num_draws // batch_size


def check_batch_size(
    section: str, *, batch_size: int, accumulate: int, num_processes: int, num_draws: int
) -> None:
    """Raise ConfigError if batches can't be cut evenly or an epoch would have no step.

    Args:
        section: The config's section, for the message.
        batch_size: Images per optimizer step over all processes.
        accumulate: Micro-batches per step.
        num_processes: Ranks.
        num_draws: Draws of an epoch.
    """
    parts = accumulate * num_processes
    if batch_size % parts:
        raise ConfigError(
            f"{section}.batch_size={batch_size} can't be cut into {parts} equal parts "
            f"({accumulate} micro-batches x {num_processes} processes)"
        )
    if num_draws < batch_size:
        raise ConfigError(
            f"{section}.batch_size={batch_size} is more than the {num_draws} training images: "
            "an epoch would have no step"
        )


def micro_batches(
    draws: Draws,
    steps: range,
    *,
    batch_size: int,
    accumulate: int,
    rank: int,
    num_processes: int,
) -> Iterator[Draws]:
    """Yield this rank's share of every micro-batch of some steps, `accumulate` of them a step.

    Args:
        draws: The epoch's global sequence.
        steps: Of the epoch, 0-based.
        batch_size: Images per optimizer step over all processes.
        accumulate: Micro-batches per step.
        rank: This process.
        num_processes: Ranks.
    """
    size = batch_size // accumulate
    share = size // num_processes
    for step in steps:
        for micro in range(accumulate):
            start = step * batch_size + micro * size + rank * share
            yield draws[start : start + share]


def contiguous_share(num_items: int, *, rank: int, num_processes: int) -> slice:
    """Return the rank's part of `num_items`, each item in exactly one part, none padded."""
    return slice(rank * num_items // num_processes, (rank + 1) * num_items // num_processes)
