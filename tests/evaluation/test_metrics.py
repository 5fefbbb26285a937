"""Against scikit-learn and plain loops."""

import numpy as np
import pytest
import torch
from host_waits import cuda_refuses_waits
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score

from fastssd.evaluation.metrics import (
    ClassCounter,
    GroupMeter,
    accuracies,
    class_accuracies,
    class_mean_standard_error,
    standard_error,
)

TRAIN_COUNTS = [500, 100, 99, 21, 20, 3]


def predictions(num_images, num_classes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_images, num_classes, generator=generator)
    labels = torch.randint(num_classes, (num_images,), generator=generator)
    return logits, labels


def test_accuracies_are_those_of_scikit_learn():
    logits, labels = predictions(600, 6, seed=0)
    counter = ClassCounter(6)

    counter.add(logits, labels)
    result = accuracies(counter.correct, counter.total, TRAIN_COUNTS)

    predicted = logits.argmax(1)
    recall = 100 * recall_score(labels, predicted, average=None)
    assert result["overall"] == pytest.approx(100 * accuracy_score(labels, predicted))
    assert result["class_mean"] == pytest.approx(100 * balanced_accuracy_score(labels, predicted))
    assert result["many"] == pytest.approx(recall[:2].mean())
    assert result["medium"] == pytest.approx(recall[2:4].mean())
    assert result["few"] == pytest.approx(recall[4:].mean())
    assert result["many_exclusive"] == pytest.approx(recall[:1].mean())
    assert result["medium_exclusive"] == pytest.approx(recall[1:5].mean())
    assert result["few_exclusive"] == pytest.approx(recall[5:].mean())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_counts_do_not_depend_on_the_batches_nor_on_padding(seed, batch_sizes):
    logits, labels = predictions(sum(batch_sizes), 5, seed)
    whole, padded = ClassCounter(5), ClassCounter(5)

    whole.add(logits, labels)
    for batch_logits, batch_labels in zip(
        logits.split(batch_sizes), labels.split(batch_sizes), strict=True
    ):
        # Padding here is a confident hit of class 0 and a label that does not exist.
        padding = torch.full((2, 5), -1.0)
        padding[:, 0] = 9.0
        padded.add(
            torch.cat([batch_logits, padding]),
            torch.cat([batch_labels, torch.tensor([0, -1])]),
            torch.arange(len(batch_labels) + 2) < len(batch_labels),
        )

    assert torch.equal(whole.total, torch.bincount(labels, minlength=5))
    assert torch.equal(padded.total, whole.total)
    assert torch.equal(padded.correct, whole.correct)


def test_an_image_with_nan_among_its_logits_is_wrong():
    logits = torch.tensor([[float("nan"), 1.0], [1.0, float("nan")], [2.0, 1.0]])
    counter = ClassCounter(2)

    counter.add(logits, torch.tensor([0, 1, 0]))

    assert counter.correct.tolist() == [1, 0]
    assert counter.total.tolist() == [2, 1]


def test_half_precision_logits_are_counted():
    logits, labels = predictions(64, 4, seed=1)
    counter, reference = ClassCounter(4), ClassCounter(4)

    counter.add(logits.half(), labels)
    reference.add(logits.half().float(), labels)

    assert torch.equal(counter.correct, reference.correct)


@pytest.mark.parametrize(
    ("logits", "labels", "valid"),
    [((4, 3), (4, 1), (4,)), ((4, 2), (4,), (4,)), ((4, 3), (4,), (1,)), ((1, 3), (4,), (4,))],
)
def test_shapes_that_would_broadcast_are_refused(logits, labels, valid):
    counter = ClassCounter(3)

    with pytest.raises(ValueError, match="must be"):
        counter.add(
            torch.zeros(logits),
            torch.zeros(labels, dtype=torch.int64),
            torch.ones(valid, dtype=torch.bool),
        )


def test_adding_never_reads_a_value_on_the_host():
    # Tensors on the meta device have no values: whatever asks for one fails.
    labels = torch.zeros(8, dtype=torch.int64, device="meta")
    flags = torch.ones(8, dtype=torch.bool, device="meta")

    ClassCounter(3, device="meta").add(torch.zeros(8, 3, device="meta"), labels, flags)
    GroupMeter([200, 50, 5], device="meta").add(flags, labels, flags)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_adding_does_not_wait_for_the_device():
    logits, labels = (tensor.cuda() for tensor in predictions(64, 3, seed=0))
    counter = ClassCounter(3, device="cuda")
    meter = GroupMeter([200, 50, 5], device="cuda")

    with cuda_refuses_waits():
        counter.add(logits, labels)
        meter.add(labels == 0, labels)

    assert counter.total.sum().item() == 64


