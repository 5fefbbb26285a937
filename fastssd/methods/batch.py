"""What a method gets and gives at every step."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from fastssd.augment.augmentation import AugmentedViews
from fastssd.data.draws import Draws
from fastssd.losses.distillation import TopLogits


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One process's share of a micro-batch of B draws, on the device.

    Attributes:
        draws: Which they are.
        labels: (B,) int64.
        views: The images; None where a stage learns from a table alone.
        frozen_logits: (B, C) of the frozen network, as its table holds them; None without one.
        frozen_features: (B, D) of the frozen network, from a table of features.
        soft_labels: Of the balanced teacher, from a table of its top logits.
        checksums: (B,) int64 of the pixels before augmentation; None unless traced.
    """

    draws: Draws
    labels: Tensor
    views: AugmentedViews | None = None
    frozen_logits: Tensor | None = None
    frozen_features: Tensor | None = None
    soft_labels: TopLogits | None = None
    checksums: Tensor | None = None

    @property
    def images(self) -> Tensor:
        """(B, 3, S, S) the images that the stage classifies."""
        if self.views is None:
            raise ValueError("this batch has no images: its stage learns from a table")
        return self.views.query


class Moment(NamedTuple):
    """Where in a stage's training a step is.

    Attributes:
        epoch: 0-based.
        epochs: Of the stage.
        step: 0-based, over all epochs.
        steps_per_epoch: Optimizer steps in an epoch.
    """

    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int


class Output(NamedTuple):
    """Named loss terms, scalars whose sum is minimised, and (B,) bool answers that were right."""

    losses: dict[str, Tensor]
    correct: dict[str, Tensor]
