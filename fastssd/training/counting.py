"""Counting a stage's correct predictions on a split, exactly, whatever the number of processes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from fastssd.augment.augmentation import Augmentation
from fastssd.data.draws import Draws
from fastssd.data.loader import Fetch
from fastssd.data.sharding import contiguous_share
from fastssd.evaluation.metrics import ClassCounter
from fastssd.methods.method import Stage
from fastssd.training.batches import Workers, finished


def in_order(draws: Draws, batch_size: int, workers: Workers) -> Iterator[Draws]:
    """Yield this rank's part of the draws in batches; each draw is in exactly one, none padded.

    Args:
        draws: Of all processes.
        batch_size: Draws at a time over all processes.
        workers: Rank and number of processes.
    """
    mine = draws[
        contiguous_share(len(draws), rank=workers.rank, num_processes=workers.num_processes)
    ]
    size = max(1, batch_size // workers.num_processes)
    for start in range(0, len(mine), size):
        yield mine[start : start + size]


@torch.no_grad()
def count_correct(
    stage: Stage,
    *,
    num_images: int,
    num_classes: int,
    fetch: Fetch,
    augmentation: Augmentation,
    workers: Workers,
    batch_size: int,
    autocast: Callable[[], AbstractContextManager[object]],
    interrupted: Callable[[], bool],
    reduce: Callable[[Tensor], Tensor],
) -> dict[str, ClassCounter]:
    """Return correct and seen images per class, by head, summed over all processes.

    Args:
        stage: On its device; left in eval mode.
        num_images: Of the split.
        num_classes: C.
        fetch: Makes batches of the split with its test view.
        augmentation: Finishes them.
        workers: Rank and threads.
        batch_size: Images at a time over all processes.
        autocast: Enters the run's precision.
        interrupted: Whether the counts are no longer wanted, so that the rest may be left out.
        reduce: Sums a tensor over processes.
    """
    stage.eval()
    samples = np.arange(num_images, dtype=np.int64)
    draws = Draws(samples, np.zeros_like(samples))
    counters = {head: ClassCounter(num_classes, device=workers.device) for head in stage.heads}
    for batch_draws, host_batch in workers.batches(
        in_order(draws, batch_size, workers), workers.source(fetch)
    ):
        batch = finished(batch_draws, host_batch, augmentation)
        with autocast():
            logits_by_head = stage.predict(batch.query)
        for head, logits in logits_by_head.items():
            counters[head].add(logits, batch.labels)
        if interrupted():
            break
    for counter in counters.values():
        counter.correct, counter.total = reduce(counter.correct), reduce(counter.total)
    return counters
