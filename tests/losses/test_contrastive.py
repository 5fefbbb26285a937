import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.losses.contrastive import contrastive_loss


def unit_vectors(num, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(num, dim, generator=generator), dim=1)


def equation_2(queries, keys, queue, temperature, labels=None, queue_labels=None):
    """Return InfoNCE and which queries rank their key first, by plain sums of exponentials."""
    losses, hits = [], []
    for i, (query, key) in enumerate(zip(queries, keys, strict=True)):

        def similarity(other, query=query):
            return sum(a * b for a, b in zip(query, other, strict=True)) / temperature

        negatives = [
            similarity(each)
            for k, each in enumerate(queue)
            if labels is None or queue_labels[k] == -1 or queue_labels[k] != labels[i]
        ]
        positive = similarity(key)
        total = math.exp(positive) + sum(math.exp(each) for each in negatives)
        losses.append(-math.log(math.exp(positive) / total))
        hits.append(all(positive > each for each in negatives))
    return sum(losses) / len(losses), hits


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    batch=st.integers(1, 5),
    num_keys=st.integers(1, 30),
    temperature=st.floats(0.1, 2),
    masked=st.booleans(),
)
def test_it_is_equation_2_of_the_paper(seed, batch, num_keys, temperature, masked):
    generator = torch.Generator().manual_seed(seed)
    vectors = [unit_vectors(n, 4, seed + i) for i, n in enumerate((batch, batch, num_keys))]
    labels = queue_labels = None
    if masked:
        labels = torch.randint(0, 3, (batch,), generator=generator)
        queue_labels = torch.randint(-1, 3, (num_keys,), generator=generator)

    result = contrastive_loss(
        *vectors, temperature=temperature, labels_B=labels, queue_labels_K=queue_labels
    )

    loss, hits = equation_2(
        *(each.tolist() for each in vectors),
        temperature,
        labels.tolist() if masked else None,
        queue_labels.tolist() if masked else None,
    )
    assert result.loss.item() == pytest.approx(loss, rel=1e-5, abs=1e-5)
    assert result.hit.tolist() == hits


def test_a_masked_key_neither_counts_nor_pulls_nor_hides_a_hit():
    query = torch.tensor([[1.0, 0.0]], requires_grad=True)
    key = torch.tensor([[0.6, 0.8]])
    queue = torch.tensor([[1.0, 0.0], [0.0, -1.0]])

    seen = contrastive_loss(query, key, queue, temperature=0.2)
    masked = contrastive_loss(
        query, key, queue, temperature=0.2,
        labels_B=torch.tensor([5]), queue_labels_K=torch.tensor([5, 6]),
    )  # fmt: skip
    alone = contrastive_loss(query, key, queue[1:], temperature=0.2)

    assert not seen.hit.item()
    assert masked.hit.item()
    torch.testing.assert_close(masked.loss, alone.loss)
    torch.testing.assert_close(
        torch.autograd.grad(masked.loss, query), torch.autograd.grad(alone.loss, query)
    )


def test_a_slot_without_label_is_never_masked():
    vectors = unit_vectors(2, 4, 0), unit_vectors(2, 4, 1), unit_vectors(3, 4, 2)

    masked = contrastive_loss(
        *vectors, temperature=0.2,
        labels_B=torch.tensor([-1, 0]), queue_labels_K=torch.tensor([-1, -1, -1]),
    )  # fmt: skip

    assert torch.equal(masked.loss, contrastive_loss(*vectors, temperature=0.2).loss)


def test_a_query_with_every_key_masked_has_loss_zero_and_no_gradient():
    query = unit_vectors(2, 4, 0).requires_grad_()

    result = contrastive_loss(
        query, unit_vectors(2, 4, 1), unit_vectors(3, 4, 2), temperature=0.2,
        labels_B=torch.tensor([1, 1]), queue_labels_K=torch.tensor([1, 1, 1]),
    )  # fmt: skip
    result.loss.backward()

    assert result.loss.item() == 0
    assert result.hit.all()
    assert query.grad.eq(0).all()


