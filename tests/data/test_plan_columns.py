"""Plans of several images a row, as BBN and GLMC draw them. No stage takes them yet."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.data.class_index import ClassIndex
from fastssd.data.draws import unpack_view
from fastssd.data.plans import Plan, bind, running_count

BBN, GLMC = "instance+reversed", "instance+weighted:power=0.2"
two_columns = pytest.mark.parametrize("text", [BBN, GLMC, "class_aware:per_class=2+instance"])


def index_of(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return ClassIndex(np.random.default_rng(1).permutation(labels), len(counts))


def plan_of(index, sampler, *, num_views=None, stream="features"):
    return Plan(
        index=index, sampler=sampler, seed=0, stream=stream, num_epochs=50, num_views=num_views
    )


@two_columns
def test_a_row_has_an_image_of_each_sampler(text):
    index = index_of([60, 20, 5, 0, 1])

    draws = plan_of(index, text).epoch(3)

    assert draws.samples.shape == draws.views.shape == (len(index), 2)
    assert len(draws) == len(index)
    first = plan_of(index, text.split("+")[0]).epoch(3)
    np.testing.assert_array_equal(draws.samples[:, 0], first.samples)


def test_the_second_column_has_the_probabilities_of_its_sampler():
    counts = np.array([60_000, 20_000, 5_000, 1_000])
    index = index_of(counts)

    classes = index.labels[plan_of(index, BBN).epoch(0).samples]

    np.testing.assert_array_equal(np.bincount(classes[:, 0]), counts)
    expected = (1 / counts) / (1 / counts).sum()
    observed = np.bincount(classes[:, 1], minlength=4) / len(index)
    assert np.abs(observed - expected).max() < 6 * np.sqrt(0.25 / len(index))


@pytest.mark.parametrize("text", ["instance+instance", "class_balanced+class_balanced", BBN])
def test_the_columns_are_drawn_independently(text):
    index = index_of([40_000, 40_000])

    draws = plan_of(index, text).epoch(0)

    assert (draws.samples[:, 0] == draws.samples[:, 1]).sum() < 20
    classes = index.labels[draws.samples]
    pairs = np.bincount(2 * classes[:, 0] + classes[:, 1], minlength=4) / len(index)
    assert np.abs(pairs - 1 / 4).max() < 6 * np.sqrt(0.1875 / len(index))


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any))
def test_no_draw_of_any_column_coincides_with_another(counts):
    for text in (BBN, "instance+instance", "instance+class_balanced+class_aware"):
        plan = plan_of(index_of(counts), text)
        draws = [plan.epoch(epoch) for epoch in range(4)]

        pairs = {
            pair
            for epoch in draws
            for pair in zip(epoch.samples.ravel(), epoch.views.ravel(), strict=True)
        }
        assert len(pairs) == 4 * sum(counts) * (text.count("+") + 1)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=30))
def test_a_running_count_reads_row_by_row(rows):
    values = np.array(rows, np.int64).reshape(-1, 2)
    flat = values.ravel().tolist()

    expected = [flat[:i].count(value) for i, value in enumerate(flat)]

    np.testing.assert_array_equal(running_count(values), np.reshape(expected, (-1, 2)))


@settings(max_examples=30, deadline=None)
@given(num_views=st.integers(1, 6), epoch=st.integers(0, 49))
def test_bound_columns_keep_their_samples_and_each_draw_its_own_view(num_views, epoch):
    index = index_of([9, 4, 1])
    free, bound = (
        plan_of(index, BBN, num_views=number).epoch(epoch) for number in (None, num_views)
    )

    np.testing.assert_array_equal(free.samples, bound.samples)
    assert ((bound.views >= 0) & (bound.views < num_views)).all()
    # A view depends on its draw alone: the columns bound one by one are the same.
    for column in range(2):
        alone = bind(free[:, column], num_views, seed=0)
        np.testing.assert_array_equal(bound.views[:, column], alone.views)


def test_a_sample_in_both_columns_of_an_epoch_visits_the_views_in_turn():
    num_views = 5
    index = index_of([7])

    draws = plan_of(index, "instance+instance", num_views=num_views).epoch(0)
    free = plan_of(index, "instance+instance").epoch(0)

    _, repetitions = unpack_view(free.views)
    for sample in range(7):
        at = free.samples == sample
        assert sorted(repetitions[at]) == [0, 1]
        views = draws.views[at][np.argsort(repetitions[at])]
        assert (views[1] - views[0]) % num_views == 1
