"""A backbone and a classifier under one loss of the labels, with or without another task."""

import torch
from torch import Tensor

from fastssd.losses.registry import CLASS_WEIGHTS, LOSSES
from fastssd.methods.batch import Batch, Moment, Output
from fastssd.methods.method import Method, Parts
from fastssd.methods.options import TASKS, SupervisedOptions
from fastssd.models.heads import cosine_scale
from fastssd.models.networks import BalancedNetwork, FrozenNetwork


class Supervised(Method):
    """CE, stage I of SSD, and every method that is a loss, class weights or a head.

    Source:
        The paper's equation 1: alpha_1 = 1 times the supervised loss, plus the task's.
    """

    Options = SupervisedOptions

    def __init__(self, options: SupervisedOptions, parts: Parts) -> None:
        super().__init__(options, parts)
        self.backbone = parts.backbone()
        self.classifier = parts.head(self.backbone.width, choice=options.head)
        self.task = TASKS[options.task.kind](options.task.options, self.backbone, seed=parts.seed)
        self.loss = LOSSES[options.loss.kind](
            options.loss.options, parts.counts, scale=cosine_scale(self.classifier)
        )
        self._class_weights = CLASS_WEIGHTS[options.class_weights.kind](
            options.class_weights.options
        )
        weights = self._class_weights.weights(parts.counts)
        self.weights_C: Tensor | None
        self.register_buffer(
            "weights_C",
            None if weights is None else torch.from_numpy(weights),
            persistent=False,
        )

    @property
    def wants_rotated(self) -> bool:
        return bool(self.task.rotates)

    def forward(self, batch: Batch, at: Moment) -> Output:
        feature, output = self.task(self.backbone, batch)
        logits = self.classifier(feature)
        weights = self.weights_C if self._class_weights.active(at.epoch, at.epochs) else None
        return Output(
            losses={
                "classification": self.loss(logits, batch.labels, weights),
                **output.losses,
            },
            correct={
                "classification": logits.argmax(dim=1) == batch.labels,
                **output.correct,
            },
        )

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        return {"classifier": self.classifier(self.backbone(images))}

    def balanced(self, head: str, *, batchnorm: str) -> BalancedNetwork:
        frozen = FrozenNetwork(self.backbone, self.classifier, batchnorm=batchnorm)
        return BalancedNetwork(frozen)

    def after_step(self, at: Moment) -> None:
        self.task.after_step(self.backbone)
