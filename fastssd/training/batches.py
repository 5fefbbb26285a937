"""From a plan to a stage's batches on the device: this rank's share, prefetched, augmented."""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

from fastssd.augment.augmentation import Augmentation
from fastssd.config import Budget
from fastssd.data.draws import Draws
from fastssd.data.images import CHECKSUMS, LABELS, PIXELS, parameters_of
from fastssd.data.loader import HostBatch
from fastssd.data.plans import Plan
from fastssd.data.sharding import micro_batches, steps_per_epoch
from fastssd.data.workers import Source, Workers
from fastssd.losses.distillation import TopLogits
from fastssd.methods.batch import Batch
from fastssd.tables.files import FEATURES, IDS, LOGITS, REST
from fastssd.tables.table import COLUMN


@dataclass(frozen=True, kw_only=True)
class Batches:
    """A stage's batches, epoch by epoch.

    Attributes:
        plan: The draws.
        source: Makes batches in the host's memory.
        augmentation: Finishes its pixels on the device; None where there are none.
        budget: Batch size and micro-batches.
        workers: Rank and threads.
    """

    plan: Plan
    source: Source
    augmentation: Augmentation | None
    budget: Budget
    workers: Workers

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return steps_per_epoch(len(self.plan.index), self.budget.batch_size)

    def batches(self, first_step: int, last_step: int) -> Generator[Batch, None, None]:
        """Yield this rank's micro-batches of some steps, `accumulate` of them a step.

        Prefetching goes on over the ends of epochs, so only the first batch is waited for.

        Args:
            first_step: 0-based, over all epochs.
            last_step: The first that is no longer wanted.
        """
        steps = range(first_step, last_step)

        def made(pair: tuple[Draws, HostBatch]) -> Batch:
            return finished(*pair, self.augmentation)

        with closing(self.workers.batches(self._shares(steps), self.source)) as fetched:
            yield from map(made, fetched)

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
                batch_size=self.budget.batch_size,
                accumulate=self.budget.accumulate,
                rank=self.workers.rank,
                num_processes=self.workers.num_processes,
            )


def finished(draws: Draws, batch: HostBatch, augmentation: Augmentation | None) -> Batch:
    """Return a fetched batch, already on the device, as stages take it."""
    views = None
    if augmentation is not None:
        views = augmentation.apply(batch[PIXELS], parameters_of(batch))
    frozen_logits, soft_labels = batch.get(COLUMN + LOGITS), None
    if frozen_logits is not None and COLUMN + IDS in batch:
        soft_labels = TopLogits(batch[COLUMN + IDS], frozen_logits, batch[COLUMN + REST][:, 0])
        frozen_logits = None
    return Batch(
        draws=draws,
        labels=batch[LABELS],
        views=views,
        frozen_logits=frozen_logits,
        frozen_features=batch.get(COLUMN + FEATURES),
        soft_labels=soft_labels,
        checksums=batch.get(CHECKSUMS),
    )
