"""Losses and class weights by the names that recipes use: a new one is a file and a line here."""

from typing import Any

from fastssd.core.registry import Registry

_OPTIONS = "fastssd.losses.options"
_WEIGHTS = "fastssd.losses.class_weights"

LOSSES: Registry[Any] = Registry(
    "loss",
    {
        "cross_entropy": (
            f"fastssd.losses.classification:CrossEntropy {_OPTIONS}:CrossEntropyOptions"
        ),
        "ldam": f"fastssd.losses.ldam:Ldam {_OPTIONS}:LdamOptions",
        "balanced_softmax": (
            f"fastssd.losses.prior_adjusted:BalancedSoftmax {_OPTIONS}:BalancedSoftmaxOptions"
        ),
        "logit_adjustment": (
            f"fastssd.losses.prior_adjusted:LogitAdjustment {_OPTIONS}:LogitAdjustmentOptions"
        ),
    },
    group="fastssd.losses",
)
"""Losses of logits and labels: `fastssd.losses.loss.Loss`."""

CLASS_WEIGHTS: Registry[Any] = Registry(
    "class weights",
    {
        "none": f"{_WEIGHTS}:NoWeights",
        "effective_number": f"{_WEIGHTS}:EffectiveNumber",
        "inverse_power": f"{_WEIGHTS}:InversePower",
    },
    group="fastssd.class_weights",
)
"""What an image of each class weighs in a loss: `fastssd.losses.class_weights.ClassWeights`."""
