"""What a recipe may say of each loss. Known without PyTorch, so that a config prints at once."""

import math
from dataclasses import dataclass

from fastssd.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CrossEntropyOptions:
    """Cross-entropy has no options."""


@dataclass(frozen=True, kw_only=True)
class LdamOptions:
    """Of the label-distribution-aware margin loss."""

    max_margin: float = 0.5
    """Margin of the rarest class, a difference of cosines. Its author has 0.5 for CIFAR and 0.3
    for iNaturalist (kaidic/LDAM-DRW#2); 0 is cross-entropy."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_margin <= 2:
            raise ConfigError(
                f"max_margin={self.max_margin} must be from 0 (plain cross-entropy) to 2: no two "
                "cosines are further apart; 0.5 is the published value"
            )


@dataclass(frozen=True, kw_only=True)
class BalancedSoftmaxOptions:
    """Balanced softmax has no options; `logit_adjustment` is the same with a strength."""


@dataclass(frozen=True, kw_only=True)
class LogitAdjustmentOptions:
    """Of the logit-adjusted loss."""

    tau: float = 1.0
    """What the log prior is multiplied by: 0 is cross-entropy, 1 the published value."""

    def __post_init__(self) -> None:
        if not 0 <= self.tau < math.inf:
            raise ConfigError(
                f"tau={self.tau} must be a number of at least 0: 0 is cross-entropy, 1 the "
                "published value"
            )
