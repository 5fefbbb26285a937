"""Classifiers made without training, as stages: the trained backbone under the new classifier."""

from typing import ClassVar

from torch import Tensor

from fastssd.methods.batch import Batch, Moment, Output
from fastssd.methods.method import Method, Parts
from fastssd.methods.posthoc.features import FeatureSet
from fastssd.methods.posthoc.la_posthoc import LaPosthoc
from fastssd.methods.posthoc.ncm import Ncm
from fastssd.methods.posthoc.options import (
    LaPosthocOptions,
    NcmOptions,
    PosthocOptions,
    TauNormOptions,
)
from fastssd.methods.posthoc.posthoc import Posthoc, Sweep
from fastssd.methods.posthoc.tau_norm import TauNorm
from fastssd.models.networks import BalancedNetwork, FrozenNetwork


class PosthocStage(Method):
    """A trained network whose classifier is replaced by one that `posthoc` makes of it."""

    posthoc: ClassVar[type[Posthoc]]

    def __init__(self, options: PosthocOptions, parts: Parts) -> None:
        super().__init__(options, parts)
        source = parts.sources["source"].balanced(options.head, batchnorm=parts.batchnorm)
        frozen = source.folded()
        self.maker = self.posthoc(options)
        self.backbone = frozen.backbone
        self.classifier = self.maker.rebuild(frozen.head, frozen.backbone.width, parts.num_classes)
        self._counts = parts.counts
        self._trained = [frozen.head]  # in a list: no part of this module's state

    def fit(self, train: FeatureSet | None, validation: FeatureSet | None) -> Sweep:
        """Make the classifier, and return what was tried.

        Args:
            train: Features of the training images, for makers that need them.
            validation: Features of the split to choose on, if there is one.
        """
        self.classifier, sweep = self.maker.fit(train, self._trained[0], self._counts, validation)
        return sweep

    def forward(self, batch: Batch, at: Moment) -> Output:
        raise TypeError(f"{type(self).__name__} is made, and not trained")

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        return {self.heads[0]: self.classifier(self.backbone(images))}

    def balanced(self, head: str, *, batchnorm: str) -> BalancedNetwork:
        return BalancedNetwork(FrozenNetwork(self.backbone, self.classifier, batchnorm=batchnorm))


class TauNormStage(PosthocStage):
    """Weights of classes divided by their length to a power."""

    posthoc = TauNorm
    Options = TauNormOptions


class NcmStage(PosthocStage):
    """The class whose training images' mean feature is nearest."""

    posthoc = Ncm
    Options = NcmOptions


class LaStage(PosthocStage):
    """Logits from which the classes' frequencies are taken."""

    posthoc = LaPosthoc
    Options = LaPosthocOptions
