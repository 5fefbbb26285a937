"""Asking a frozen network about draws of the training images, outside of any training."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from fastssd.data.draws import Draws
from fastssd.runtime.context import Context, Stream
from fastssd.training.batches import finished

Answer = TypeVar("Answer")


@torch.no_grad()
def answers(
    network: nn.Module,
    ask: Callable[[Tensor], Answer],
    batches: Iterator[Draws],
    *,
    stream: Stream,
    context: Context,
) -> Iterator[tuple[Draws, Answer]]:
    """Yield each batch of draws with what the network says of its images.

    Args:
        network: On its device; left in eval mode.
        ask: From (B, 3, S, S) images to the answer, called in the run's precision.
        batches: This process's draws.
        stream: Of their views.
        context: The run.
    """
    augmentation = context.augmentation(stream)
    fetch = context.images(context.train, augmentation)
    network.eval()
    for draws, host_batch in context.workers.batches(batches, context.workers.source(fetch)):
        images = finished(draws, host_batch, augmentation).query
        with context.autocast():
            answer = ask(images)
        yield draws, answer


def batch_share(context: Context) -> int:
    """Return the images that this process is asked about at a time."""
    return max(1, context.config.evaluation.batch_size // context.workers.num_processes)
