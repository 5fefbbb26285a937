"""Rotation: telling by which of four angles an image was turned."""

from torch import Tensor

from fastssd.losses.classification import classification_loss
from fastssd.methods.batch import Batch, Output
from fastssd.methods.options import RotationOptions
from fastssd.methods.tasks.joining import joined
from fastssd.methods.tasks.task import Task
from fastssd.models.backbone import Backbone
from fastssd.models.heads import RotationHead
from fastssd.models.seeding import seeded


class Rotation(Task):
    """The angle of turned copies, beside cross-entropy on upright images.

    The paper forwards "original and rotated" images and leaves open whether BatchNorm sees them
    as one batch: `joint` or `separate` (docs/decisions/0006).
    """

    Options = RotationOptions
    rotates = True

    def __init__(self, options: RotationOptions, backbone: Backbone, *, seed: int) -> None:
        super().__init__(options, backbone, seed=seed)
        with seeded(seed, "rotation head"):
            self.rotation = RotationHead(backbone.width)

    def forward(self, backbone: Backbone, batch: Batch) -> tuple[Tensor, Output]:
        views = batch.views
        if views is None or views.rotated is None or views.turns is None:
            raise ValueError("the rotation task needs an augmentation with rotate=True")
        if self.options.forward == "joint":
            both = backbone(joined(views.query, views.rotated))
            feature, rotated_feature = both.chunk(2)
        else:
            feature, rotated_feature = backbone(views.query), backbone(views.rotated)
        angle_logits = self.rotation(rotated_feature)
        loss = classification_loss(angle_logits, views.turns)
        return feature, Output(
            losses={"rotation": self.options.weight * loss},
            correct={"rotation": angle_logits.argmax(dim=1) == views.turns},
        )
