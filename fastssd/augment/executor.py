"""What turns decoded bytes into finished images, as every executor offers it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from fastssd.augment.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Task:
    """What an executor does to every batch.

    Attributes:
        recipe: Of one role; its crop has been cut before.
        scale: Three numbers by which the channels, in [0, 1], are multiplied at the end.
        shift: Three numbers that are added after.
        device: Where the images are.
    """

    recipe: Recipe
    scale: Sequence[float]
    shift: Sequence[float]
    device: torch.device


class Executor(Protocol):
    """Finishes the images of one role on one device. Keeps nothing between batches but constants.

    Args:
        task: What to do.

    Raises:
        UnavailableError: If it cannot work here.
    """

    name: ClassVar[str]
    """What a person reads."""

    def __init__(self, task: Task) -> None: ...

    def finish(
        self, images: Tensor, parameters: Mapping[str, Tensor], turns: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return finished images and, where turns are given, the same images turned.

        Args:
            images: (B, S, S, 3) uint8. Left as they are.
            parameters: Those of `parameters.operation_parameters`, on the images' device.
            turns: (B,) int64 quarter turns counter-clockwise, 0 to 3, if any are wanted.

        Returns:
            (B, 3, S, S) float32, normalised, channels last in memory; once or twice.
        """


class UnavailableError(Exception):
    """An executor cannot work here; the message says why."""
