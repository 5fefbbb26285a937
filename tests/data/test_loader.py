"""The loader's promises, with events and barriers in place of clocks."""

import gc
import itertools
import subprocess
import sys
import threading
from contextlib import nullcontext
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.core.buffers import Buffers
from fastssd.data.draws import Draws
from fastssd.data.loader import prefetched
from fastssd.errors import DataError

TIMEOUT = 60
"""Seconds after which a wait that should end at once is a hang; nothing waits that long."""


def draws_of(number):
    return Draws(np.array([number]), np.array([0]))


def number_of(draws):
    return int(draws.samples[0])


def fetch_number(draws):
    return {"number": torch.tensor([number_of(draws)])}


def loaded(batches, fetch=fetch_number, *, threads=2, prefetch=2):
    return prefetched(batches, fetch, threads=threads, prefetch=prefetch, pin_memory=False)


def loader_threads():
    return [t for t in threading.enumerate() if t.name.startswith("fastssd-loader")]


@pytest.fixture(autouse=True)
def no_thread_outlives_a_test():
    assert loader_threads() == []
    yield
    gc.collect()
    assert loader_threads() == []


class CountedBatches:
    """Endless batches that note how many were taken."""

    def __init__(self):
        self.taken = 0

    def __iter__(self):
        for number in itertools.count():
            self.taken += 1
            yield draws_of(number)


@settings(max_examples=30, deadline=None)
@given(num_batches=st.integers(0, 20), threads=st.integers(1, 5), prefetch=st.integers(0, 5))
def test_every_batch_comes_once_with_its_draws_in_order(num_batches, threads, prefetch):
    batches = (draws_of(number) for number in range(num_batches))

    pairs = list(loaded(batches, threads=threads, prefetch=prefetch))

    assert [number_of(draws) for draws, _ in pairs] == list(range(num_batches))
    assert [int(batch["number"]) for _, batch in pairs] == list(range(num_batches))


def test_the_order_is_kept_when_later_batches_are_finished_first():
    later_done = threading.Event()

    def fetch(draws):
        if number_of(draws) == 0:
            assert later_done.wait(TIMEOUT)
        if number_of(draws) == 3:
            later_done.set()
        return fetch_number(draws)

    numbers = [number_of(d) for d, _ in loaded(map(draws_of, range(8)), fetch, threads=2)]

    assert numbers == list(range(8))


def test_as_many_batches_are_made_at_a_time_as_there_are_threads():
    together = threading.Barrier(3)

    def fetch(draws):
        together.wait(TIMEOUT)  # passes only when three threads are here
        return fetch_number(draws)

    assert len(list(loaded(map(draws_of, range(9)), fetch, threads=3, prefetch=1))) == 9


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 0), (1, 3), (4, 0), (3, 2)])
def test_never_more_than_threads_and_prefetch_batches_are_ahead_of_the_one_in_use(
    threads, prefetch
):
    batches, started = CountedBatches(), []

    def fetch(draws):
        started.append(number_of(draws))
        return fetch_number(draws)

    ahead = loaded(batches, fetch, threads=threads, prefetch=prefetch)
    for used in range(1, 30):
        next(ahead)
        assert batches.taken <= used + threads + prefetch
        assert max(started) < used + threads + prefetch
    assert batches.taken == 29 + threads + prefetch
    ahead.close()


def test_nothing_is_started_before_the_first_batch_is_asked_for():
    batches = CountedBatches()

    ahead = loaded(batches)

    assert batches.taken == 0
    assert loader_threads() == []
    ahead.close()


class DamagedError(Exception):
    pass


@pytest.mark.parametrize("prefetch", [0, 4])
def test_an_error_is_raised_at_its_own_batch_as_it_was(prefetch):
    error = DamagedError("sample 5")

    def fetch(draws):
        if number_of(draws) == 5:
            raise error
        return fetch_number(draws)

    ahead = loaded(map(draws_of, range(20)), fetch, prefetch=prefetch)
    seen = [number_of(draws) for draws, _ in islice(ahead, 5)]
    with pytest.raises(DamagedError) as caught:
        next(ahead)

    assert caught.value is error
    assert seen == [0, 1, 2, 3, 4]
    assert loader_threads() == []


def test_an_error_of_the_batches_themselves_reaches_the_consumer():
    def batches():
        yield draws_of(0)
        raise DamagedError

    with pytest.raises(DamagedError):
        list(loaded(batches()))


@pytest.mark.parametrize("leave", ["close", "break", "forget", "throw"])
def test_leaving_in_the_middle_of_an_endless_epoch_ends_the_threads(leave):
    batches = CountedBatches()
    ahead = loaded(batches, threads=3, prefetch=5)
    for _ in range(4):
        next(ahead)
    assert loader_threads()

    if leave == "close":
        ahead.close()
    elif leave == "break":
        for _ in ahead:
            break
        del ahead
    elif leave == "throw":
        with pytest.raises(KeyboardInterrupt):
            ahead.throw(KeyboardInterrupt)
    else:
        cycle = [ahead]
        cycle.append(cycle)
        del ahead, cycle
        gc.collect()

    assert loader_threads() == []
    assert batches.taken <= 5 + 3 + 5


@pytest.mark.parametrize("fails", [False, True])
def test_batches_that_still_wait_for_a_thread_are_never_made(monkeypatch, fails):
    second_begun, leaving, made = threading.Event(), threading.Event(), []
    join = threading.Thread.join

    def announced_join(thread, timeout=None):
        leaving.set()  # only now may the one thread come to its third batch
        join(thread, timeout)

    def fetch(draws):
        made.append(number_of(draws))
        if made == [0] and fails:
            raise DamagedError
        if made == [0, 1]:
            second_begun.set()
            assert leaving.wait(TIMEOUT)
        return fetch_number(draws)

    monkeypatch.setattr(threading.Thread, "join", announced_join)
    ahead = loaded(map(draws_of, range(10)), fetch, threads=1, prefetch=5)
    with pytest.raises(DamagedError) if fails else nullcontext():
        next(ahead)
        assert second_begun.wait(TIMEOUT)
        ahead.close()

    assert made in ([0], [0, 1])  # the thread may not have come to the second batch at all
    assert loader_threads() == []


