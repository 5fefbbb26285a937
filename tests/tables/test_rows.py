import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastssd.data.draws import Draws, pack_view
from fastssd.tables.rows import DistinctDraws, EveryView

triples = st.tuples(st.integers(0, 30), st.integers(0, 5), st.integers(0, 40))
lists = st.lists(triples, min_size=1, max_size=60)


def draws_of(triples) -> Draws:
    samples, epochs, repetitions = np.array(triples, dtype=np.int64).T
    return Draws(samples, pack_view(epochs, repetitions))


def all_of(rows) -> Draws:
    return rows.draws(np.arange(len(rows)))


@given(num_samples=st.integers(1, 20), num_views=st.integers(1, 9))
def test_every_view_of_every_sample_has_the_row_that_says_so(num_samples, num_views):
    rows = EveryView(num_samples, num_views)
    draws = all_of(rows)
    found = set(zip(draws.samples.tolist(), draws.views.tolist(), strict=True))
    assert found == {(s, v) for s in range(num_samples) for v in range(num_views)}
    assert rows.of(draws).tolist() == list(range(num_samples * num_views))


@pytest.mark.parametrize("view", [-1, 3])
def test_a_view_beyond_the_tables_is_refused(view):
    with pytest.raises(KeyError, match="3 views"):
        EveryView(5, 3).of(Draws(np.array([0, 1]), np.array([0, view])))


def test_every_view_of_forty_million_rows_takes_no_memory():
    tracemalloc.start()
    rows = EveryView(437_513, 90)
    described = rows.describe()
    some = rows.draws(np.array([0, 39_376_169]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
    assert len(rows) == 39_376_170
    assert (some.samples.tolist(), some.views.tolist()) == ([0, 437_512], [0, 89])
    assert described == {"kind": "every view", "samples": 437_513, "views": 90}


@given(lists)
def test_distinct_draws_have_one_row_each_and_every_draw_finds_its_own(triples):
    draws = draws_of(triples)
    rows = DistinctDraws(draws)
    assert len(rows) == len(set(triples))
    found = rows.draws(rows.of(draws))
    np.testing.assert_array_equal(found.samples, draws.samples)
    np.testing.assert_array_equal(found.views, draws.views)


@given(lists, triples)
def test_a_draw_of_another_plan_is_refused(triples, other):
    rows = DistinctDraws(draws_of(triples))
    if other in triples:
        rows.of(draws_of([other]))
    else:
        with pytest.raises(KeyError, match="another plan"):
            rows.of(draws_of([other]))


@given(lists, lists)
def test_rows_are_described_alike_only_if_they_are_the_same_draws(one, other):
    same = set(one) == set(other)
    described = [DistinctDraws(draws_of(each)).describe() for each in (one, other)]
    assert (described[0] == described[1]) == same


def test_distinct_draws_hold_eight_bytes_a_row():
    samples = np.arange(500_000) % 100_000
    views = np.arange(500_000) // 100_000
    tracemalloc.start()
    rows = DistinctDraws(Draws(samples, views))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == 500_000
    assert held < 8.2 * len(rows)
