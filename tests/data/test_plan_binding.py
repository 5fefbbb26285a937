"""Plans that keep to a table's views, and how recipes name plans."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.data.draws import Draws, unpack_view
from fastssd.data.plans import SAMPLERS, ClassIndex, Plan, bind, check_sampler
from fastssd.errors import ConfigError


def index_of(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return ClassIndex(np.random.default_rng(0).permutation(labels), len(counts))


def plan_of(index, sampler, *, num_views=None, stream="features", num_epochs=10):
    return Plan(
        index=index,
        sampler=sampler,
        seed=0,
        stream=stream,
        num_epochs=num_epochs,
        num_views=num_views,
    )


long_tails = st.lists(st.integers(0, 20), min_size=1, max_size=8).filter(lambda c: sum(c) > 0)
samplers = pytest.mark.parametrize(
    "sampler", [name if name != "deferred" else "deferred:start=1" for name in SAMPLERS]
)


@settings(deadline=None)
@given(counts=long_tails, num_views=st.integers(1, 9), first=st.integers(0, 50))
def test_over_k_epochs_a_sample_drawn_once_an_epoch_is_seen_at_every_view_once(
    counts, num_views, first
):
    plan = plan_of(index_of(counts), "instance", num_epochs=60, num_views=num_views)

    seen = np.zeros((sum(counts), num_views), np.int64)
    for epoch in range(first, first + num_views):
        draws = plan.epoch(epoch)
        seen[draws.samples, draws.views] += 1

    assert (seen == 1).all()


@settings(max_examples=25, deadline=None)
@given(num_views=st.integers(1, 7), repetitions=st.integers(1, 20))
def test_the_repetitions_of_an_epoch_are_spread_evenly_over_the_views(num_views, repetitions):
    index = index_of([1])
    draws = Draws(np.zeros(repetitions, np.int64), np.arange(repetitions, dtype=np.int64) << 32 | 5)

    views = bind(draws, num_views, seed=0).views

    assert len(index) == 1
    assert np.ptp(np.bincount(views, minlength=num_views)) <= 1


@samplers
@settings(max_examples=25, deadline=None)
@given(counts=long_tails, num_views=st.integers(1, 9))
def test_bound_draws_keep_their_samples_and_stay_below_k(sampler, counts, num_views):
    index = index_of(counts)
    free, bound = (
        plan_of(index, sampler, num_views=number).epoch(2) for number in (None, num_views)
    )

    np.testing.assert_array_equal(bound.samples, free.samples)
    assert ((bound.views >= 0) & (bound.views < num_views)).all()


@pytest.mark.parametrize("sampler", ["class_aware", "class_balanced", "square_root"])
def test_over_many_epochs_repeated_samples_see_all_views_about_equally_often(sampler):
    num_views = 4
    plan = plan_of(index_of([200, 20, 2]), sampler, num_epochs=400, num_views=num_views)

    seen = np.zeros((222, num_views))
    for epoch in range(400):
        draws = plan.epoch(epoch)
        np.add.at(seen, (draws.samples, draws.views), 1)

    shares = seen / seen.sum(axis=1, keepdims=True)
    often = seen.sum(axis=1) > 800
    assert often.sum() >= 20
    # Of 800 independent draws a share of a quarter would have a sigma of 0.015.
    assert np.abs(shares[often] - 1 / num_views).max() < 0.06


def test_samples_start_at_views_of_their_own_which_do_not_depend_on_the_plan():
    index = index_of([8000])
    first, second = (
        plan_of(index, "instance", stream=stream, num_views=8).epoch(0) for stream in "ab"
    )

    # Of 8,000 independent places an eighth has a sigma of 30.
    assert np.abs(np.bincount(first.views, minlength=8) - 1000).max() < 180
    offsets = [d.views[np.argsort(d.samples)] for d in (first, second)]
    np.testing.assert_array_equal(*offsets)
    epochs, repetitions = unpack_view(plan_of(index, "instance").epoch(0).views)
    assert not epochs.any()
    assert not repetitions.any()


def test_an_unknown_sampler_is_named_with_the_nearest_there_is():
    with pytest.raises(ConfigError, match=r"balance.plan=class_awre .* did you mean class_aware\?"):
        check_sampler("class_awre", key="balance.plan")
    with pytest.raises(ConfigError, match="instance, class_balanced"):
        plan_of(index_of([1]), "xyz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class_aware:pre_class=2", "has no option 'pre_class'; did you mean per_class"),
        ("class_aware:", "class_aware has no option ''; did you mean per_class"),
        ("instance:per_class=2", "instance takes no options"),
        ("class_aware:per_class", "stands there once, as in class_aware:per_class=NUMBER"),
        ("class_aware:per_class=2,per_class=4", "stands there once"),
        ("class_aware:per_class=2.5", "per_class=2.5 is not a whole number"),
        ("class_aware:per_class=0", "per_class=0 must be from 1"),
        ("weighted:power=much", "power=much is not a number"),
        ("weighted:power=nan", "power=nan is not finite"),
        ("class_aware:per_class=1" + "0" * 400, "is not finite, or beyond"),
        ("class_aware:per_class=1000000000000", "must be from 1 to 1,000 images a visit"),
        ("weighted:power=-0.5", "power=-0.5 must be from 0"),
        ("weighted:power=11", "power=11.0 must be from 0"),
        ("effective_number:beta=1", "beta=1.0 must be at least 0 and below 1"),
        ("effective_number:beta=-0.1", "beta=-0.1 must be at least 0 and below 1"),
        ("deferred:start=0", "start=0 must lie within the epochs, from 1 to 89"),
        ("deferred:start=90", "start=90 must lie within the epochs, from 1 to 89"),
        ("deferred", "start=160 must lie within the epochs, from 1 to 89"),
        ("class_aware per_class=2", " is none of instance, .* did you mean class_aware"),
        ("", " is none of instance, "),
    ],
)
def test_a_wrong_option_is_refused_by_key_before_anything_is_drawn(text, message):
    with pytest.raises(ConfigError, match=f"balance.plan={re.escape(text)}.*{message}"):
        check_sampler(text, key="balance.plan", num_epochs=90)


def test_options_at_the_ends_of_their_ranges_are_taken():
    for text in ("weighted:power=0", "weighted:power=1e+1", "effective_number:beta=0"):
        check_sampler(text, key="balance.plan")
    check_sampler("deferred:start=1", key="features.plan", num_epochs=2)
    check_sampler("deferred", key="features.plan", num_epochs=161)


def test_a_run_too_short_for_its_deferred_plan_has_no_plan():
    with pytest.raises(ConfigError, match="plan=deferred: start=160 must lie within"):
        plan_of(index_of([4, 4]), "deferred", num_epochs=160)


def test_a_stage_refuses_a_plan_of_two_images_a_row():
    with pytest.raises(ConfigError, match=r"features.plan=instance\+reversed draws 2 images a row"):
        check_sampler("instance+reversed", key="features.plan")
    with pytest.raises(ConfigError, match=r"instance\+reversd: reversd is none of .* reversed\?"):
        check_sampler("instance+reversd", key="features.plan")
