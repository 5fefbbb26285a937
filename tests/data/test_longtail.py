import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastssd.data.longtail import class_counts, hold_out, select

# Published by LDAM's construction for CIFAR-100 and CIFAR-10.
TOTALS = [
    (100, 500.0, 10, 19_573),
    (100, 500.0, 20, 15_907),
    (100, 500.0, 50, 12_608),
    (100, 500.0, 100, 10_847),
    (100, 500.0, 200, 9_502),
    (10, 5000.0, 10, 20_431),
    (10, 5000.0, 50, 13_996),
    (10, 5000.0, 100, 12_406),
    (10, 5000.0, 200, 11_203),
]
# First 16 hex digits of the SHA-256 of the chosen positions within each class, as little-endian
# int32, class after class, seed 0.
DIGESTS = [
    (100, 10_847, "2f421d63fdc8f7e5"),
    (50, 12_608, "057d546842016943"),
    (10, 19_573, "bfcd8e97aec64e16"),
]


@pytest.fixture
def cifar100_labels():
    return np.random.default_rng(5).permutation(np.repeat(np.arange(100), 500))


def positions_within_classes(labels, rows):
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        where = np.flatnonzero(labels == label)
        rank[where] = np.arange(len(where))
    return rank[rows]


@pytest.mark.parametrize(("num_classes", "max_images", "imbalance", "total"), TOTALS)
def test_the_counts_add_up_to_the_published_totals(num_classes, max_images, imbalance, total):
    counts = class_counts(num_classes, max_images, imbalance)

    assert counts.sum() == total
    assert counts[0] == max_images
    assert counts[-1] == int(max_images / imbalance)


def test_the_counts_of_cifar100_at_100_are_the_published_ones():
    counts = class_counts(100, 500.0, 100)

    assert counts[:12].tolist() == [500, 477, 455, 434, 415, 396, 378, 361, 344, 328, 314, 299]
    assert counts[48:54].tolist() == [53, 51, 48, 46, 44, 42]
    assert counts[-8:].tolist() == [6, 6, 6, 6, 5, 5, 5, 5]


def test_a_step_halves_the_classes():
    assert class_counts(5, 100.5, 8, "step").tolist() == [100, 100, 12, 12, 12]


def test_one_class_keeps_everything():
    assert class_counts(1, 7.0, 10).tolist() == [7]


@pytest.mark.parametrize(("imbalance", "kind"), [(0.5, "exp"), (10, "linear")])
def test_an_impossible_imbalance_is_refused(imbalance, kind):
    with pytest.raises(ValueError, match="imbalance"):
        class_counts(10, 100, imbalance, kind)


@pytest.mark.parametrize(("imbalance", "total", "digest"), DIGESTS)
def test_seed_0_chooses_the_published_subset(cifar100_labels, imbalance, total, digest):
    rows = select(cifar100_labels, class_counts(100, 500.0, imbalance), seed=0)

    positions = positions_within_classes(cifar100_labels, rows).astype("<i4")
    assert len(rows) == total
    assert positions[:5].tolist() == [90, 254, 283, 445, 461]
    assert hashlib.sha256(positions.tobytes()).hexdigest()[:16] == digest


def test_the_choice_leaves_the_global_generator_alone(cifar100_labels):
    np.random.seed(3)
    expected = np.random.random(4)
    np.random.seed(3)

    select(cifar100_labels, class_counts(100, 500.0, 10), seed=0)

    assert np.array_equal(np.random.random(4), expected)


def test_another_seed_chooses_other_images(cifar100_labels):
    counts = class_counts(100, 500.0, 10)
    chosen = [set(select(cifar100_labels, counts, seed=seed)) for seed in (0, 1)]
    assert chosen[0] != chosen[1]


def test_a_class_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="class 1 has 2 images"):
        select(np.array([0, 0, 0, 1, 1]), np.array([3, 3]))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 5), st.data())
def test_every_chosen_row_is_of_its_class_and_chosen_once(labels, seed, data):
    labels = np.array(labels)
    available = np.bincount(labels, minlength=4)
    counts = np.array([data.draw(st.integers(0, int(n))) for n in available])

    rows = select(labels, counts, seed)

    assert len(set(rows)) == len(rows)
    assert np.array_equal(labels[rows], np.repeat(np.arange(4), counts))


@given(st.integers(1, 4), st.integers(0, 9))
def test_holding_out_takes_the_same_number_of_each_class_and_loses_none(per_class, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat([0, 1, 2], [7, 9, 14]))
    rows = np.flatnonzero(np.arange(len(labels)) % 15 != 14)  # some rows are already gone

    held, rest = hold_out(
        labels, rows, per_class=per_class, num_classes=3, random=np.random.default_rng(seed)
    )

    assert np.bincount(labels[held], minlength=3).tolist() == [per_class] * 3
    assert sorted([*held, *rest]) == rows.tolist()


def test_holding_out_a_whole_class_is_refused():
    labels = np.array([0, 0, 0, 1, 1])
    with pytest.raises(ValueError, match="class 1 has 2 images"):
        hold_out(labels, np.arange(5), per_class=2, num_classes=2, random=np.random.default_rng(0))
