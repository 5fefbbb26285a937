"""What every stage is to the trainer."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from fastssd.methods.batch import Batch, StageOutput


class Stage(nn.Module, ABC):
    """One stage: which weights learn, under which loss, and what it predicts.

    `forward` is the only method that runs inside DistributedDataParallel; everything else is
    called on the unwrapped stage.

    Attributes:
        heads: Names of the heads that it predicts with.
    """

    heads: tuple[str, ...]

    @abstractmethod
    def forward(self, batch: Batch) -> StageOutput:
        """Return the loss terms of a micro-batch and which of its images were got right."""

    @abstractmethod
    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """Return (B, C) logits by head name, for evaluation."""

    def after_step(self) -> None:
        """Update state that no gradient reaches; called once per optimizer step."""
