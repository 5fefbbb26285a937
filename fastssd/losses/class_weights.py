"""What an image of each class weighs in a loss, from the start or from a later epoch on (DRW).

Known without PyTorch.

Shape letters: C classes.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastssd.core.class_frequency import (
    Float64,
    Int64,
    checked_counts,
    effective_number,
    inverse_power,
)
from fastssd.core.epoch_share import check_share, epoch_of_share
from fastssd.errors import ConfigError

Float32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class NoWeightsOptions:
    """All classes weigh the same."""


@dataclass(frozen=True, kw_only=True)
class TimedOptions:
    """From when class weights hold."""

    from_: float = 0.0
    """`from` in YAML: the share of the stage's epochs that pass before the weights hold, in
    [0, 1); 0: from the start. LDAM-DRW's epoch 160 of 200 (0-based) is 0.8."""

    def __post_init__(self) -> None:
        check_share("from", self.from_)


@dataclass(frozen=True, kw_only=True)
class EffectiveNumberOptions(TimedOptions):
    """Of weights by the effective number of images."""

    beta: float = 0.9999
    """From 0, all the same, to below 1, near which weights are 1 / n_c. LDAM-DRW and RIDE have
    0.9999, BBN 0.999999, M2m 0.999."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta < 1:
            raise ConfigError(
                f"beta={self.beta} must be at least 0 and below 1: 0 weighs all classes the same, "
                "0.9999 is the usual value"
            )


@dataclass(frozen=True, kw_only=True)
class InversePowerOptions(TimedOptions):
    """Of weights by a power of the number of images."""

    power: float = 1.0
    """0 weighs all classes the same, 1 is the inverse frequency, 0.5 its square root."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.power <= 10:
            raise ConfigError(
                f"power={self.power} must be from 0 (all classes the same) to 10: 1 is the inverse "
                "frequency"
            )


class ClassWeights:
    """What an image of each class weighs, and when.

    Args:
        options: Of the class's `Options`.
    """

    Options: ClassVar[type]

    def __init__(self, options: Any) -> None:  # noqa: ANN401 of the class's own type
        self.options = options

    def weights(self, counts: Int64) -> Float32 | None:
        """Return the weights, scaled to the sum C; None where all are the same.

        Args:
            counts: (C,) int64, training images of each class. A class of none weighs 0, and the
                others share C: no training label is of that class.

        Raises:
            ValueError: If the counts are no counts.
        """
        counts = checked_counts(counts)
        raw = self._raw(counts)
        scaled: Float32 = (raw * (len(counts) / raw.sum())).astype(np.float32)
        return scaled

    def first_epoch(self, epochs: int) -> int:
        """Return the 0-based epoch from which the weights hold.

        Args:
            epochs: Of the stage. Call it before training: it refuses what would never hold.

        Raises:
            ConfigError: If the weights would hold in no epoch, or in all although `from` is not 0.
        """
        return epoch_of_share("from", self.options.from_, epochs)

    def active(self, epoch: int, epochs: int) -> bool:
        """Return whether the weights hold in an epoch.

        Args:
            epoch: 0-based.
            epochs: Of the stage.

        Raises:
            ConfigError: As `first_epoch`.
        """
        return epoch >= self.first_epoch(epochs)

    def _raw(self, counts: Int64) -> Float64:
        """Return the weights up to a common factor."""
        raise NotImplementedError


class NoWeights(ClassWeights):
    """All classes weigh the same, always."""

    Options = NoWeightsOptions

    def weights(self, counts: Int64) -> Float32 | None:
        return None

    def first_epoch(self, epochs: int) -> int:
        return 0

    def active(self, epoch: int, epochs: int) -> bool:
        return False


class EffectiveNumber(ClassWeights):
    """Weights (1 - beta) / (1 - beta**n_c).

    Source:
        Cui et al., "Class-balanced loss based on effective number of samples" (CVPR 2019). From a
        late epoch on they are LDAM-DRW's deferred re-weighting; CE-DRW of the SSD paper is BBN's,
        with beta 0.999999 from epoch 160 of 200.
    """

    Options = EffectiveNumberOptions

    def _raw(self, counts: Int64) -> Float64:
        return effective_number(counts, self.options.beta)


class InversePower(ClassWeights):
    """Weights n_c**-power.

    Source:
        The DRW of BagofTricks-LT (power 1); GLMC:main.py.
    """

    Options = InversePowerOptions

    def _raw(self, counts: Int64) -> Float64:
        return inverse_power(counts, self.options.power)
