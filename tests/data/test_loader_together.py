"""Small batches that the loader has made together, against those made alone."""

from itertools import islice

import numpy as np
import pytest
import torch

from fastssd.data.draws import Draws
from fastssd.data.loader import prefetched


def draws_of(number):
    return Draws(np.array([number]), np.array([0]))


def loaded(num_batches, fetch, *, threads=2):
    batches = map(draws_of, range(num_batches))
    return prefetched(batches, fetch, threads=threads, prefetch=2, pin_memory=False)


class ThreeTogether:
    """Makes three batches a call; a call for `broken` among others fails as a whole."""

    def __init__(self, broken=None):
        self.broken = broken
        self.calls = []

    def __call__(self, draws):
        if int(draws.samples[0]) == self.broken:
            raise ValueError(f"batch {self.broken}")
        return {"number": torch.from_numpy(draws.samples)}

    def num_together(self, draws):
        return 3

    def together(self, batches):
        self.calls.append([int(draws.samples[0]) for draws in batches])
        return [self(draws) for draws in batches]


@pytest.mark.parametrize("num_batches", [0, 1, 3, 8])
def test_batches_made_together_come_one_by_one_in_order(num_batches):
    fetch = ThreeTogether()

    pairs = list(loaded(num_batches, fetch, threads=1))

    assert [(int(draws.samples[0]), int(batch["number"])) for draws, batch in pairs] == [
        (number, number) for number in range(num_batches)
    ]
    assert fetch.calls == [
        list(range(start, min(start + 3, num_batches)))
        for start in range(0, num_batches, 3)
        if num_batches - start > 1  # a single one is not worth it
    ]


@pytest.mark.parametrize("broken", range(6))
def test_of_batches_made_together_only_the_one_at_fault_has_the_error(broken):
    batches = loaded(9, ThreeTogether(broken))

    assert [int(draws.samples[0]) for draws, _ in islice(batches, broken)] == list(range(broken))
    with pytest.raises(ValueError, match=f"batch {broken}"):
        next(batches)


def test_making_together_that_is_broken_itself_is_an_error_and_not_a_slow_run():
    fetch = ThreeTogether()

    def together(batches):
        raise IndexError("an end too far")

    fetch.together = together
    batches = loaded(9, fetch)
    assert [int(draws.samples[0]) for draws, _ in islice(batches, 3)] == [0, 1, 2]
    with pytest.raises(IndexError, match="an end too far"):
        next(batches)
