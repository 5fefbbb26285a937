"""Re-balancing the classifier of a frozen network: new scales (LWS), new weights (cRT), or both."""

from torch import Tensor

from fastssd.losses.registry import LOSSES
from fastssd.methods.batch import Batch, Moment, Output
from fastssd.methods.method import Method, Parts
from fastssd.methods.options import ClassifierOptions
from fastssd.models.heads import ClassScale
from fastssd.models.networks import BalancedNetwork, FrozenNetwork


class Classifier(Method):
    """Stages II and IV of SSD, LWS and cRT: from a table of the frozen network, or from images.

    Source:
        Kang et al., "Decoupling representation and classifier" (ICLR 2020), section 4.
    """

    Options = ClassifierOptions

    def __init__(self, options: ClassifierOptions, parts: Parts) -> None:
        super().__init__(options, parts)
        source = parts.sources["source"].balanced(options.head, batchnorm=parts.batchnorm)
        frozen = source.folded()
        classifier = None
        if "weights" in options.learn:
            classifier = parts.head(frozen.backbone.width, "classifier")
        scale = ClassScale(parts.num_classes) if "scales" in options.learn else None
        self.network = BalancedNetwork(frozen, scale=scale, classifier=classifier)
        self.loss = LOSSES[options.loss.kind](options.loss.options, parts.counts, scale=None)

    def forward(self, batch: Batch, at: Moment) -> Output:
        images = None if batch.views is None else batch.images
        logits = self.network(images, batch.frozen_logits, batch.frozen_features)
        return Output(
            losses={"classification": self.loss(logits, batch.labels)},
            correct={"classification": logits.argmax(dim=1) == batch.labels},
        )

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        return {self.heads[0]: self.network(images, None)}

    def balanced(self, head: str, *, batchnorm: str) -> BalancedNetwork:
        return self.network

    @property
    def frozen(self) -> FrozenNetwork:
        """The network that learns no more."""
        assert self.network.frozen is not None
        return self.network.frozen
