"""The samplers of other papers' recipes against their probabilities and published vectors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.data.class_index import ClassIndex
from fastssd.data.plans import Plan

CIFAR100_LT = np.array([int(500 * 0.01 ** (c / 99)) for c in range(100)])
FALSE_ALARM_NORMAL = 4.7534
"""The normal quantile of 1 - 1e-6."""


def index_of(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return ClassIndex(np.random.default_rng(0).permutation(labels), len(counts))


def plan_of(index, sampler, *, num_epochs=10, seed=0):
    return Plan(index=index, sampler=sampler, seed=seed, stream="features", num_epochs=num_epochs)


def a_million(index, sampler):
    num_epochs = -(-1_000_000 // len(index))
    plan = plan_of(index, sampler, num_epochs=num_epochs)
    return np.concatenate([plan.epoch(epoch).samples for epoch in range(num_epochs)])


def assert_distributed(observed, probabilities):
    assert (observed[probabilities == 0] == 0).all()
    probable = probabilities > 0
    expected = probabilities[probable] * observed.sum()
    assert expected.min() > 10, "the statistic would not be chi-square"
    freedom = len(expected) - 1
    limit = freedom * (1 - 2 / (9 * freedom) + FALSE_ALARM_NORMAL * np.sqrt(2 / (9 * freedom))) ** 3
    assert ((observed[probable] - expected) ** 2 / expected).sum() < limit


def reversed_probabilities(counts):
    weights = counts.max() / counts
    return weights / weights.sum()


def effective_probabilities(counts, beta=0.9999):
    weights = counts * (1 - beta) / (1 - beta**counts)
    return weights / weights.sum()


def weighted_probabilities(counts, power=0.2):
    of_image = np.repeat(counts.astype(float) ** -power, counts)
    classes = np.repeat(np.arange(len(counts)), counts)
    return np.bincount(classes, weights=of_image) / of_image.sum()


PUBLISHED = [
    ("reversed", reversed_probabilities),
    ("effective_number", effective_probabilities),
    ("effective_number:beta=0.99", lambda counts: effective_probabilities(counts, 0.99)),
    ("weighted", weighted_probabilities),
    ("weighted:power=0", lambda counts: counts / counts.sum()),
    ("class_cycles", lambda counts: np.full(len(counts), 1 / len(counts))),
]


@pytest.mark.parametrize(("sampler", "published"), PUBLISHED)
def test_classes_have_their_published_probability_in_a_million_draws(sampler, published):
    index = index_of(CIFAR100_LT)

    samples = a_million(index, sampler)

    observed = np.bincount(index.labels[samples], minlength=100)
    assert len(samples) >= 1_000_000
    assert_distributed(observed, published(CIFAR100_LT))


@pytest.mark.parametrize(("sampler", "published"), PUBLISHED)
def test_images_of_a_class_are_equally_probable_and_an_empty_class_has_none(sampler, published):
    counts = np.array([300, 80, 20, 5])
    index = index_of([300, 80, 0, 20, 5])

    samples = a_million(index, sampler)

    of_class = np.insert(published(counts) / counts, 2, 0.0)
    assert_distributed(np.bincount(samples, minlength=len(index)), of_class[index.labels])


def test_reversed_sampling_of_cifar100_lt_has_bbns_first_and_last_probability():
    probabilities = reversed_probabilities(CIFAR100_LT)
    assert probabilities[0] == pytest.approx(0.000438, abs=5e-7)
    assert probabilities[99] == pytest.approx(0.0438, abs=5e-5)

    index = index_of(CIFAR100_LT)
    observed = np.bincount(index.labels[a_million(index, "reversed")]) / 1_000_000

    assert observed[0] == pytest.approx(0.000438, abs=6 * np.sqrt(0.000438 / 1e6))
    assert observed[99] == pytest.approx(0.0438, abs=6 * np.sqrt(0.0438 / 1e6))


@pytest.mark.parametrize(
    ("special", "general"),
    [("class_balanced", "weighted:power=1"), ("reversed", "weighted:power=2")],
)
def test_powers_lead_from_the_frequencies_over_equal_classes_to_the_reverse(special, general):
    index = index_of([90, 30, 0, 5])

    draws = [plan_of(index, sampler).epoch(3).samples for sampler in (special, general)]

    # The same random numbers; rounding of the weights may move a draw at a boundary.
    assert (draws[0] == draws[1]).mean() > 0.99


def test_deferred_resampling_is_instance_balanced_before_and_class_balanced_from_its_start():
    index = index_of(CIFAR100_LT)
    plan = plan_of(index, "deferred", num_epochs=200)
    instance, balanced = (
        plan_of(index, name, num_epochs=200) for name in ("instance", "class_balanced")
    )

    # M2m's --warm 160 and BagofTricks' 1-based epoch > 160: 160 epochs as they come.
    for epoch, expected in ((0, instance), (159, instance), (160, balanced), (199, balanced)):
        np.testing.assert_array_equal(plan.epoch(epoch).samples, expected.epoch(epoch).samples)


def test_class_cycles_repeat_no_image_of_a_class_before_all_were_drawn():
    counts = [500, 120, 40, 0, 9, 3, 1]
    index = index_of(counts)
    for epoch in range(3):
        samples = plan_of(index, "class_cycles").epoch(epoch).samples
        for label, count in enumerate(counts):
            drawn = samples[index.labels[samples] == label]
            for start in range(0, len(drawn), count or 1):
                cycle = drawn[start : start + count]
                assert len(set(cycle)) == len(cycle)


@pytest.mark.parametrize("per_class", [1, 2, 4, 7])
def test_a_class_visit_takes_as_many_consecutive_images_as_asked_for(per_class):
    counts = [500, 120, 40, 0, 9, 3, 1]
    index, num_present = index_of(counts), 6
    plan = plan_of(index, f"class_aware:per_class={per_class}")

    samples = np.concatenate([plan.epoch(epoch).samples for epoch in range(10)])
    classes = index.labels[samples]

    visits = classes[: len(classes) // per_class * per_class].reshape(-1, per_class)
    assert (visits == visits[:, :1]).all()
    rounds = visits[: len(visits) // num_present * num_present, 0].reshape(-1, num_present)
    assert (np.sort(rounds, axis=1) == np.flatnonzero(counts)).all()
    for label, count in enumerate(counts):
        drawn = samples[classes == label]
        for start in range(0, len(drawn) - (count or 1) + 1, count or 1):
            assert len(set(drawn[start : start + count])) == count


def test_a_batch_of_512_holds_128_classes_as_in_kang_et_al_and_256_as_in_ssds_code():
    index = index_of([20] * 400)

    for sampler, num_classes in (("class_aware", 128), ("class_aware:per_class=2", 256)):
        batch = plan_of(index, sampler).epoch(0).samples[:512]
        assert len(set(index.labels[batch])) == num_classes


@settings(max_examples=40, deadline=None)
@given(
    per_class=st.integers(1, 6),
    num_classes=st.integers(1, 9),
    first=st.integers(0, 400),
    length=st.integers(0, 400),
)
def test_any_stretch_of_class_aware_draws_is_balanced(per_class, num_classes, first, length):
    index = index_of(np.arange(1, num_classes + 1) ** 2)
    plan = plan_of(index, f"class_aware:per_class={per_class}", num_epochs=900)
    last = (first + length) // len(index)
    epochs = range(first // len(index), last + 1)

    samples = np.concatenate([plan.epoch(epoch).samples for epoch in epochs])
    begin = first - epochs.start * len(index)
    by_class = np.bincount(index.labels[samples[begin : begin + length]], minlength=num_classes)

    # Less than a round is cut off at either end, and a round has per_class of each.
    assert np.ptp(by_class) <= 2 * per_class
    whole_round = per_class * num_classes
    if first % whole_round == length % whole_round == 0:
        assert np.ptp(by_class) == 0
