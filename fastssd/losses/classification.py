"""Cross-entropy with the given labels; also the loss of the rotation task, over its four angles.

Shape letters: B images in the batch, C classes.
"""

import torch.nn.functional as F
from torch import Tensor


def classification_loss(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy of the labels under softmax(logits).

    Args:
        logits_BC: Any floating-point type; computed in float32.
        labels_B: int64, in [0, C).

    Returns:
        float32 scalar, mean over the batch, in nats.

    Raises:
        ValueError: If there is not one label for each row of logits.
    """
    if logits_BC.ndim != 2 or labels_B.shape != logits_BC.shape[:1]:
        raise ValueError(
            f"logits of shape {tuple(logits_BC.shape)} need labels of shape (batch,), "
            f"not {tuple(labels_B.shape)}"
        )
    return F.cross_entropy(logits_BC.float(), labels_B)
