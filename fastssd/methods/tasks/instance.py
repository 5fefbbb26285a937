"""Instance discrimination: finding an image's other crop among those of other images (MoCo)."""

import torch
from torch import Tensor

from fastssd.core import collectives
from fastssd.losses.contrastive import contrastive_loss
from fastssd.methods.batch import Batch, Output
from fastssd.methods.options import InstanceOptions
from fastssd.methods.tasks.task import Task
from fastssd.models.backbone import Backbone
from fastssd.models.heads import ProjectionHead
from fastssd.models.momentum import KeyQueue, MomentumEncoder
from fastssd.models.seeding import seeded


class Instance(Task):
    """The query's key, encoded by a momentum encoder, among those of a queue of other images.

    Source:
        The paper's equation 2; MoCo v2 (arXiv:2003.04297).
    """

    Options = InstanceOptions

    def __init__(self, options: InstanceOptions, backbone: Backbone, *, seed: int) -> None:
        super().__init__(options, backbone, seed=seed)
        with seeded(seed, "projection head"):
            self.projection = ProjectionHead(backbone.width, dim=options.embedding)
        self.encoder = MomentumEncoder(backbone, self.projection, momentum=options.encoder_momentum)
        self.queue = KeyQueue(options.queue, options.embedding, seed)
        self._new_keys: list[tuple[Tensor, Tensor]] = []

    def forward(self, backbone: Backbone, batch: Batch) -> tuple[Tensor, Output]:
        if batch.views is None or batch.views.key is None:
            raise ValueError("instance discrimination needs an augmentation with a key")
        feature = backbone(batch.images)
        keys = self._encode(batch.views.key)
        masked = self.options.mask_same_class
        result = contrastive_loss(
            self.projection(feature),
            keys,
            self.queue.keys,
            temperature=self.options.temperature,
            labels_B=batch.labels if masked else None,
            queue_labels_K=self.queue.labels if masked else None,
        )
        # Enqueued only after the step: the backward pass still needs the queue as it is.
        self._new_keys.append((collectives.gathered(keys), collectives.gathered(batch.labels)))
        return feature, Output(
            losses={"instance": self.options.weight * result.loss},
            correct={"instance": result.hit},
        )

    def after_step(self, backbone: Backbone) -> None:
        self.encoder.update(backbone, self.projection)
        for keys, labels in self._new_keys:
            self.queue.enqueue(keys, labels)
        self._new_keys.clear()

    @torch.no_grad()
    def _encode(self, images: Tensor) -> Tensor:
        """Return the images' keys, encoded by other processes than the queries where asked for."""
        num_processes = collectives.num_processes()
        if not self.options.shuffle_keys or num_processes == 1:
            alone: Tensor = self.encoder(images)
            return alone
        order = collectives.shared_permutation(len(images) * num_processes, self.queue.pointer)
        mine = collectives.own_share(collectives.gathered(images)[order])
        keys: Tensor = collectives.gathered(self.encoder(mine))
        return collectives.own_share(keys[order.argsort()])
