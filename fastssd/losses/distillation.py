"""The soft labels of a teacher as a loss.

Shape letters: B images in the batch, C classes.
"""

import torch.nn.functional as F
from torch import Tensor


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
