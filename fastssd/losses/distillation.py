"""The soft labels of a teacher as a loss.

Shape letters: B images in the batch, C classes, K classes whose logits are kept.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class TopLogits(NamedTuple):
    """The K largest logits of a teacher, and what they leave to the other classes.

    The soft labels are softmax(logits / T) times the kept mass for the K classes; the others
    share the rest equally.

    Attributes:
        ids: (B, K) classes, of any integer type, each once in a row.
        logits: (B, K) their logits, of any floating-point type.
        rest: (B,) mass of the other C - K classes at temperature T, in [0, 1]; unused if K = C.
    """

    ids: Tensor
    logits: Tensor
    rest: Tensor


def distillation_loss(student_BC: Tensor, teacher_BC: Tensor, *, temperature: float) -> Tensor:
    """Cross-entropy of the softened student against the softened teacher.

    Args:
        student_BC: Logits of the soft head, any floating-point type; computed in float32.
        teacher_BC: Logits of the balanced teacher. Never receives gradient.
        temperature: T of the paper's equation 3, above 0; the paper uses 2.

    Returns:
        float32 scalar, mean over the batch, in nats, scaled by T^2 so that its gradient keeps the
        size of the hard-label loss when T changes.

    Raises:
        ValueError: If the two tensors differ in shape or the temperature is not positive.

    Source:
        SSD paper, equations 3 and 4. Its code uses the KL divergence, which differs by the
        teacher's entropy and has the same gradient.
    """
    if student_BC.ndim != 2 or student_BC.shape != teacher_BC.shape:
        raise ValueError(
            f"the student's logits {tuple(student_BC.shape)} and the teacher's "
            f"{tuple(teacher_BC.shape)} must both be (batch, classes)"
        )
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be positive")
    soft_labels = F.softmax(teacher_BC.detach().float() / temperature, dim=1)
    return temperature**2 * F.cross_entropy(student_BC.float() / temperature, soft_labels)


def top_distillation_loss(student_BC: Tensor, teacher: TopLogits, *, temperature: float) -> Tensor:
    """Cross-entropy of the softened student against the soft labels that top logits stand for.

    The teacher never becomes a (B, C) tensor: with z the student's logits / T, q the labels of the
    kept classes and u the label of each other class, the loss of an image is

        T^2 (logsumexp(z) - sum_kept (q - u) z - u sum_all z).

    With K = C it is `distillation_loss`, to the last bit.

    Args:
        student_BC: Logits of the soft head, any floating-point type; computed in float32.
        teacher: Its mass of the rest is that of this temperature. Never receives gradient.
        temperature: T of the paper's equation 3, above 0.

    Returns:
        float32 scalar, mean over the batch, in nats, scaled by T^2.

    Raises:
        ValueError: If shapes do not fit or the temperature is not positive.
    """
    _check_top(student_BC, teacher)
    num_classes, num_kept = student_BC.shape[1], teacher.ids.shape[1]
    ids_BK = teacher.ids.long()
    if num_kept == num_classes:
        dense_BC = torch.empty_like(teacher.logits).scatter_(1, ids_BK, teacher.logits)
        return distillation_loss(student_BC, dense_BC, temperature=temperature)
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be positive")
    rest_B = teacher.rest.detach().float()
    soft_BK = F.softmax(teacher.logits.detach().float() / temperature, dim=1)
    other_B = rest_B / (num_classes - num_kept)
    excess_BK = (1 - rest_B)[:, None] * soft_BK - other_B[:, None]
    loss: Tensor = _TopCrossEntropy.apply(
        student_BC.float(), ids_BK, excess_BK, other_B, temperature
    )
    return loss


class _TopCrossEntropy(torch.autograd.Function):
    """The loss with its gradient T (softmax(z) - labels) / B, made in the same passes.

    What autograd makes of the formula needs three gradients of (B, C), and with 8,142 classes more
    time than the dense loss.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 PyTorch's own
        student_BC: Tensor,
        ids_BK: Tensor,
        excess_BK: Tensor,
        other_B: Tensor,
        temperature: float,
    ) -> Tensor:
        log_soft_BC = F.log_softmax(student_BC / temperature, dim=1)
        agreement_B = (excess_BK * log_soft_BC.gather(1, ids_BK)).sum(dim=1)
        agreement_B += other_B * log_soft_BC.sum(dim=1)
        if ctx.needs_input_grad[0]:
            gradient_BC = log_soft_BC.exp_().sub_(other_B[:, None])
            gradient_BC.scatter_add_(1, ids_BK, -excess_BK)
            ctx.save_for_backward(gradient_BC)
            ctx.factor = temperature / len(student_BC)
        return -(temperature**2) * agreement_B.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (gradient_BC,) = ctx.saved_tensors
        return gradient_BC * (gradient * ctx.factor), None, None, None, None


def _check_top(student_BC: Tensor, teacher: TopLogits) -> None:
    shapes = tuple(tuple(values.shape) for values in teacher)
    if student_BC.ndim != 2 or teacher.ids.ndim != 2:
        raise ValueError(f"a student of {tuple(student_BC.shape)} and top logits of {shapes}")
    (batch, num_classes), num_kept = student_BC.shape, teacher.ids.shape[1]
    wanted = ((batch, num_kept), (batch, num_kept), (batch,))
    if shapes != wanted or not 1 <= num_kept <= num_classes:
        raise ValueError(
            f"top logits of shapes {shapes} for a student of {batch} images and {num_classes} "
            "classes: ids and logits must be (batch, kept), the rest (batch,)"
        )
