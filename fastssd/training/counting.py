"""Counting correct predictions on a split, exactly, whatever the number of processes."""

from collections.abc import Iterator

import numpy as np
import torch

from fastssd.data.draws import Draws
from fastssd.data.sharding import contiguous_share
from fastssd.data.workers import Workers
from fastssd.evaluation.metrics import ClassCounter
from fastssd.methods.method import Method
from fastssd.tables.reader import Reader


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


def every_image(num_images: int) -> Draws:
    """Return a draw of every image of a split, in order."""
    samples = np.arange(num_images, dtype=np.int64)
    return Draws(samples, np.zeros_like(samples))


@torch.no_grad()
def count_correct(method: Method, reader: Reader, num_classes: int) -> dict[str, ClassCounter]:
    """Return correct and seen images per class, by head, summed over all processes.

    Args:
        method: On its device; left in eval mode.
        reader: Of the split's images under the test augmentation.
        num_classes: C.
    """
    method.eval()
    workers, processes = reader.workers, reader.processes
    counters = {head: ClassCounter(num_classes, device=workers.device) for head in method.heads}
    draws = every_image(len(reader.split))
    for _, images, labels in reader.images(in_order(draws, reader.batch_size, workers)):
        with processes.autocast():
            logits_by_head = method.predict(images)
        for head, logits in logits_by_head.items():
            counters[head].add(logits, labels)
        if processes.interrupted():
            break
    for counter in counters.values():
        counter.correct = processes.reduce(counter.correct)
        counter.total = processes.reduce(counter.total)
    return counters
