"""What every method has in common that makes a new classifier without training."""

from typing import Any, ClassVar

import torch
from torch import nn

from fastssd.core.class_frequency import Int64
from fastssd.methods.posthoc.features import FeatureSet

Sweep = dict[str, Any]
"""What was tried and chosen, as JSON."""


class Posthoc:
    """Makes a classifier of features from a trained one, in one pass and without an optimizer.

    Args:
        options: Of the class's `Options`.
    """

    Options: ClassVar[type]

    needs_train: ClassVar[bool] = False
    """Whether it reads the features of the training split, under the test transform."""

    def __init__(self, options: Any) -> None:  # noqa: ANN401 of the class's own type
        self.options = options

    @property
    def wants_validation(self) -> bool:
        """Whether it chooses something on the validation split, if there is one."""
        return False

    def fit(
        self,
        train: FeatureSet | None,
        head: nn.Module,
        counts: Int64,
        validation: FeatureSet | None,
    ) -> tuple[nn.Module, Sweep]:
        """Return the new classifier.

        Args:
            train: Features of the training split; may be None unless `needs_train`.
            head: The trained classifier, (B, D) features to (B, C) logits; not changed.
            counts: (C,) int64, training images of each class.
            validation: Features of the split to choose on; None where there is none. Looked at
                only if `wants_validation`.

        Returns:
            A module of features to float32 logits, on the device of `head` and in eval mode, whose
            state dict is all that evaluation needs; and what was tried, as JSON.

        Raises:
            ConfigError: If the method can't work on such a head.
        """
        raise NotImplementedError

    def rebuild(self, head: nn.Module, width: int, num_classes: int) -> nn.Module:
        """Return a module that a fitted one's state dict can be loaded into.

        Args:
            head: A classifier built like the trained one; its weights do not matter.
            width: D.
            num_classes: C.
        """
        raise NotImplementedError


def device_of(head: nn.Module) -> torch.device:
    """Return the device that a classifier's weights are on; the CPU for one without any."""
    tensor = next(iter(head.state_dict().values()), None)
    return torch.device("cpu") if tensor is None else tensor.device
