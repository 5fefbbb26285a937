"""Losses that know how frequent each class is, so that the logits need not learn it.

The logits are evaluated as they are, without the prior.

Shape letters: B images in the batch, C classes.
"""

from torch import Tensor

from fastssd.core.class_frequency import Float64, Int64, log_prior
from fastssd.losses.classification import classification_loss
from fastssd.losses.loss import Loss
from fastssd.losses.options import BalancedSoftmaxOptions, LogitAdjustmentOptions


class _PriorAdjusted(Loss):
    """Cross-entropy of the logits plus a constant of each class."""

    _shift: Tensor

    def _shift_by(self, shift_C: Float64) -> None:
        self._keep("_shift", shift_C)

    def forward(
        self, logits_BC: Tensor, labels_B: Tensor, class_weights_C: Tensor | None = None
    ) -> Tensor:
        return classification_loss(logits_BC.float() + self._shift, labels_B, class_weights_C)


class BalancedSoftmax(_PriorAdjusted):
    """Cross-entropy of z + log n_c.

    It is computed with log(n_c / N), which differs by a constant that softmax does not see. A class
    without training images counts as one of a single image, so that its logit is pushed down.

    Source:
        Ren et al., "Balanced meta-softmax for long-tailed visual recognition" (NeurIPS 2020),
        equation 3.
    """

    Options = BalancedSoftmaxOptions

    def __init__(
        self, options: BalancedSoftmaxOptions, counts: Int64, *, scale: float | None = None
    ) -> None:
        super().__init__(options, counts, scale=scale)
        self._shift_by(log_prior(self.counts))


class LogitAdjustment(_PriorAdjusted):
    """Cross-entropy of z + tau * log(n_c / N): balanced softmax with a strength.

    A class without training images counts as one of a single image, so that its logit is pushed
    down.

    Source:
        Menon et al., "Long-tail learning via logit adjustment" (ICLR 2021), equation 10. Its code
        adds 1e-12 to the prior to the power of tau.
    """

    Options = LogitAdjustmentOptions

    def __init__(
        self, options: LogitAdjustmentOptions, counts: Int64, *, scale: float | None = None
    ) -> None:
        super().__init__(options, counts, scale=scale)
        self._shift_by(options.tau * log_prior(self.counts))