def test_a_batch_that_does_not_come_is_an_error_that_says_where_its_thread_is():
    released = threading.Event()

    def read_from_a_dead_file_system(draws):
        if number_of(draws) == 1:
            assert released.wait(TIMEOUT)
        return fetch_number(draws)

    batches = map(draws_of, range(5))
    ahead = prefetched(
        batches,
        read_from_a_dead_file_system,
        threads=1,
        prefetch=1,
        pin_memory=False,
        timeout=0.1,
    )
    assert number_of(next(ahead)[0]) == 0
    with pytest.raises(DataError, match=r"no batch came for 0.1 s: fastssd-loader-0 is in make"):
        next(ahead)

    [stuck] = loader_threads()  # nobody waited for it, and at the end of the process nobody will
    assert stuck.daemon
    released.set()
    stuck.join(TIMEOUT)


def test_a_thread_that_the_system_ended_is_an_error_and_no_hang():
    # A process of its own: Python never hears of a thread that ends like this.
    code = """if True:
        import ctypes
        import numpy as np
        from fastssd.data.draws import Draws
        from fastssd.data.loader import prefetched
        from fastssd.errors import DataError

        def end_thread(draws):
            ctypes.CDLL(None).pthread_exit(None)

        batches = [Draws(np.array([0]), np.array([0]))]
        try:
            list(prefetched(batches, end_thread, threads=1, prefetch=0, pin_memory=False))
        except DataError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )

    assert "loader thread fastssd-loader-0 is gone" in done.stdout, done.stderr
    assert done.returncode == 0


class Announced:
    """A fetch that notes what it was told would come."""

    def __init__(self):
        self.announced, self.made = [], []

    def __call__(self, draws):
        self.made.append((number_of(draws), len(self.announced)))
        return fetch_number(draws)

    def announce(self, draws):
        self.announced.append(number_of(draws))


@settings(max_examples=20, deadline=None)
@given(num_batches=st.integers(0, 12), read_ahead=st.integers(0, 5), prefetch=st.integers(0, 3))
def test_batches_are_announced_once_in_order_and_before_they_are_made(
    num_batches, read_ahead, prefetch
):
    fetch = Announced()
    batches = map(draws_of, range(num_batches))

    pairs = list(
        prefetched(
            batches, fetch, threads=1, prefetch=prefetch, pin_memory=False, read_ahead=read_ahead
        )
    )

    assert [number_of(draws) for draws, _ in pairs] == list(range(num_batches))
    if read_ahead == 0:
        assert fetch.announced == []
        return
    assert fetch.announced == list(range(num_batches))
    for number, announced_before in fetch.made:
        assert announced_before == min(num_batches, number + 1 + read_ahead)


class PooledFetch:
    """A fetch into reused memory, as that of images is; each batch is filled with its number."""

    def __init__(self, keep):
        self.buffers = Buffers(keep=keep)
        self.blocks = set()

    def __call__(self, draws):
        array = self.buffers.empty(16, 64)
        array[...] = number_of(draws) % 251
        self.blocks.add(array.ctypes.data)
        return {"pixels": torch.from_numpy(array)}


@settings(max_examples=25, deadline=None)
@given(
    kept=st.lists(st.integers(0, 6), min_size=1, max_size=40),
    threads=st.integers(1, 4),
    prefetch=st.integers(0, 3),
)
def test_no_memory_is_used_again_while_a_slow_consumer_keeps_it(kept, threads, prefetch):
    fetch = PooledFetch(keep=threads + prefetch + 2)
    held = {}
    ahead = loaded(map(draws_of, range(len(kept))), fetch, threads=threads, prefetch=prefetch)
    for number, (_, batch) in enumerate(ahead):
        # Kept for as many batches as the example says: whole, as a part, or as an array of it.
        pixels = batch["pixels"]
        part = [pixels, pixels[3:5].view(-1), pixels.numpy()[1:, ::7]][number % 3]
        held[number] = (number + kept[number], part)
        del batch, pixels, part
        held = {n: (until, part) for n, (until, part) in held.items() if until >= number}
        for other, (_, part) in held.items():
            assert (np.asarray(part) == other % 251).all()


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 0), (2, 2), (4, 1)])
def test_there_are_no_more_buffers_than_batches_in_flight(threads, prefetch):
    fetch = PooledFetch(keep=threads + prefetch + 2)

    for _, batch in loaded(map(draws_of, range(200)), fetch, threads=threads, prefetch=prefetch):
        assert batch["pixels"].shape == (16, 64)

    # Those ahead, the one in use, and the one before it, which the loop lets go of only now.
    assert len(fetch.blocks) <= threads + prefetch + 2


def test_an_abandoned_iteration_leaves_its_buffers_to_the_next():
    fetch = PooledFetch(keep=5)
    for _ in range(10):
        ahead = loaded(map(draws_of, range(50)), fetch, threads=1, prefetch=2)
        next(ahead)
        ahead.close()

    assert len(fetch.blocks) <= 5


def test_two_loaders_run_side_by_side_without_mixing():
    first, second = (loaded(map(draws_of, range(n, n + 5))) for n in (0, 100))

    pairs = [(number_of(a), number_of(b)) for (a, _), (b, _) in zip(first, second, strict=True)]

    assert pairs == [(n, n + 100) for n in range(5)]
