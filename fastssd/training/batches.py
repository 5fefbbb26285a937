"""From a plan to a stage's batches on the device: this rank's share, prefetched, augmented."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from fastssd.augment.augmentation import Augmentation
from fastssd.config import TrainingConfig
from fastssd.core.buffers import Buffers
from fastssd.data.draws import Draws
from fastssd.data.images import CHECKSUMS, LABELS, PARAMETER, PIXELS
from fastssd.data.loader import (
    TIMEOUT,
    Completes,
    Fetch,
    FetchesTogether,
    HostBatch,
    ReadsAhead,
    Threaded,
    prefetched,
)
from fastssd.data.plans import ClassIndex, Plan
from fastssd.data.sharding import micro_batches, steps_per_epoch
from fastssd.data.transfer import Transfer
from fastssd.losses.distillation import TopLogits
from fastssd.methods.batch import Batch
from fastssd.tables.files import FEATURES, IDS, LOGITS, REST
from fastssd.tables.table import COLUMN, Table

_AT_ONCE = 2
"""Batches in the making at a time where a decoder has threads of its own."""


def unchanged(batch: HostBatch) -> HostBatch:
    """Return the batch."""
    return batch


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the batches of draws come from.

    Attributes:
        prepare: Makes them in the host's memory, ahead and in order.
        complete: Adds on the device what is only there.
    """

    prepare: Callable[[Iterator[Draws]], Generator[tuple[Draws, HostBatch], None, None]]
    complete: Callable[[HostBatch], HostBatch] = unchanged


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How a process prepares its batches.

    Attributes:
        rank: This process.
        num_processes: Ranks.
        threads: Threads that decode.
        prefetch: Finished batches waiting.
        device: Where batches are wanted.
        read_ahead: Batches beyond those, whose bytes the system is asked to read.
        timeout: Seconds after which a batch that does not come is an error.
    """

    rank: int
    num_processes: int
    threads: int
    prefetch: int
    device: torch.device
    read_ahead: int = 0
    timeout: float = TIMEOUT

    @property
    def pin_memory(self) -> bool:
        """Whether batches are page-locked, to be copied to the device without waiting."""
        return self.device.type == "cuda"

    def buffers(self) -> Buffers:
        """Return memory for the batches of one fetch: as many as are in flight at a time."""
        return Buffers(keep=self.threads + self.prefetch + 2, pin_memory=self.pin_memory)

    def num_at_once(self, fetch: Fetch) -> int:
        """Return the batches in the making at a time.

        One for each thread, if each is made by one; otherwise two, so that the threads of the
        decoder are at work while a batch's boxes are drawn, and no more, as each takes memory.
        """
        if isinstance(fetch, Threaded) and fetch.threads > 1:
            return min(self.threads, _AT_ONCE)
        return self.threads

    def source(self, fetch: Fetch) -> Source:
        """Return what prepares batches by a function that fetches one, in threads."""
        return Source(
            prepare=lambda draws: prefetched(
                draws,
                fetch,
                threads=self.num_at_once(fetch),
                prefetch=self.prefetch,
                pin_memory=self.pin_memory,
                read_ahead=self.read_ahead,
                timeout=self.timeout,
            ),
            complete=fetch.complete if isinstance(fetch, Completes) else unchanged,
        )

    def batches(
        self, draws: Iterator[Draws], source: Source
    ) -> Generator[tuple[Draws, HostBatch], None, None]:
        """Yield each batch of draws with what the source made of it, on the device."""
        transfer = Transfer(self.device)

        def moved(pair: tuple[Draws, HostBatch]) -> tuple[Draws, HostBatch]:
            batch_draws, batch = pair
            return batch_draws, source.complete(transfer(batch))

        with closing(source.prepare(draws)) as prepared:
            try:
                # A loop's variables would keep a batch alive while the next one is awaited.
                yield from map(moved, prepared)
            finally:
                transfer.finish()


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


def parameters_of(batch: HostBatch) -> dict[str, Tensor]:
    """Return the augmentation's parameters of a fetched batch."""
    return {
        name.removeprefix(PARAMETER): values
        for name, values in batch.items()
        if name.startswith(PARAMETER)
    }


@dataclass(frozen=True)
class TableFetch:
    """A fetch of draws' rows of a table, and of the labels."""

    table: Table
    index: ClassIndex

    def __call__(self, draws: Draws) -> HostBatch:
        labels = torch.from_numpy(self.index.labels[draws.samples])
        return {**self.table.read(draws), LABELS: labels}

    def announce(self, draws: Draws) -> None:
        """Have the system read these draws' rows."""
        self.table.announce(draws)


@dataclass(frozen=True)
class Together:
    """A fetch of what several fetch."""

    fetches: tuple[Fetch, ...]

    def __call__(self, draws: Draws) -> HostBatch:
        batch: HostBatch = {}
        for fetch in self.fetches:
            batch |= fetch(draws)
        return batch

    @property
    def threads(self) -> int:
        """Threads that work on one batch."""
        return max(fetch.threads if isinstance(fetch, Threaded) else 1 for fetch in self.fetches)

    def num_together(self, draws: Draws) -> int:
        """Return how many batches are best made by one call; those of a table never need it."""
        wanted = [
            fetch.num_together(draws) if isinstance(fetch, FetchesTogether) else 0
            for fetch in self.fetches
        ]
        return min(filter(None, wanted), default=1)

    def together(self, batches: Sequence[Draws]) -> list[HostBatch]:
        """Return several batches, made by one call of each fetch that can."""
        made: list[HostBatch] = [{} for _ in batches]
        for fetch in self.fetches:
            parts = (
                fetch.together(batches)
                if isinstance(fetch, FetchesTogether)
                else map(fetch, batches)
            )
            for batch, part in zip(made, parts, strict=True):
                batch |= part
        return made

    def announce(self, draws: Draws) -> None:
        """Have the system read what these draws need."""
        for fetch in self.fetches:
            if isinstance(fetch, ReadsAhead):
                fetch.announce(draws)

    def complete(self, batch: HostBatch) -> HostBatch:
        """Add on the device what is only there."""
        for fetch in self.fetches:
            if isinstance(fetch, Completes):
                batch = fetch.complete(batch)
        return batch


def together(*fetches: Fetch) -> Fetch:
    """Return a function that fetches what all fetch."""
    return Together(fetches)
