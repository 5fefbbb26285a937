import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.losses.distillation import TopLogits, distillation_loss, top_distillation_loss


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def equation_4(student, teacher, temperature):
    """Return -T^2 sum_i y_i log softmax(z / T)_i, y = softmax(teacher / T): mean over the batch."""
    total = 0.0
    for z_student, z_teacher in zip(student, teacher, strict=True):
        soft = [math.exp(z / temperature) for z in z_teacher]
        normaliser = math.log(sum(math.exp(z / temperature) for z in z_student))
        total -= sum(
            y / sum(soft) * (z / temperature - normaliser)
            for y, z in zip(soft, z_student, strict=True)
        )
    return temperature**2 * total / len(student)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    batch=st.integers(1, 5),
    classes=st.integers(1, 20),
    temperature=st.floats(0.5, 8),
)
def test_it_is_equation_4_of_the_paper(seed, batch, classes, temperature):
    student, teacher = 3 * randn(2, batch, classes, seed=seed)

    loss = distillation_loss(student, teacher, temperature=temperature)

    expected = equation_4(student.tolist(), teacher.tolist(), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_it_has_the_gradient_of_the_reference_codes_divergence():
    student, teacher = randn(2, 6, 5).double()
    T = 2.0

    def gradient(loss_of):
        leaf = student.clone().requires_grad_()
        return torch.autograd.grad(loss_of(leaf), leaf)[0]

    ours = gradient(lambda z: distillation_loss(z, teacher, temperature=T))
    divergence = gradient(
        lambda z: (
            T**2
            * F.kl_div(
                F.log_softmax(z / T, dim=1), F.softmax(teacher / T, dim=1), reduction="batchmean"
            )
        )
    )

    torch.testing.assert_close(ours, divergence, rtol=1e-5, atol=1e-7)


def test_the_teacher_gets_no_gradient():
    student, teacher = randn(2, 6, 5).requires_grad_().unbind()
    student.retain_grad()
    teacher.retain_grad()

    distillation_loss(student, teacher, temperature=2).backward()

    assert student.grad.any()
    assert teacher.grad is None or not teacher.grad.any()


def test_half_precision_rows_of_a_table_lose_nothing_more():
    student, teacher = (10 * randn(2, 4, 8142)).half()

    loss = distillation_loss(student, teacher, temperature=2)

    assert loss.dtype == torch.float32
    expected = equation_4(student.tolist(), teacher.tolist(), 2)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("teacher", [(4, 1), (1, 3), (3,), (4, 3, 1)])
def test_shapes_that_would_broadcast_are_refused(teacher):
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        distillation_loss(torch.zeros(4, 3), torch.zeros(teacher), temperature=2)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        distillation_loss(torch.zeros(4, 3), torch.zeros(4, 3), temperature=temperature)


def top_of(teacher, k, temperature, *, shuffled=False):
    """Return a teacher's k largest logits, and its soft labels as they stand for them, float64."""
    soft = F.softmax(teacher.double() / temperature, dim=1)
    ids = teacher.topk(k, dim=1).indices
    if not shuffled:
        ids = ids.sort(dim=1).values
    rest = 1 - soft.gather(1, ids).sum(dim=1)
    labels = (rest / max(teacher.shape[1] - k, 1))[:, None].expand_as(soft).clone()
    labels.scatter_(1, ids, soft.gather(1, ids))
    return TopLogits(ids.to(torch.uint16), teacher.gather(1, ids), rest.float()), labels


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    batch=st.integers(1, 5),
    classes=st.integers(2, 20),
    temperature=st.floats(0.5, 8),
    data=st.data(),
)
def test_top_logits_are_the_soft_labels_in_which_the_others_share_the_rest(
    seed, batch, classes, temperature, data
):
    k = data.draw(st.integers(1, classes))
    student, teacher = 3 * randn(2, batch, classes, seed=seed)
    top, labels = top_of(teacher, k, temperature, shuffled=True)
    leaf = student.double().requires_grad_()
    expected = temperature**2 * F.cross_entropy(leaf / temperature, labels)
    (gradient,) = torch.autograd.grad(expected, leaf)

    ours = student.clone().requires_grad_()
    loss = top_distillation_loss(ours, top, temperature=temperature)
    loss.backward()

    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-5)
    torch.testing.assert_close(ours.grad.double(), gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shuffled", [False, True])
def test_top_logits_of_all_classes_are_the_dense_loss_to_the_last_bit(dtype, shuffled):
    student, teacher = 3 * randn(2, 7, 30)
    teacher = teacher.to(dtype)
    ids = teacher.float().topk(30, dim=1).indices if shuffled else torch.arange(30).repeat(7, 1)
    top = TopLogits(ids.to(torch.uint16), teacher.gather(1, ids), torch.zeros(7))
    gradients, losses = [], []
    for loss_of, given_teacher in ((distillation_loss, teacher), (top_distillation_loss, top)):
        leaf = student.clone().requires_grad_()
        losses.append(loss_of(leaf, given_teacher, temperature=2))
        losses[-1].backward()
        gradients.append(leaf.grad)
    assert torch.equal(*losses)
    assert torch.equal(*gradients)


def test_thousands_of_classes_lose_no_precision():
    student, teacher = 5 * randn(2, 16, 8142)
    top, labels = top_of(teacher, 84, 2.0)
    expected = 4 * F.cross_entropy(student.double() / 2, labels)
    loss = top_distillation_loss(student, top, temperature=2)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_no_gradient_reaches_top_logits():
    student = randn(3, 6).requires_grad_()
    logits, rest = randn(3, 2).requires_grad_(), torch.full((3,), 0.1).requires_grad_()
    ids = torch.tensor([[0, 5]] * 3)
    top_distillation_loss(student, TopLogits(ids, logits, rest), temperature=2).backward()
    assert student.grad.any()
    assert logits.grad is None
    assert rest.grad is None


@pytest.mark.parametrize(
    ("ids", "logits", "rest"),
    [((4, 2), (4, 1), (4,)), ((4, 2), (4, 2), (4, 1)), ((3, 2), (3, 2), (3,)), ((4, 4),) * 3],
)
def test_top_logits_of_other_shapes_are_refused(ids, logits, rest):
    top = TopLogits(torch.zeros(ids, dtype=torch.int64), torch.zeros(logits), torch.zeros(rest))
    with pytest.raises(ValueError, match="top logits"):
        top_distillation_loss(torch.zeros(4, 3), top, temperature=2)


@pytest.mark.parametrize("k", [1, 3])
def test_top_logits_need_a_positive_temperature(k):
    top = TopLogits(torch.arange(k).repeat(4, 1), torch.zeros(4, k), torch.zeros(4))
    with pytest.raises(ValueError, match="temperature"):
        top_distillation_loss(torch.zeros(4, 3), top, temperature=0.0)
