"""The losses that a stage may name."""

from fastssd.losses.classification import CrossEntropy
from fastssd.losses.ldam import Ldam
from fastssd.losses.loss import Loss
from fastssd.losses.prior_adjusted import BalancedSoftmax, LogitAdjustment

LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropy,
    "ldam": Ldam,
    "balanced_softmax": BalancedSoftmax,
    "logit_adjustment": LogitAdjustment,
}
