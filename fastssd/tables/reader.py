"""Asking a network about draws of a split's images, outside of any training."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from fastssd.augment.augmentation import Augmentation
from fastssd.core.processes import Processes
from fastssd.data.dataset import Split
from fastssd.data.draws import Draws
from fastssd.data.images import LABELS, PIXELS, parameters_of
from fastssd.data.loader import Fetch
from fastssd.data.workers import Workers

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A split's images through one augmentation, batch by batch on the device.

    Attributes:
        split: The images.
        augmentation: Finishes them.
        fetch: Makes their batches in the host's memory.
        workers: Rank and threads.
        processes: What all of them do together.
        batch_size: Images at a time over all processes.
    """

    split: Split
    augmentation: Augmentation
    fetch: Fetch
    workers: Workers
    processes: Processes
    batch_size: int

    @property
    def batch_share(self) -> int:
        """Images at a time of this process."""
        return max(1, self.batch_size // self.workers.num_processes)

    def images(self, batches: Iterator[Draws]) -> Iterator[tuple[Draws, Tensor, Tensor]]:
        """Yield each batch of draws with its (B, 3, S, S) images and (B,) labels.

        Args:
            batches: This process's draws.
        """
        source = self.workers.source(self.fetch)
        for draws, batch in self.workers.batches(batches, source):
            views = self.augmentation.apply(batch[PIXELS], parameters_of(batch))
            yield draws, views.query, batch[LABELS]

    @torch.no_grad()
    def answers(
        self, network: nn.Module, ask: Callable[[Tensor], Answer], batches: Iterator[Draws]
    ) -> Iterator[tuple[Draws, Answer]]:
        """Yield each batch of draws with what a network says of its images.

        Args:
            network: On its device; left in eval mode.
            ask: From (B, 3, S, S) images to the answer, called in the run's precision.
            batches: This process's draws.
        """
        network.eval()
        for draws, images, _ in self.images(batches):
            with self.processes.autocast():
                answer = ask(images)
            yield draws, answer
