"""From a plan to a stage's batches on the device: this rank's share, prefetched, augmented."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fastssd.augment.augmentation import Augmentation
from fastssd.config import TrainingConfig
from fastssd.data.draws import Draws
from fastssd.data.images import CHECKSUMS, LABELS, PARAMETER, PIXELS
from fastssd.data.loader import Fetch, HostBatch, prefetched, to_device
from fastssd.data.plans import ClassIndex, Plan
from fastssd.data.sharding import micro_batches, steps_per_epoch
from fastssd.stages.batch import Batch
from fastssd.stages.table import Table

FROZEN_LOGITS = "frozen_logits"

Source = Callable[[Iterator[Draws]], Iterator[tuple[Draws, HostBatch]]]
"""Makes batches of draws in the host's memory, ahead and in order."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How a process prepares its batches.

    Attributes:
        rank: This process.
        num_processes: Ranks.
        threads: Batches in the making at a time.
        prefetch: Finished batches waiting.
        device: Where batches are wanted.
    """

    rank: int
    num_processes: int
    threads: int
    prefetch: int
    device: torch.device

    @property
    def pin_memory(self) -> bool:
        """Whether batches are page-locked, to be copied to the device without waiting."""
        return self.device.type == "cuda"

    def source(self, fetch: Fetch) -> Source:
        """Return what prepares batches by a function that fetches one, in threads."""
        return lambda draws: prefetched(
            draws,
            fetch,
            threads=self.threads,
            prefetch=self.prefetch,
            pin_memory=self.pin_memory,
        )

    def batches(self, draws: Iterator[Draws], source: Source) -> Iterator[tuple[Draws, HostBatch]]:
        """Yield each batch of draws with what the source made of it, on the device."""
        for batch_draws, batch in source(draws):
            yield batch_draws, to_device(batch, self.device)


@dataclass(frozen=True, kw_only=True)
class Feed:
    """A stage's batches, epoch by epoch.

    Attributes:
        plan: The draws.
        source: Makes batches in the host's memory.
        augmentation: Finishes its pixels on the device; None where there are none.
        training: Batch size and micro-batches.
        workers: Rank and threads.
    """

    plan: Plan
    source: Source
    augmentation: Augmentation | None
    training: TrainingConfig
    workers: Workers

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return steps_per_epoch(len(self.plan.index), self.training.batch_size)

    def batches(self, first_step: int, last_step: int) -> Generator[Batch, None, None]:
        """Yield this rank's micro-batches of some steps, `accumulate` of them a step.

        Prefetching goes on over the ends of epochs, so only the first batch is waited for.

        Args:
            first_step: 0-based, over all epochs.
            last_step: The first that is no longer wanted.
        """
        steps = range(first_step, last_step)
        for draws, batch in self.workers.batches(self._shares(steps), self.source):
            yield finished(draws, batch, self.augmentation)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield this rank's micro-batches of one epoch."""
        first_step = epoch * self.steps_per_epoch
        return self.batches(first_step, first_step + self.steps_per_epoch)

    def _shares(self, steps: range) -> Iterator[Draws]:
        """Yield the draws of this rank's micro-batches."""
        for epoch in range(steps.start // self.steps_per_epoch, self.plan.num_epochs):
            start = epoch * self.steps_per_epoch
            wanted = range(max(steps.start, start), min(steps.stop, start + self.steps_per_epoch))
            if not wanted:
                return
            yield from micro_batches(
                self.plan.epoch(epoch),
                range(wanted.start - start, wanted.stop - start),
                batch_size=self.training.batch_size,
                accumulate=self.training.accumulate,
                rank=self.workers.rank,
                num_processes=self.workers.num_processes,
            )


def finished(draws: Draws, batch: HostBatch, augmentation: Augmentation | None) -> Batch:
    """Return a fetched batch, already on the device, as stages take it."""
    views = None
    if augmentation is not None:
        views = augmentation.apply(batch[PIXELS], parameters_of(batch))
    return Batch(
        draws=draws,
        labels=batch[LABELS],
        views=views,
        frozen_logits=batch.get(FROZEN_LOGITS),
        checksums=batch.get(CHECKSUMS),
    )


def parameters_of(batch: HostBatch) -> dict[str, Tensor]:
    """Return the augmentation's parameters of a fetched batch."""
    return {
        name.removeprefix(PARAMETER): values
        for name, values in batch.items()
        if name.startswith(PARAMETER)
    }


def table_fetch(table: Table, index: ClassIndex) -> Fetch:
    """Return a function from draws to the frozen network's logits and the labels."""

    def fetch(draws: Draws) -> HostBatch:
        return {
            FROZEN_LOGITS: torch.from_numpy(table.read(draws)),
            LABELS: torch.from_numpy(index.labels[draws.samples]),
        }

    return fetch


def together(first: Callable[[Draws], HostBatch], second: Callable[[Draws], HostBatch]) -> Fetch:
    """Return a function that fetches what both fetch."""
    return lambda draws: first(draws) | second(draws)
