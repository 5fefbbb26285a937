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

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return (B, D) float32 features."""
        features: Tensor = self.backbone(images)
        return features.float()


class BalancedNetwork(nn.Module):
    """A frozen network whose classifier's per-class scales are learned (LWS).

    Args:
        frozen: None where what it says always comes from a table.
        num_classes: C.
        head: The frozen classifier, where a table holds features and `frozen` is None.
    """

    def __init__(
        self, frozen: FrozenNetwork | None, num_classes: int, *, head: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.frozen = frozen
        self.head = head
        self.scale = ClassScale(num_classes)

    def forward(
        self,
        images: Tensor | None,
        frozen_logits: Tensor | None,
        frozen_features: Tensor | None = None,
    ) -> Tensor:
        """Return (B, C) logits, float32 or better.

        Args:
            images: The frozen network is asked about them where no table says what it said.
            frozen_logits: (B, C) of any floating-point type, from a table.
            frozen_features: (B, D) of any floating-point type, from a table.

        Raises:
            ValueError: If the part of the frozen network that is needed is not here.
        """
        if frozen_logits is None:
            if frozen_features is not None:
                frozen_logits = self._classified(frozen_features)
            elif self.frozen is not None:
                frozen_logits = self.frozen(images)
            else:
                raise ValueError("without its frozen network this one needs a table's logits")
        scaled: Tensor = self.scale(frozen_logits.float())
        return scaled

    @torch.no_grad()
    def _classified(self, features: Tensor) -> Tensor:
        head = self.head if self.frozen is None else self.frozen.head
        if head is None:
            raise ValueError("a table's features need the frozen classifier")
        logits: Tensor = head(features.float())
        return logits
