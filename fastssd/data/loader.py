"""Preparing batches ahead, in threads: draws in, named arrays out, in the plan's order."""

import atexit
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol, runtime_checkable

from torch import Tensor

from fastssd.core.buffers import Buffers
from fastssd.data.draws import Draws
from fastssd.data.transfer import packed
from fastssd.errors import DataError

HostBatch = dict[str, Tensor]
Fetch = Callable[[Draws], HostBatch]
"""Makes one batch in the host's memory. Called from several threads at once."""

TIMEOUT = 600.0
"""Seconds after which a batch that does not come is an error."""

_LOOK_EVERY = 1.0
"""Seconds between looks at whether the threads live, while a batch is waited for."""
_NICENESS = 5
"""How much less of a busy core a loader thread gets than the thread that drives the device: at 5
a third. Without a rival it gets all of it."""
_TASKS = Path("/proc/self/task")
_PACKAGE = Path(__file__).parents[1]


@runtime_checkable
class ReadsAhead(Protocol):
    """A fetch that can have the system read what later batches need."""

    def announce(self, draws: Draws) -> None:
        """Start reading for these draws, without waiting. Called from several threads at once."""


@runtime_checkable
class Threaded(Protocol):
    """A fetch, or a decoder, with threads of its own."""

    @property
    def threads(self) -> int:
        """How many work on one batch, the calling one among them."""


@runtime_checkable
class Completes(Protocol):
    """A fetch whose batches lack what is on the device already."""

    def complete(self, batch: HostBatch) -> HostBatch:
        """Return a batch, itself on the device, with what it lacked."""


@runtime_checkable
class FetchesTogether(Protocol):
    """A fetch that makes several small batches at little more than the cost of one."""

    def num_together(self, draws: Draws) -> int:
        """Return how many batches of that size are best made by one call."""

    def together(self, batches: Sequence[Draws]) -> list[HostBatch]:
        """Return what single calls would, batch by batch."""


def prefetched(
    batches: Iterable[Draws],
    fetch: Fetch,
    *,
    threads: int,
    prefetch: int,
    pin_memory: bool,
    read_ahead: int = 0,
    timeout: float = TIMEOUT,
) -> Generator[tuple[Draws, HostBatch], None, None]:
    """Yield each batch's draws with what `fetch` makes of them, in order.

    At most `threads + prefetch` batches, or groups of small ones that are made together
    (`FetchesTogether`), exist beside the one in use. An error in `fetch` is raised
    here, at the batch it belongs to. When the iteration is closed or abandoned, pending work is
    dropped and the threads end.

    Args:
        batches: The draws of each batch; taken as needed, so it may be endless.
        fetch: What makes a batch. Each thread works on a batch of its own.
        threads: Batches in the making at a time, at least 1.
        prefetch: Finished batches waiting at most.
        pin_memory: Page-lock the arrays, so that they are copied to a GPU without waiting.
        read_ahead: Batches beyond those whose draws are announced, if `fetch` is `ReadsAhead`.
        timeout: Seconds to wait for one batch.

    Yields:
        (draws, batch) pairs.

    Raises:
        DataError: If a batch does not come in time, or the thread that makes it is gone; names
            the thread and where it is.
    """
    remaining = iter(batches)
    buffers = Buffers(keep=threads + prefetch + 2, pin_memory=True) if pin_memory else None
    announcing = isinstance(fetch, ReadsAhead) and read_ahead > 0
    waiting = deque(islice(remaining, 1))  # taken from the plan, but not yet given to a thread
    unannounced = list(waiting)
    group = 1
    if waiting and isinstance(fetch, FetchesTogether):
        group = max(1, fetch.num_together(waiting[0]))

    def make(job: "_Job") -> Iterator[HostBatch]:
        if isinstance(fetch, ReadsAhead):
            for draws in job.announce:
                fetch.announce(draws)
        for batch in _made(fetch, job.draws):
            yield batch if buffers is None else packed(batch, buffers)

    def take(count: int) -> Iterator["_Job"]:
        for _ in range(count):
            missing = group + (read_ahead if announcing else 0) - len(waiting)
            taken = list(islice(remaining, max(0, missing)))
            waiting.extend(taken)
            unannounced.extend(taken)
            if waiting:
                draws = [waiting.popleft() for _ in range(min(group, len(waiting)))]
                yield _Job(draws, unannounced[:] if announcing else [])
                unannounced.clear()

    pool = _Pool(threads, make)
    pending: deque[_Job] = deque()
    try:
        pending.extend(map(pool.add, take(threads + prefetch)))
        while pending:
            pool.wait(pending[0], timeout)
            ready = pending.popleft()
            pending.extend(map(pool.add, take(1)))
            while ready.made:
                # Nothing here may keep a batch alive that its consumer is done with.
                yield ready.draws.pop(0), ready.made.popleft()
            if ready.error is not None:
                raise ready.error
            del ready
    finally:
        pool.close(timeout)


