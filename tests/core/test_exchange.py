"""Exchanges by name, between processes that do not hold the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretend_processes import together

from fastssd.errors import FastssdError

SHAPES = {"a": (2, 3), "b": (), "c": (0, 2), "d": (4,), "\u00e9": (1,)}
TYPES = {"a": torch.float32, "b": torch.int64, "c": torch.float32, "d": torch.float64}

held = st.lists(st.permutations(list(SHAPES)), min_size=1, max_size=4).flatmap(
    lambda orders: st.tuples(
        *(st.integers(0, len(SHAPES)).map(lambda n, o=o: o[:n]) for o in orders)
    )
)


def tensors(names, rank):
    """Return what a process holds, in an order of its own."""
    return {
        name: torch.full(SHAPES[name], rank + 1, dtype=TYPES.get(name, torch.float32))
        for name in names
    }


@settings(max_examples=60, deadline=None)
@given(held=held)
def test_whatever_processes_hold_in_whatever_order_all_get_all_of_it(held):
    def work(process):
        own = tensors(held[process.process_index], process.process_index)
        return process.exchange.gathered(own), process.exchange.summed(own)

    for gathered, summed in together(len(held), work):
        assert list(gathered) == list(summed) == sorted({name for names in held for name in names})
        for name, rows in gathered.items():
            expected = [
                tensors([name], rank)[name] if name in names else torch.zeros(SHAPES[name])
                for rank, names in enumerate(held)
            ]
            assert rows.dtype == TYPES.get(name, torch.float32)
            assert torch.equal(rows, torch.stack([each.to(rows.dtype) for each in expected]))
            assert torch.equal(summed[name], rows.sum(dim=0))


@pytest.mark.parametrize("other", [torch.zeros(3), torch.zeros(2, dtype=torch.int64)])
def test_a_name_of_two_shapes_or_types_is_an_error_on_all_processes(other):
    def work(process):
        own = {"x": torch.zeros(2) if process.process_index == 0 else other}
        with pytest.raises(FastssdError, match=r"disagree: x is float32 \[2\].*rank 1"):
            process.exchange.summed(own)
        return True

    assert together(2, work) == [True, True]


@pytest.mark.parametrize("numbers", [(7, 8, 9), (True, False, 5)])
def test_the_main_process_decides(numbers):
    def work(process):
        return process.exchange.main_says(numbers[process.process_index])

    assert together(3, work) == [numbers[0]] * 3
