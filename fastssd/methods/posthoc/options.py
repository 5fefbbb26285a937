"""What a recipe may say of each classifier that is made without training. Without PyTorch."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from fastssd.errors import ConfigError
from fastssd.methods.options import MethodOptions


@dataclass(frozen=True, kw_only=True)
class PosthocOptions(MethodOptions):
    """Of every classifier that is made of a trained one."""

    ROLES: ClassVar[tuple[str, ...]] = ("source",)
    TRAINS: ClassVar[bool] = False
    READS: ClassVar[tuple[str, ...]] = ()

    head: str = "classifier"
    """Head of the source, and the name of this stage's."""

    @property
    def heads(self) -> tuple[str, ...]:
        return (self.head,)

    @property
    def source_head(self) -> str | None:
        return self.head

    @property
    def stores(self) -> tuple[str, ...]:
        return ("features",)


@dataclass(frozen=True, kw_only=True)
class SweptOptions(PosthocOptions):
    """Of a method with a strength tau, given or chosen on the validation split."""

    tau: float | None = None
    """The strength. None: chosen from `sweep` on the validation split by the mean of the classes'
    accuracies, and 1 where there is no such split."""
    sweep: list[float] = field(default_factory=lambda: [0.0, 2.0, 21])
    """First and last value of tau to choose from, and how many, evenly spaced."""

    def __post_init__(self) -> None:
        if self.tau is not None and not 0 <= self.tau < math.inf:
            raise ConfigError(
                f"tau={self.tau} must be a number of at least 0, or null to choose it on the "
                "validation split: 0 changes no class's logits"
            )
        if len(self.sweep) != 3 or not 0 <= self.sweep[0] <= self.sweep[1] < math.inf:
            raise ConfigError(
                f"sweep={list(self.sweep)} must be the first tau (0 or more), the last and how "
                "many: [0, 2, 21]"
            )
        if self.sweep[2] != int(self.sweep[2]) or not 1 <= self.sweep[2] <= 1000:
            raise ConfigError(
                f"sweep={list(self.sweep)}: its third number, how many values to try, must be "
                "whole and from 1 to 1000"
            )

    @property
    def candidates(self) -> list[float]:
        """Every tau to choose from, smallest first."""
        first, last, how_many = self.sweep
        taus: list[float] = np.linspace(first, last, int(how_many)).tolist()
        return taus


@dataclass(frozen=True, kw_only=True)
class TauNormOptions(SweptOptions):
    """Of tau-normalisation: 0 keeps the weights as they are, 1 makes them equally long."""


@dataclass(frozen=True, kw_only=True)
class LaPosthocOptions(SweptOptions):
    """Of post-hoc logit adjustment: 0 keeps the logits, 1 takes the whole prior out of them."""

    tau: float | None = 1.0


@dataclass(frozen=True, kw_only=True)
class NcmOptions(PosthocOptions):
    """Of the nearest class mean."""

    READS_TRAIN: ClassVar[bool] = True

    features: Literal["un", "l2n", "cl2n"] = "cl2n"
    """What features are before their means are taken and distances measured: `un` as they are,
    `l2n` scaled to length 1, `cl2n` centred on the mean of all training images, then scaled."""
    metric: Literal["l2", "cos"] = "l2"
    """Nearest by Euclidean distance or by angle."""

    def __post_init__(self) -> None:
        if self.features not in ("un", "l2n", "cl2n"):
            raise ConfigError(f"features={self.features} must be un, l2n or cl2n")
        if self.metric not in ("l2", "cos"):
            raise ConfigError(f"metric={self.metric} must be l2 or cos")
