"""A fresh network that learns from labels on one head and from a teacher on another, or on both."""

import torch
from torch import Tensor, nn

from fastssd.losses.classification import classification_loss
from fastssd.losses.distillation import distillation_loss, top_distillation_loss
from fastssd.methods.batch import Batch, Moment, Output
from fastssd.methods.method import Method, Parts
from fastssd.methods.options import LABELS, TEACHER, DistillOptions
from fastssd.models.networks import BalancedNetwork, FrozenNetwork


class Distill(Method):
    """Stage III of SSD: self-distillation from a teacher of the same shape.

    From a table the teacher is only what re-balances the frozen answers; from images it is the
    whole network, asked about the student's own crops.

    Source:
        The paper's equations 3 and 4.
    """

    Options = DistillOptions

    def __init__(self, options: DistillOptions, parts: Parts) -> None:
        super().__init__(options, parts)
        self.backbone = parts.backbone()
        self.classifiers = nn.ModuleDict(
            {head: parts.head(self.backbone.width, head) for head in options.heads}
        )
        teacher = parts.sources["teacher"]
        whole = teacher.balanced(teacher.heads[0], batchnorm=parts.batchnorm)
        self.teacher = (
            whole if parts.reads == "images" else whole.for_table(parts.reads)
        ).frozen_whole()

    def forward(self, batch: Batch, at: Moment) -> Output:
        feature = self.backbone(batch.images)
        losses: dict[str, Tensor] = {}
        correct: dict[str, Tensor] = {}
        logits = {head: classifier(feature) for head, classifier in self.classifiers.items()}
        for head, logits_BC in logits.items():
            for target in self.options.targets(head):
                name = _LOSS_NAMES[target]
                loss = (
                    self.options.label_weight * classification_loss(logits_BC, batch.labels)
                    if target == LABELS
                    else self.options.teacher_weight * self._distillation(logits_BC, batch)
                )
                losses[name] = losses[name] + loss if name in losses else loss
                correct[name] = logits_BC.argmax(dim=1) == batch.labels
        return Output(losses=losses, correct=correct)

    def _distillation(self, logits: Tensor, batch: Batch) -> Tensor:
        temperature = self.options.temperature
        if batch.soft_labels is not None:
            return top_distillation_loss(logits, batch.soft_labels, temperature=temperature)
        with torch.no_grad():
            teacher_logits = self.teacher(batch.images, batch.frozen_logits, batch.frozen_features)
        return distillation_loss(logits, teacher_logits, temperature=temperature)

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        feature = self.backbone(images)
        return {head: classifier(feature) for head, classifier in self.classifiers.items()}

    def balanced(self, head: str, *, batchnorm: str) -> BalancedNetwork:
        frozen = FrozenNetwork(self.backbone, self.classifiers[head], batchnorm=batchnorm)
        return BalancedNetwork(frozen)


_LOSS_NAMES = {LABELS: "classification", TEACHER: "distillation"}
