"""Networks as stages combine them: a backbone with its classifier, and a frozen one rebalanced."""

from typing import Self

import torch
from torch import Tensor, nn

from fastssd.models.backbone import Backbone
from fastssd.models.frozen import freeze, set_batchnorm_mode
from fastssd.models.heads import ClassScale


class FrozenNetwork(nn.Module):
    """A backbone and a classifier that learn no more; its logits are what tables hold.

    Args:
        backbone: Frozen here.
        head: Frozen here.
        batchnorm: One of `fastssd.models.frozen.BATCHNORM_MODES`.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, *, batchnorm: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.batchnorm = batchnorm
        freeze(self)

    def train(self, mode: bool = True) -> Self:
        """Stay frozen: only BatchNorm mode `batch` knows a difference."""
        self.training = mode
        for part in (self.backbone, self.head):
            set_batchnorm_mode(part, self.batchnorm if mode else "frozen")
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C) float32 logits."""
        logits: Tensor = self.head(self.backbone(images))
        return logits.float()


class BalancedNetwork(nn.Module):
    """A frozen network whose classifier's per-class scales are learned (LWS).

    Args:
        frozen: None where its logits always come from a table.
        num_classes: C.
    """

    def __init__(self, frozen: FrozenNetwork | None, num_classes: int) -> None:
        super().__init__()
        self.frozen = frozen
        self.scale = ClassScale(num_classes)

    def forward(self, images: Tensor | None, frozen_logits: Tensor | None) -> Tensor:
        """Return (B, C) logits, from the frozen network's where they are given."""
        if frozen_logits is None:
            if self.frozen is None:
                raise ValueError("without its frozen network this one needs a table's logits")
            frozen_logits = self.frozen(images)
        scaled: Tensor = self.scale(frozen_logits)
        return scaled
