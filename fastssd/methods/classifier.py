"""Stages II and IV: the classifier's per-class scales, under class-balanced sampling."""

from torch import Tensor

from fastssd.losses.classification import classification_loss
from fastssd.methods.batch import Batch, StageOutput
from fastssd.methods.method import Stage
from fastssd.models.networks import BalancedNetwork


class BalanceStage(Stage):
    """Learnable weight scaling (LWS) on a frozen network, from its table or from images.

    Args:
        network: Only its scales learn.
        head: What the report calls the head whose logits are scaled.
    """

    def __init__(self, network: BalancedNetwork, *, head: str) -> None:
        super().__init__()
        self.network = network
        self.heads = (head,)

    def forward(self, batch: Batch) -> StageOutput:
        images = None if batch.views is None else batch.query
        logits = self.network(images, batch.frozen_logits, batch.frozen_features)
        return StageOutput(
            losses={"classification": classification_loss(logits, batch.labels)},
            hits={"classification": logits.argmax(dim=1) == batch.labels},
        )

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        return {self.heads[0]: self.network(images, None)}
