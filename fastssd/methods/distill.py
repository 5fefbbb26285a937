"""Stage III: a fresh network under hard labels on one head and soft labels on the other."""

import torch
from torch import Tensor, nn

from fastssd.config import DistillConfig
from fastssd.losses.classification import classification_loss
from fastssd.losses.distillation import distillation_loss, top_distillation_loss
from fastssd.methods.batch import Batch, StageOutput
from fastssd.methods.method import Stage
from fastssd.models.backbone import Backbone
from fastssd.models.networks import BalancedNetwork


class DistillStage(Stage):
    """Self-distillation from the balanced teacher of stage II.

    Args:
        backbone: Trained.
        hard: Trained head, under the labels.
        soft: Trained head, under the teacher.
        teacher: Frozen; with a table only its scales, and its classifier for features, are used.
        config: Weights and temperature.
    """

    heads = ("hard", "soft")

    def __init__(
        self,
        backbone: Backbone,
        hard: nn.Module,
        soft: nn.Module,
        *,
        teacher: BalancedNetwork,
        config: DistillConfig,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.hard = hard
        self.soft = soft
        self.teacher = teacher.requires_grad_(False)
        self.config = config

    def forward(self, batch: Batch) -> StageOutput:
        feature = self.backbone(batch.query)
        hard_logits, soft_logits = self.hard(feature), self.soft(feature)
        hard_loss = classification_loss(hard_logits, batch.labels)
        soft_loss = self._soft_loss(soft_logits, batch)
        return StageOutput(
            losses={
                "classification": self.config.hard_weight * hard_loss,
                "distillation": self.config.soft_weight * soft_loss,
            },
            hits={
                "classification": hard_logits.argmax(dim=1) == batch.labels,
                "distillation": soft_logits.argmax(dim=1) == batch.labels,
            },
        )

    def _soft_loss(self, soft_logits: Tensor, batch: Batch) -> Tensor:
        temperature = self.config.temperature
        if batch.soft_labels is not None:
            return top_distillation_loss(soft_logits, batch.soft_labels, temperature=temperature)
        with torch.no_grad():
            teacher_logits = self.teacher(batch.query, batch.frozen_logits, batch.frozen_features)
        return distillation_loss(soft_logits, teacher_logits, temperature=temperature)

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        feature = self.backbone(images)
        return {"hard": self.hard(feature), "soft": self.soft(feature)}