def test_only_the_query_gets_gradient():
    query, key, queue = (unit_vectors(n, 4, n).requires_grad_() for n in (2, 2, 3))
    with torch.no_grad():
        key = key[[1, 0]].requires_grad_()

    result = contrastive_loss(query, key, queue, temperature=0.2)
    result.loss.backward()

    assert query.grad.any()
    assert key.grad is None
    assert queue.grad is None
    assert not result.hit.requires_grad


def test_the_gradient_is_that_of_the_formula():
    query, key, queue = (unit_vectors(n, 4, i) for i, n in enumerate((3, 3, 9)))
    leaf = query.clone().requires_grad_()
    contrastive_loss(leaf, key, queue, temperature=0.3).loss.backward()

    # d loss / d q = (softmax-weighted mean of all keys - own key) / T, over the batch.
    for i in range(3):
        candidates = torch.cat([key[i : i + 1], queue]).double()
        weights = torch.softmax(candidates @ query[i].double() / 0.3, dim=0)
        expected = (weights @ candidates - candidates[0]) / 0.3 / 3
        torch.testing.assert_close(leaf.grad[i].double(), expected, rtol=1e-5, atol=1e-6)


def test_a_collapsed_encoder_finds_no_key():
    same = F.normalize(torch.ones(4, 8), dim=1)

    result = contrastive_loss(same, same, same, temperature=0.2)

    assert not result.hit.any()
    assert result.loss.item() == pytest.approx(math.log(5), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.2, 0.05])
def test_half_precision_neither_overflows_nor_rounds_the_sum_over_the_queue(temperature):
    # A sum of 20,000 times exp(1 / 0.05) is 1e13; float16 ends at 65,504.
    query = torch.tensor([[1.0, 0.0]]).half()
    queue = query.expand(20_000, 2)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive_loss(query, query, queue, temperature=temperature).loss

    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(20_001), rel=1e-6)


def test_autocast_does_not_touch_the_similarities():
    vectors = unit_vectors(4, 16, 0), unit_vectors(4, 16, 1), unit_vectors(50, 16, 2)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive_loss(*vectors, temperature=0.1).loss

    assert torch.equal(loss, contrastive_loss(*vectors, temperature=0.1).loss)


@pytest.mark.parametrize(
    ("query", "key", "queue"),
    [
        ((4, 3), (1, 3), (5, 3)),
        ((4, 3), (4, 3), (5, 2)),
        ((4, 3), (4, 3), (3,)),
        ((3,), (3,), (5, 3)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(query, key, queue):
    with pytest.raises(ValueError, match="width"):
        contrastive_loss(torch.ones(query), torch.ones(key), torch.ones(queue), temperature=1)


def test_one_of_the_labels_alone_is_refused():
    with pytest.raises(ValueError, match="needs the labels of the batch and of the queue"):
        contrastive_loss(
            torch.ones(2, 3), torch.ones(2, 3), torch.ones(4, 3),
            temperature=1, labels_B=torch.zeros(2),
        )  # fmt: skip


@pytest.mark.parametrize(("labels", "queue_labels"), [((1,), (4,)), ((2,), (1,)), ((2, 1), (4,))])
def test_labels_that_would_broadcast_are_refused(labels, queue_labels):
    with pytest.raises(ValueError, match="2 queries and 4 keys"):
        contrastive_loss(
            torch.ones(2, 3), torch.ones(2, 3), torch.ones(4, 3), temperature=1,
            labels_B=torch.zeros(labels), queue_labels_K=torch.zeros(queue_labels),
        )  # fmt: skip


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"temperature=0\.0"):
        contrastive_loss(torch.ones(2, 3), torch.ones(2, 3), torch.ones(4, 3), temperature=0.0)
