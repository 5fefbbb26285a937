"""What every method is to the loop that trains it, and what it is made of."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fastssd.config import ModelConfig
from fastssd.core.counter_rng import key_of
from fastssd.core.schema import Chosen
from fastssd.errors import ConfigError
from fastssd.methods.batch import Batch, Moment, Output
from fastssd.methods.options import MethodOptions
from fastssd.models.backbones import Backbone, build_backbone
from fastssd.models.heads import build_head
from fastssd.models.networks import BalancedNetwork
from fastssd.models.seeding import seeded


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a method builds its networks from.

    Attributes:
        seed: The run's.
        order: Of the stage's draws; initial weights depend on it and on the seed.
        num_classes: C.
        counts: (C,) training images of each class.
        model: The network.
        sources: Trained methods by role, on the CPU or the device.
        weights: Heads of the sources by role, where the stage names one.
        batchnorm: Where frozen networks take BatchNorm's statistics from.
        reads: Where a frozen network's answers come from: `images`, or a table of `logits`,
            `features` or `topk`.
    """

    seed: int
    order: str
    num_classes: int
    counts: NDArray[np.int64]
    model: ModelConfig
    sources: Mapping[str, "Method"] = field(default_factory=dict)
    batchnorm: str = "frozen"
    reads: str = "images"

    def backbone(self) -> Backbone:
        """Return a backbone with random weights of this stage's own."""
        try:
            return build_backbone(self.model.backbone, seed=key_of(self.seed, self.order))
        except ConfigError as error:
            raise ConfigError(f"model.backbone: {error}") from error

    def head(self, width: int, part: str = "", choice: Chosen | None = None) -> nn.Module:
        """Return a classifier with random weights.

        Args:
            width: Of the feature.
            part: Which of the stage's heads; its weights depend on it.
            choice: Its kind; the recipe's `model.head` if None.
        """
        kind = self.model.head if choice is None else choice.kind
        options = None if choice is None else choice.options
        with seeded(self.seed, f"{self.order}/{part}" if part else self.order):
            return build_head(kind, width, self.num_classes, options)


class Method(nn.Module, ABC):
    """One stage's training: which weights learn, under which loss, and what it predicts.

    `forward` is the only method that runs inside DistributedDataParallel; everything else is
    called on the unwrapped module.

    Args:
        options: Of the class's `Options`.
        parts: What its networks are made of.

    Attributes:
        heads: Names of the heads that it predicts with.
    """

    Options: ClassVar[type[MethodOptions]]
    rotates: ClassVar[bool] = False
    heads: tuple[str, ...]

    def __init__(self, options: Any, parts: Parts) -> None:  # noqa: ANN401 of the class's own
        super().__init__()
        self.options = options
        self.heads = options.heads

    @abstractmethod
    def forward(self, batch: Batch, at: Moment) -> Output:
        """Return the loss terms of a micro-batch and which of its images were got right."""

    @abstractmethod
    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """Return (B, C) logits by head name, for evaluation."""

    def balanced(self, head: str, *, batchnorm: str) -> BalancedNetwork:
        """Return the network of a head as others stand on it: frozen, with what re-balances it.

        Args:
            head: One of `heads`.
            batchnorm: Where it takes BatchNorm's statistics from.
        """
        raise TypeError(f"{type(self).__name__} is no network that another stage can stand on")

    def after_step(self, at: Moment) -> None:
        """Update state that no gradient reaches; called once per optimizer step."""

    @property
    def wants_rotated(self) -> bool:
        """Whether its images are also wanted turned."""
        return False
