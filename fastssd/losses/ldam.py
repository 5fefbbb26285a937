"""Label-distribution-aware margins: the rarer a class, the further its images must be inside it.

Shape letters: B images in the batch, C classes.
"""

import numpy as np
import torch
from torch import Tensor

from fastssd.core.class_frequency import Float64, Int64
from fastssd.errors import ConfigError
from fastssd.losses.classification import classification_loss
from fastssd.losses.loss import Loss
from fastssd.losses.options import LdamOptions


def ldam_margins(counts: Int64, max_margin: float) -> Float64:
    """Return m_c = max_margin * (n_c / min n)**(-1/4), so that the rarest class has max_margin.

    Args:
        counts: (C,) training images of each class. A class of none has max_margin, as the rarest
            of the others has; no training label is of that class, so that it is never used.
        max_margin: A difference of cosines.
    """
    rarest = counts[counts > 0].min()
    margins: Float64 = max_margin * (np.maximum(counts, rarest) / rarest) ** -0.25
    return margins


class Ldam(Loss):
    """Cross-entropy after a margin is taken from the label's logit: z_y - scale * m_y.

    The margin is one of cosines. The head has multiplied them by its scale already, so that the
    scaled margin is subtracted; z - s m_y is s (cos - m_y).

    Args:
        options: The largest margin.
        counts: (C,) int64, training images of each class.
        scale: What the head multiplies its cosines by; 30 as published.

    Raises:
        ConfigError: If the head's logits are no fixed multiple of cosines.

    Source:
        Cao et al., "Learning imbalanced datasets with label-distribution-aware margin loss"
        (NeurIPS 2019), equation 13; LDAM-DRW:losses.py. RIDE multiplies by the scale in its model,
        as here.
    """

    Options = LdamOptions

    _scaled_margins: Tensor
    _classes: Tensor

    def __init__(self, options: LdamOptions, counts: Int64, *, scale: float | None = None) -> None:
        super().__init__(options, counts, scale=scale)
        if scale is None:
            raise ConfigError(
                "loss ldam subtracts a margin from a cosine, and this head's logits are no fixed "
                "multiple of cosines: set head: {kind: cosine, scale: 30}, with learnable_scale "
                "false"
            )
        self._keep("_scaled_margins", scale * ldam_margins(self.counts, options.max_margin))
        self.register_buffer("_classes", torch.arange(len(self.counts)), persistent=False)

    def forward(
        self, logits_BC: Tensor, labels_B: Tensor, class_weights_C: Tensor | None = None
    ) -> Tensor:
        # Not scatter: on an accelerator it is not deterministic for every kind of argument.
        of_label_BC = labels_B[:, None] == self._classes
        margin_B = self._scaled_margins[labels_B]
        shifted_BC = logits_BC.float() - margin_B[:, None] * of_label_BC
        return classification_loss(shifted_BC, labels_B, class_weights_C)
