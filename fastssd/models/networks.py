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
    """A frozen network with what re-balances its classifier: scales (LWS), new weights (cRT).

    Args:
        frozen: None where what it says always comes from a table.
        scale: One a class, on the logits; None: they stay as they are.
        classifier: On the frozen features, in place of the frozen classifier.
        head: The frozen classifier, where a table holds features and `frozen` is None.
    """

    def __init__(
        self,
        frozen: FrozenNetwork | None,
        *,
        scale: ClassScale | None = None,
        classifier: nn.Module | None = None,
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.frozen = frozen
        self.head = head
        self.classifier = classifier
        self.scale = scale

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
        if self.classifier is not None:
            features = self._features(images, frozen_features)
            logits: Tensor = self.classifier(features.float()).float()
        else:
            logits = self._frozen_logits(images, frozen_logits, frozen_features).float()
        if self.scale is None:
            return logits
        scaled: Tensor = self.scale(logits)
        return scaled

    def folded(self) -> FrozenNetwork:
        """Return the network frozen as a whole, what re-balances it made part of its classifier.

        Raises:
            ValueError: If the frozen network is not here.
        """
        if self.frozen is None:
            raise ValueError("without its frozen network this one is no network of its own")
        if self.scale is None and self.classifier is None:
            return self.frozen
        head = self.frozen.head if self.classifier is None else self.classifier
        if self.scale is not None:
            head = nn.Sequential(head, self.scale)
        return FrozenNetwork(self.frozen.backbone, head, batchnorm=self.frozen.batchnorm)

    def for_table(self, holds: str) -> "BalancedNetwork":
        """Return what is left to do where a table holds the network's answers.

        Nothing, where those of a `topk` table are the balanced network's own.

        Args:
            holds: `logits`, `features` or `topk`.
        """
        if self.frozen is None:
            return self
        head = self.frozen.head if holds == "features" and self.classifier is None else None
        return BalancedNetwork(None, scale=self.scale, classifier=self.classifier, head=head)

    def frozen_whole(self) -> Self:
        """Let nothing of it learn, and return it."""
        return self.requires_grad_(False)

    def _features(self, images: Tensor | None, frozen_features: Tensor | None) -> Tensor:
        if frozen_features is not None:
            return frozen_features
        if self.frozen is None or images is None:
            raise ValueError("without its frozen network this one needs a table's features")
        return self.frozen.features(images)

    def _frozen_logits(
        self, images: Tensor | None, logits: Tensor | None, features: Tensor | None
    ) -> Tensor:
        if logits is not None:
            return logits
        if features is not None:
            return self._classified(features)
        if self.frozen is None:
            raise ValueError("without its frozen network this one needs a table's logits")
        asked: Tensor = self.frozen(images)
        return asked

    @torch.no_grad()
    def _classified(self, features: Tensor) -> Tensor:
        head = self.head if self.frozen is None else self.frozen.head
        if head is None:
            raise ValueError("a table's features need the frozen classifier")
        logits: Tensor = head(features.float())
        return logits
