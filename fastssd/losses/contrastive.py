"""Instance discrimination: tell an image's other view from the views of other images.

Shape letters: B images in the batch, D width of an embedding, K keys in the queue.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class ContrastiveResult(NamedTuple):
    """What comparing queries with their keys gives.

    Attributes:
        loss: float32 scalar, mean over the batch, in nats.
        hit: (B,) bool, whether the query's own key is strictly nearer than every negative. No
            gradient.
    """

    loss: Tensor
    hit: Tensor


def contrastive_loss(
    query_BD: Tensor,
    key_BD: Tensor,
    queue_KD: Tensor,
    *,
    temperature: float,
    labels_B: Tensor | None = None,
    queue_labels_K: Tensor | None = None,
) -> ContrastiveResult:
    """InfoNCE of each query's own key among the keys of a queue.

    Computed in float32, also under autocast: exp(1 / 0.07) alone overflows float16, and sums over
    the queue do so from 1 / 0.2 on.

    Args:
        query_BD: Unit vectors of the trained encoder. Gradient flows here.
        key_BD: Unit vectors of the same images' other views. Never receives gradient.
        queue_KD: Unit vectors of other images, the negatives. Never receives gradient. Do not
            write to it before the backward pass.
        temperature: tau of the paper's equation 2, above 0.
        labels_B: If given with `queue_labels_K`, keys of a query's own class are no negatives of
            it (nor are its own image's old keys). The paper's text has no such mask, its code has.
        queue_labels_K: -1 for a key of unknown class, which is a negative of every query.

    Returns:
        The loss and which queries found their key. A query without negatives has loss 0.

    Raises:
        ValueError: If shapes do not fit, only one of the labels is given, or the temperature is
            not positive.

    Source:
        SSD paper, equation 2; van den Oord et al., arXiv:1807.03748.
    """
    _check(query_BD, key_BD, queue_KD, labels_B, queue_labels_K)
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be positive")
    with torch.autocast(query_BD.device.type, enabled=False):
        scaled_BD = query_BD.float() / temperature
        positive_B = (scaled_BD * key_BD.detach().float()).sum(dim=1)
        negative_BK = scaled_BD @ queue_KD.detach().float().T
        if labels_B is not None and queue_labels_K is not None:
            same_class_BK = (labels_B[:, None] == queue_labels_K) & (queue_labels_K >= 0)
            # Finite, for a query with every key masked: -inf everywhere gives NaN gradients.
            negative_BK = negative_BK.masked_fill_(same_class_BK, torch.finfo(torch.float32).min)
        total_B = torch.logaddexp(positive_B, negative_BK.logsumexp(dim=1))
        loss = (total_B - positive_B).mean()
    hit = positive_B.detach() > negative_BK.detach().amax(dim=1)
    return ContrastiveResult(loss, hit)


def _check(
    query_BD: Tensor,
    key_BD: Tensor,
    queue_KD: Tensor,
    labels_B: Tensor | None,
    queue_labels_K: Tensor | None,
) -> None:
    if query_BD.ndim != 2 or query_BD.shape != key_BD.shape:
        raise ValueError(
            f"queries {tuple(query_BD.shape)} and keys {tuple(key_BD.shape)} must both be "
            "(batch, width)"
        )
    if queue_KD.ndim != 2 or queue_KD.shape[1] != query_BD.shape[1]:
        raise ValueError(
            f"a queue of shape {tuple(queue_KD.shape)} holds no keys of width {query_BD.shape[1]}"
        )
    if (labels_B is None) != (queue_labels_K is None):
        raise ValueError("the same-class mask needs the labels of the batch and of the queue")
    if labels_B is not None and queue_labels_K is not None:
        labels = (tuple(labels_B.shape), tuple(queue_labels_K.shape))
        if labels != ((len(query_BD),), (len(queue_KD),)):
            raise ValueError(
                f"labels of shapes {labels[0]} and {labels[1]} for {len(query_BD)} queries and "
                f"{len(queue_KD)} keys"
            )
