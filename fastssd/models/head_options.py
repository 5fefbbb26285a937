"""What a recipe may say of each classifier. Known without PyTorch."""

import math
from dataclasses import dataclass
from typing import Literal

from fastssd.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LinearOptions:
    """A linear classifier has no options."""


@dataclass(frozen=True, kw_only=True)
class CosineOptions:
    """Of a classifier by angles."""

    scale: float = 16.0
    """What cosines are multiplied by, the largest logit possible: OLTR's 16; LDAM and RIDE have
    30."""
    learnable_scale: bool = False
    """Whether the scale is trained with the weights; losses with a margin need it fixed."""
    init: Literal["normal", "unit"] = "normal"
    """Length of the weight vectors at first: `normal` about sqrt(width), `unit` 1, as in LDAM and
    RIDE. Directions turn at a speed of rate / length^2, so that `unit` learns `width` times as
    fast at first."""

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ConfigError(
                f"scale={self.scale} must be a number above 0: 16 is OLTR's, 30 LDAM's"
            )
        if self.init not in ("normal", "unit"):
            raise ConfigError(f"init={self.init} must be normal or unit")
