"""How a process prepares batches: fetched in threads, ahead and in order, then on the device."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch

from fastssd.core.buffers import Buffers
from fastssd.data.draws import Draws
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
from fastssd.data.transfer import Transfer

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
