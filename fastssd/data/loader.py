"""Preparing batches ahead, in threads: draws in, named arrays out, in the plan's order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import torch
from torch import Tensor

from fastssd.data.draws import Draws

HostBatch = dict[str, Tensor]
Fetch = Callable[[Draws], HostBatch]
"""Makes one batch in the host's memory. Called from several threads at once."""


def prefetched(
    batches: Iterable[Draws], fetch: Fetch, *, threads: int, prefetch: int, pin_memory: bool
) -> Iterator[tuple[Draws, HostBatch]]:
    """Yield each batch's draws with what `fetch` makes of them, in order.

    At most `threads + prefetch` batches exist beside the one in use. An error in `fetch` is raised
    here, at the batch it belongs to. When the iteration is closed or abandoned, pending work is
    cancelled and the threads end.

    Args:
        batches: The draws of each batch; taken as needed, so it may be endless.
        fetch: What makes a batch. Each thread works on a batch of its own.
        threads: Batches in the making at a time, at least 1.
        prefetch: Finished batches waiting at most.
        pin_memory: Page-lock the arrays, so that they are copied to a GPU without waiting.

    Yields:
        (draws, batch) pairs.
    """

    def make(draws: Draws) -> tuple[Draws, HostBatch]:
        batch = fetch(draws)
        if pin_memory:
            batch = {name: values.pin_memory() for name, values in batch.items()}
        return draws, batch

    remaining = iter(batches)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="fastssd-loader")
    pending: deque[Future[tuple[Draws, HostBatch]]] = deque()
    try:
        pending.extend(pool.submit(make, draws) for draws in islice(remaining, threads + prefetch))
        while pending:
            ready = pending.popleft().result()
            pending.extend(pool.submit(make, draws) for draws in islice(remaining, 1))
            yield ready
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def to_device(batch: HostBatch, device: torch.device) -> HostBatch:
    """Return the batch on the device; the copy from pinned memory does not wait."""
    return {name: values.to(device, non_blocking=True) for name, values in batch.items()}
