"""Stage I: a backbone and classifier under cross-entropy and one self-supervised task."""

import torch
from torch import Tensor, nn

from fastssd.config import FeaturesConfig
from fastssd.core import collectives
from fastssd.losses.classification import classification_loss
from fastssd.losses.contrastive import contrastive_loss
from fastssd.methods.batch import Batch, StageOutput
from fastssd.methods.joining import joined
from fastssd.methods.method import Stage
from fastssd.models.backbone import Backbone
from fastssd.models.heads import ProjectionHead, RotationHead
from fastssd.models.momentum import KeyQueue, MomentumEncoder
from fastssd.models.seeding import seeded


class FeatureStage(Stage):
    """Cross-entropy alone: the CE baseline, and what the self-supervised stages add to.

    Args:
        backbone: Trained.
        classifier: Trained, on the backbone's feature.
    """

    heads = ("classifier",)

    def __init__(self, backbone: Backbone, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier

    def forward(self, batch: Batch) -> StageOutput:
        return self.classified(self.backbone(batch.query), batch.labels)

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        return {"classifier": self.classifier(self.backbone(images))}

    def classified(self, feature: Tensor, labels: Tensor) -> StageOutput:
        """Return the supervised half of the paper's equation 1."""
        logits = self.classifier(feature)
        return StageOutput(
            losses={"classification": classification_loss(logits, labels)},
            hits={"classification": logits.argmax(dim=1) == labels},
        )


class RotationStage(FeatureStage):
    """Cross-entropy on upright images, and the angle of their turned copies.

    The paper forwards "original and rotated" images and leaves open whether BatchNorm sees them
    as one batch: `joint` or `separate` (docs/decisions/0006).
    """

    def __init__(
        self, backbone: Backbone, classifier: nn.Module, *, config: FeaturesConfig, seed: int
    ) -> None:
        super().__init__(backbone, classifier)
        self.joint = config.forward == "joint"
        self.task_weight = config.task_weight
        with seeded(seed, "rotation head"):
            self.rotation = RotationHead(backbone.width)

    def forward(self, batch: Batch) -> StageOutput:
        views = batch.views
        if views is None or views.rotated is None or views.turns is None:
            raise ValueError("the rotation task needs an augmentation with rotate=True")
        if self.joint:
            both = self.backbone(joined(views.query, views.rotated))
            feature, rotated_feature = both.chunk(2)
        else:
            feature, rotated_feature = self.backbone(views.query), self.backbone(views.rotated)
        output = self.classified(feature, batch.labels)
        angle_logits = self.rotation(rotated_feature)
        loss = classification_loss(angle_logits, views.turns)
        output.losses["rotation"] = self.task_weight * loss
        output.hits["rotation"] = angle_logits.argmax(dim=1) == views.turns
        return output


class InstanceStage(FeatureStage):
    """Cross-entropy on the query, and finding the query's key among those of other images."""

    def __init__(
        self, backbone: Backbone, classifier: nn.Module, *, config: FeaturesConfig, seed: int
    ) -> None:
        super().__init__(backbone, classifier)
        self.task_weight = config.task_weight
        self.temperature = config.temperature
        self.mask_same_class = config.mask_same_class
        self.shuffle_keys = config.shuffle_keys
        with seeded(seed, "projection head"):
            self.projection = ProjectionHead(backbone.width, dim=config.embedding)
        self.encoder = MomentumEncoder(
            self.backbone, self.projection, momentum=config.encoder_momentum
        )
        self.queue = KeyQueue(config.queue, config.embedding, seed)
        self._new_keys: list[tuple[Tensor, Tensor]] = []

    def forward(self, batch: Batch) -> StageOutput:
        if batch.views is None or batch.views.key is None:
            raise ValueError("instance discrimination needs an augmentation with a key")
        feature = self.backbone(batch.query)
        output = self.classified(feature, batch.labels)
        keys = self._encode(batch.views.key)
        result = contrastive_loss(
            self.projection(feature),
            keys,
            self.queue.keys,
            temperature=self.temperature,
            labels_B=batch.labels if self.mask_same_class else None,
            queue_labels_K=self.queue.labels if self.mask_same_class else None,
        )
        output.losses["instance"] = self.task_weight * result.loss
        output.hits["instance"] = result.hit
        # Enqueued only after the step: the backward pass still needs the queue as it is.
        self._new_keys.append((collectives.gathered(keys), collectives.gathered(batch.labels)))
        return output

    def after_step(self) -> None:
        self.encoder.update(self.backbone, self.projection)
        for keys, labels in self._new_keys:
            self.queue.enqueue(keys, labels)
        self._new_keys.clear()

    @torch.no_grad()
    def _encode(self, images: Tensor) -> Tensor:
        """Return the images' keys, encoded by other processes than the queries where asked for."""
        if not self.shuffle_keys or collectives.num_processes() == 1:
            alone: Tensor = self.encoder(images)
            return alone
        order = collectives.shared_permutation(
            len(images) * collectives.num_processes(), self.queue.pointer
        )
        mine = collectives.own_share(collectives.gathered(images)[order])
        keys: Tensor = collectives.gathered(self.encoder(mine))
        return collectives.own_share(keys[order.argsort()])


def build_feature_stage(
    backbone: Backbone, classifier: nn.Module, *, task: str, config: FeaturesConfig, seed: int
) -> FeatureStage:
    """Return the stage of a self-supervised task: a new one is a class here and a line below."""
    if task == "none":
        return FeatureStage(backbone, classifier)
    kinds = {"rotation": RotationStage, "instance": InstanceStage}
    return kinds[task](backbone, classifier, config=config, seed=seed)
