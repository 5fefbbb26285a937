"""The samplers' inner loops: native and NumPy give the same bits, and what they say they give."""

import hashlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.core import counter_rng
from fastssd.data import draw_kernels
from fastssd.data.class_index import ClassIndex
from fastssd.data.plans import Plan
from fastssd.native import library

COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any)


@pytest.fixture
def numpy_alone(monkeypatch):
    monkeypatch.setattr(library, "library", lambda: None)


def in_numpy(function, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "library", lambda: None)
        return function(*arguments)


def index_of(counts, seed=0):
    labels = np.repeat(np.arange(len(counts)), counts)
    return ClassIndex(np.random.default_rng(seed).permutation(labels), len(counts))


@given(COUNTS)
def test_a_group_is_the_stable_order_of_its_labels(counts):
    index = index_of(counts)

    order = draw_kernels.group(index.labels, index.counts)

    assert order.dtype == np.int64
    np.testing.assert_array_equal(order, sorted(range(len(order)), key=index.labels.__getitem__))


@given(st.lists(st.integers(0, 6) | st.just(2**40), max_size=60))
def test_a_running_count_counts_what_came_before(values):
    counts = draw_kernels.running_count(np.array(values, np.int64))

    assert counts.tolist() == [values[:i].count(value) for i, value in enumerate(values)]


@given(st.lists(st.sampled_from([0.0, 1e-12, 1.0, 3.0, 1e9]), min_size=1, max_size=9).filter(any))
@settings(deadline=None)
def test_a_search_finds_what_bisection_finds_for_each_random_number(weights):
    weights = np.array(weights)

    found = draw_kernels.search(weights, np.random.default_rng(7), 3000)

    ends = np.cumsum(weights)
    chances = np.random.default_rng(7).random(3000) * ends[-1]
    np.testing.assert_array_equal(found, [np.sum(ends[:-1] <= chance) for chance in chances])
    assert (weights[found] > 0).all()


@given(COUNTS, st.integers(0, 2**32))
@settings(deadline=None)
def test_images_within_classes_come_by_one_random_number_each(counts, seed):
    index = index_of(counts)
    classes = np.random.default_rng(seed).choice(index.present, 300)
    arrays = (index.starts, index.counts, index.order)

    samples = draw_kernels.within(classes, np.random.default_rng(seed), *arrays)

    chances = np.random.default_rng(seed).random(300)
    expected = [
        np.flatnonzero(index.labels == label)[int(chance * index.counts[label])]
        for label, chance in zip(classes, chances, strict=True)
    ]
    np.testing.assert_array_equal(samples, expected)


@given(COUNTS, st.integers(0, 2**63), st.integers(1, 90))
@settings(deadline=None, max_examples=50)
def test_a_cycle_is_a_class_sorted_by_its_random_numbers(counts, key, num_draws):
    index = index_of(counts)
    classes = np.resize(index.present, num_draws)
    ordinals = draw_kernels.running_count(classes) + key % 1000
    arrays = (index.starts, index.counts, index.order)

    samples = draw_kernels.from_cycles(classes, ordinals, *arrays, key)

    for label, ordinal, sample in zip(classes, ordinals, samples, strict=True):
        images = np.flatnonzero(index.labels == label)
        cycle, place = divmod(int(ordinal), len(images))
        views = np.full(len(images), cycle)
        chances = counter_rng.uniforms(key, "cycle", images, views, field=0, count=2)
        ranked = sorted(zip(chances.tolist(), images.tolist(), strict=True))
        assert sample == ranked[place][1]


@pytest.mark.kernels
@pytest.mark.parametrize("largest", [1, 8, 9, 1000, 70_000])
def test_native_cycles_are_those_of_numpy_for_small_and_large_classes(largest):
    index = index_of([largest, 3, 0, largest // 2 + 1])
    classes = np.random.default_rng(1).permutation(np.repeat(index.present, [largest + 5, 20, 7]))
    arrays = (classes, draw_kernels.running_count(classes), index.starts, index.counts)

    found = draw_kernels.from_cycles(*arrays, index.order, 11)

    expected = in_numpy(draw_kernels.from_cycles, *arrays, index.order, 11)
    np.testing.assert_array_equal(found, expected)


# Of version 0.1, before there were native kernels: a run that is resumed draws what it would have.
RECORDED = {
    "instance": "ab264f0be6771e92",
    "class_balanced": "5a44d9a02f93ecab",
    "class_aware": "c93a070c8222c888",
    "class_aware:per_class=7": "d6cc682cbd83e530",
    "square_root": "9dc111ab4a6c89c5",
    "progressive": "0e6dff651f397fd7",
    "reversed": "b6186d92065c9541",
    "effective_number": "054b2d13d01b7629",
    "class_cycles": "23bb9072e6658cdb",
    "instance+reversed": "ffe347a33dc872eb",
}


def digest(sampler):
    """Of an epoch of CIFAR100-LT."""
    counts = [int(500 * 0.01 ** (c / 99)) for c in range(100)]
    labels = np.repeat(np.arange(100), counts)
    np.random.default_rng(1).shuffle(labels)
    index = ClassIndex(labels, 100)
    plan = Plan(index=index, sampler=sampler, seed=3, stream="features", num_epochs=10)
    draws = plan.epoch(1)
    return hashlib.sha256(draws.samples.tobytes() + draws.views.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("sampler", RECORDED)
def test_the_draws_of_an_epoch_are_those_recorded(sampler):
    assert digest(sampler) == RECORDED[sampler]


@pytest.mark.usefixtures("numpy_alone")
@pytest.mark.parametrize("sampler", RECORDED)
def test_the_draws_without_native_kernels_are_those_recorded(sampler):
    assert digest(sampler) == RECORDED[sampler]


def test_draws_in_an_odd_order_come_from_their_cycles_too():
    index = index_of([6])
    ordinals = np.arange(60)
    random.Random(0).shuffle(ordinals)
    arrays = (index.starts, index.counts, index.order, 5)

    samples = draw_kernels.from_cycles(np.zeros(60, np.int64), ordinals, *arrays)

    ordered = draw_kernels.from_cycles(np.zeros(60, np.int64), np.arange(60), *arrays)
    np.testing.assert_array_equal(samples, ordered[ordinals])
