import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.data.draws import Draws
from fastssd.data.sharding import (
    check_batch_size,
    contiguous_share,
    micro_batches,
    steps_per_epoch,
)
from fastssd.errors import ConfigError

ranks = pytest.mark.parametrize("num_processes", [1, 2, 4])
micro = pytest.mark.parametrize("accumulate", [1, 2, 4])


def epoch_of(length):
    order = np.random.default_rng(length).permutation(length)
    return Draws(order, order * 3)


def shares_of_all_ranks(draws, *, batch_size, accumulate, num_processes, first_step=0):
    """Every rank's micro-batches, as a list of lists."""
    return [
        list(
            micro_batches(
                draws,
                range(first_step, steps_per_epoch(len(draws), batch_size)),
                batch_size=batch_size,
                accumulate=accumulate,
                rank=rank,
                num_processes=num_processes,
            )
        )
        for rank in range(num_processes)
    ]


@ranks
@micro
@settings(max_examples=25, deadline=None)
@given(share=st.integers(1, 5), num_steps=st.integers(1, 5), rest=st.integers(0, 15))
def test_the_shares_of_a_step_put_together_are_the_global_batch_in_order(
    num_processes, accumulate, share, num_steps, rest
):
    batch_size = share * num_processes * accumulate
    draws = epoch_of(num_steps * batch_size + min(rest, batch_size - 1))

    shares = shares_of_all_ranks(
        draws, batch_size=batch_size, accumulate=accumulate, num_processes=num_processes
    )

    assert {len(of_rank) for of_rank in shares} == {num_steps * accumulate}
    assert {len(part) for of_rank in shares for part in of_rank} == {share}
    together = [shares[rank][i] for i in range(len(shares[0])) for rank in range(num_processes)]
    used = num_steps * batch_size
    for name in ("samples", "views"):
        found = np.concatenate([getattr(part, name) for part in together])
        np.testing.assert_array_equal(found, getattr(draws, name)[:used])


@ranks
@micro
def test_resuming_at_a_step_gives_what_the_whole_epoch_gives_from_there(num_processes, accumulate):
    draws = epoch_of(6 * 16 + 3)
    cut = {"batch_size": 16, "accumulate": accumulate, "num_processes": num_processes}

    whole = shares_of_all_ranks(draws, **cut)
    resumed = shares_of_all_ranks(draws, **cut, first_step=4)

    for of_rank, rest in zip(whole, resumed, strict=True):
        expected = of_rank[4 * accumulate :]
        assert [part.samples.tolist() for part in rest] == [p.samples.tolist() for p in expected]


def test_nothing_is_left_to_do_after_the_last_step():
    (shares,) = shares_of_all_ranks(
        epoch_of(10), batch_size=4, accumulate=1, num_processes=1, first_step=2
    )

    assert shares == []


@pytest.mark.parametrize(("num_draws", "expected"), [(0, 0), (3, 0), (4, 1), (7, 1), (8, 2)])
def test_an_epoch_has_as_many_steps_as_full_batches(num_draws, expected):
    assert steps_per_epoch(num_draws, 4) == expected


@given(num_items=st.integers(0, 10_000), num_processes=st.integers(1, 64))
def test_contiguous_shares_hold_every_item_once_in_order_and_evenly(num_items, num_processes):
    items = range(num_items)

    shares = [
        items[contiguous_share(num_items, rank=rank, num_processes=num_processes)]
        for rank in range(num_processes)
    ]

    assert [item for share in shares for item in share] == list(items)
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_a_batch_that_cannot_be_cut_evenly_is_refused_with_the_arithmetic():
    with pytest.raises(ConfigError, match=r"balance.batch_size=100 .* 8 equal parts .*4 .* x 2"):
        check_batch_size("balance", batch_size=100, accumulate=4, num_processes=2, num_draws=999)


def test_a_batch_larger_than_the_dataset_is_refused():
    check_batch_size("features", batch_size=64, accumulate=1, num_processes=1, num_draws=64)

    with pytest.raises(ConfigError, match=r"features.batch_size=64 is more than the 63"):
        check_batch_size("features", batch_size=64, accumulate=1, num_processes=1, num_draws=63)