def _made(fetch: Fetch, batches: Sequence[Draws]) -> Iterable[HostBatch]:
    """Return what a fetch makes of batches; an error comes where its batch is due."""
    if len(batches) > 1 and isinstance(fetch, FetchesTogether):
        try:
            return fetch.together(batches)
        except Exception as error:
            return _one_by_one(fetch, batches, error)
    return map(fetch, batches)


def _one_by_one(fetch: Fetch, batches: Sequence[Draws], error: Exception) -> Iterator[HostBatch]:
    """Yield single batches after an error in making them together: only the one at fault has it.

    Raises:
        Exception: That error, where no single batch has any: their making together is at fault, and
            going on without it would only be slow.
    """
    yield from map(fetch, batches)
    raise error


class _Job:
    """Batches to be made by one thread."""

    def __init__(self, draws: list[Draws], announce: list[Draws]) -> None:
        self.draws = draws
        self.announce = announce
        self.thread: threading.Thread | None = None
        self.done = threading.Event()
        self.made: deque[HostBatch] = deque()
        self.error: BaseException | None = None  # behind those that were made


class _Pool:
    """Threads that make batches; they start with the first one."""

    def __init__(self, size: int, make: Callable[[_Job], Iterator[HostBatch]]) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        # Threads that are stuck must not keep the process from ending, so none is waited for by
        # the interpreter; `_close_all` waits instead.
        self._threads = [
            threading.Thread(
                target=_work, args=(self._jobs, make), name=f"fastssd-loader-{i}", daemon=True
            )
            for i in range(size)
        ]
        self._started = False
        self._lost = False
        _POOLS.add(self)

    def add(self, job: _Job) -> _Job:
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()
        self._jobs.put(job)
        return job

    def wait(self, job: _Job, timeout: float) -> None:
        """Wait for a batch.

        Raises:
            DataError: If it does not come within `timeout` seconds, or can't come any more.
        """
        waited, before = 0.0, time.monotonic()
        while not job.done.wait(min(_LOOK_EVERY, max(0.0, timeout - waited))):
            now = time.monotonic()
            # No more than a look is meant to take: a process that was stopped did not wait.
            waited, before = waited + min(now - before, 2 * _LOOK_EVERY), now
            dead = [thread.name for thread in self._threads if not _lives(thread)]
            if dead and not job.done.is_set():
                self._lost = True
                raise DataError(
                    f"loader thread {', '.join(dead)} is gone, and the batch that it was making "
                    "with it: look for a message of the system or of a library above, and start "
                    "the run again, which goes on from its checkpoint"
                )
            if waited >= timeout:
                self._lost = True
                raise DataError(
                    f"no batch came for {timeout:g} s: {_where(job)}. A file system that does not "
                    "answer is the usual reason: look whether the dataset can be read; start the "
                    "run again, which goes on from its checkpoint (data.timeout sets the seconds)"
                )

    def close(self, timeout: float) -> None:
        """End the threads; those that are lost are left to the end of the process."""
        _POOLS.discard(self)
        if not self._started:
            return
        while not self._jobs.empty():
            self._jobs.get()
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + (0.0 if self._lost else timeout)
        for thread in self._threads:
            while thread.is_alive() and _lives(thread) and time.monotonic() < deadline:
                thread.join(_LOOK_EVERY)


_POOLS: "weakref.WeakSet[_Pool]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End the threads of loaders that nobody closed: none may run into a dying interpreter."""
    for pool in list(_POOLS):
        pool.close(TIMEOUT)


def _work(jobs: "SimpleQueue[_Job | None]", make: Callable[[_Job], Iterator[HostBatch]]) -> None:
    _step_back()
    while (job := jobs.get()) is not None:
        job.thread = threading.current_thread()
        try:
            job.made.extend(make(job))
        except BaseException as error:
            job.error = error
        job.done.set()
        del job  # the thread must not keep the batch alive while it waits for the next


def _step_back() -> None:
    """Leave busy cores to the thread that launches kernels: on Linux a thread has its own nice."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        niceness = os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS
        os.setpriority(os.PRIO_PROCESS, thread, min(niceness, 19))


def _lives(thread: threading.Thread) -> bool:
    """Return whether the system still runs a thread; Python does not hear of a death in C."""
    if not _TASKS.exists():
        return thread.is_alive()
    return thread.is_alive() and (_TASKS / str(thread.native_id)).exists()


def _where(job: _Job) -> str:
    """Return which thread makes a batch and what it does, for a person."""
    if job.thread is None:
        return "no loader thread has begun it"
    frame = sys._current_frames().get(job.thread.ident or 0)
    while frame is not None and not Path(frame.f_code.co_filename).is_relative_to(_PACKAGE):
        frame = frame.f_back
    if frame is None:
        return f"{job.thread.name} is at an unknown place"
    place = f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}"
    return f"{job.thread.name} is in {frame.f_code.co_name} ({place})"
