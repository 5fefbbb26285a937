import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.losses.distillation import distillation_loss


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
