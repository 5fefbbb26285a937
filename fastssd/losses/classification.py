"""Cross-entropy with the given labels; also the loss of the rotation task, over its four angles.

Shape letters: B images in the batch, C classes.
"""

import torch.nn.functional as F
from torch import Tensor

from fastssd.losses.loss import Loss
from fastssd.losses.options import CrossEntropyOptions


def classification_loss(
    logits_BC: Tensor, labels_B: Tensor, class_weights_C: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the labels under softmax(logits).

    Args:
        logits_BC: Any floating-point type; computed in float32.
        labels_B: int64, in [0, C).
        class_weights_C: What an image of each class weighs; all the same if omitted.

    Returns:
        float32 scalar, mean over the batch, in nats. With class weights it is PyTorch's weighted
        mean, sum(w_y * loss) / sum(w_y) over the batch, which no common factor of the weights
        changes; LDAM-DRW, RIDE and BBN have it so. Jamal et al. (CVPR 2020) and the focal loss of
        BagofTricks-LT divide by B instead.

    Raises:
        ValueError: If there is not one label for each row of logits, or not one weight a class.
    """
    if logits_BC.ndim != 2 or labels_B.shape != logits_BC.shape[:1]:
        raise ValueError(
            f"logits of shape {tuple(logits_BC.shape)} need labels of shape (batch,), "
            f"not {tuple(labels_B.shape)}"
        )
    if class_weights_C is None:
        return F.cross_entropy(logits_BC.float(), labels_B)
    if class_weights_C.shape != logits_BC.shape[1:]:
        raise ValueError(
            f"class weights of shape {tuple(class_weights_C.shape)} for {logits_BC.shape[1]} "
            "classes: there must be one a class"
        )
    return F.cross_entropy(logits_BC.float(), labels_B, weight=class_weights_C.float())


class CrossEntropy(Loss):
    """Cross-entropy. A class without training images is one that is never right."""

    Options = CrossEntropyOptions

    def forward(
        self, logits_BC: Tensor, labels_B: Tensor, class_weights_C: Tensor | None = None
    ) -> Tensor:
        return classification_loss(logits_BC, labels_B, class_weights_C)