def test_classes_that_were_not_tested_do_not_enter_their_group():
    result = accuracies([8, 0, 1, 0, 0, 0], [10, 0, 4, 0, 0, 0], TRAIN_COUNTS)

    assert result["overall"] == pytest.approx(100 * 9 / 14)
    assert result["class_mean"] == pytest.approx((80 + 25) / 2)
    assert result["many"] == pytest.approx(80.0)
    assert result["medium"] == pytest.approx(25.0)
    assert result["few"] is None


def test_a_group_without_classes_and_an_evaluation_without_images_are_none():
    assert accuracies([1, 1], [2, 2], [400, 300])["few"] is None
    assert set(accuracies([0, 0], [0, 0], [400, 3]).values()) == {None}
    assert standard_error([0, 0], [0, 0]) is None
    assert class_mean_standard_error([0, 0], [0, 0]) is None


def test_class_accuracies_are_nan_without_images():
    np.testing.assert_array_equal(class_accuracies([1, 0, 0], [4, 5, 0]), [25.0, 0.0, np.nan])


@pytest.mark.parametrize(
    ("correct", "total", "train_counts"),
    [([3], [2], [5]), ([-1], [2], [5]), ([1, 1], [2], [5]), ([1], [2], [5, 6]), ([0.5], [1], [5])],
)
def test_counts_that_cannot_be_are_refused(correct, total, train_counts):
    with pytest.raises(ValueError, match=r"correct|train_counts"):
        accuracies(correct, total, train_counts)


def test_the_standard_error_is_the_spread_over_many_test_sets():
    share, num_images = 0.3, 400
    hits = np.random.default_rng(0).binomial(num_images, share, size=20_000)

    error = standard_error([120], [num_images])

    # The spread of 20,000 repetitions is known to 0.5 percent of itself.
    assert error == pytest.approx((100 * hits / num_images).std(), rel=0.02)


def test_the_class_means_standard_error_is_the_spread_over_test_sets_of_the_same_classes():
    generator = np.random.default_rng(0)
    sizes = np.array([50, 20, 5, 2, 1, 1, 1, 1, 0])
    shares = np.array([0.9, 0.7, 0.5, 0.4, 0.6, 0.6, 0.6, 0.6, 0.9])

    hits = generator.binomial(sizes, shares, size=(8000, len(sizes)))
    means = (100 * hits[:, :-1] / sizes[:-1]).mean(axis=1)
    errors = np.array([class_mean_standard_error(row, sizes) for row in hits])

    # Its square is unbiased; the spread of 8,000 repetitions is known to 0.8 percent of itself.
    assert np.sqrt((errors**2).mean()) == pytest.approx(means.std(), rel=0.03)


@pytest.mark.parametrize(
    ("correct", "total", "error"),
    [
        ([8, 5], [10, 10], 50 * (0.16 / 9 + 0.25 / 9) ** 0.5),
        ([0, 1], [1, 1], 50 * (2 * 0.5) ** 0.5),  # their spread: a sample variance of 1/2 each
        ([5, 1, 0], [10, 1, 0], 50 * (0.25 / 9 + 0.25) ** 0.5),
        ([10, 10], [10, 10], 0.0),
    ],
)
def test_the_class_means_standard_error_worked_out_on_paper(correct, total, error):
    assert class_mean_standard_error(correct, total) == pytest.approx(error)


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 99))
def test_on_a_balanced_split_the_mean_class_is_the_overall_accuracy_to_the_bit(
    num_classes, images, seed
):
    correct = np.random.default_rng(seed).integers(0, images + 1, num_classes)
    total = np.full(num_classes, images)

    result = accuracies(correct, total, np.ones(num_classes, int))

    assert result["class_mean"] == result["overall"]


def test_the_meter_gives_shares_of_the_images_of_each_group():
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    hits = torch.tensor([1, 1, 0, 1, 0, 0, 0, 1], dtype=torch.bool)
    meter = GroupMeter([200, 50, 5])

    meter.add(hits[:5], labels[:5])
    meter.add(hits[5:], labels[5:])

    assert meter.flush() == {
        "overall": pytest.approx(50.0),
        "many": pytest.approx(200 / 3),
        "medium": pytest.approx(50.0),
        "few": pytest.approx(100 / 3),
    }


def test_a_flush_starts_a_new_window_and_unseen_groups_have_no_key():
    meter = GroupMeter([200, 50, 5])
    meter.add(torch.tensor([True]), torch.tensor([1]))

    assert meter.flush() == {"overall": 100.0, "medium": 100.0}
    assert meter.flush() == {}


def test_the_meter_sums_over_processes_and_skips_padding():
    meter = GroupMeter([200, 5])
    other = torch.tensor([[0, 0], [0, 0], [0, 3]])

    meter.add(torch.tensor([True, True]), torch.tensor([1, -1]), torch.tensor([True, False]))

    meter.sums += other
    assert meter.flush() == {"overall": 25.0, "few": 25.0}


def test_the_meter_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="must all be"):
        GroupMeter([1, 2]).add(torch.ones(3, dtype=torch.bool), torch.zeros(1, dtype=torch.int64))
