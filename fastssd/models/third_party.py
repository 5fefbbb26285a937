"""Networks of torchvision and timm as backbones: random weights, classifier removed.

Both libraries are imported only when one of their networks is asked for: they take seconds.
"""

import importlib.util
from typing import Any

from torch import Tensor, nn

from fastssd.core.registry import unknown_choice
from fastssd.errors import ConfigError
from fastssd.models.backbone import Backbone

_TORCHVISION_CLASSES = 1000
# In train mode these return the logits of auxiliary classifiers beside the features.
_WITH_AUXILIARY_CLASSIFIERS = frozenset({"googlenet", "inception_v3"})


class ThirdPartyBackbone(Backbone):
    """Another library's network that already returns (B, width) features."""

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network = network
        self.width = width

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(images)
        return features


def torchvision_names() -> list[str]:
    """Return the names of torchvision's image classifiers."""
    import torchvision

    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def torchvision_backbone(name: str) -> ThirdPartyBackbone:
    """Return a torchvision classifier without its last linear layer.

    Layers between the pooling and that one (the hidden layers of VGG, dropout) stay in the
    backbone. Transformers accept only the image size they were designed for.

    Raises:
        ConfigError: If torchvision has no such classifier, or it does not end in a linear layer.
    """
    import torchvision

    names = torchvision_names()
    if name not in names:
        raise unknown_choice(
            "backbone",
            f"torchvision/{name}",
            [f"torchvision/{each}" for each in names],
            remedy="Any classifier of torchvision.models.list_models() is valid.",
        )
    if name in _WITH_AUXILIARY_CLASSIFIERS:
        raise _unsuitable(name, "has auxiliary classifiers")
    network: nn.Module = torchvision.models.get_model(name, weights=None)
    linear_layers = [
        (path, module) for path, module in network.named_modules() if isinstance(module, nn.Linear)
    ]
    if not linear_layers or linear_layers[-1][1].out_features != _TORCHVISION_CLASSES:
        raise _unsuitable(name, "does not end in a linear layer")
    path, classifier = linear_layers[-1]
    network.set_submodule(path, nn.Identity())
    return ThirdPartyBackbone(network, classifier.in_features)


def timm_backbone(name: str) -> ThirdPartyBackbone:
    """Return a timm network without its classifier.

    Raises:
        ConfigError: If timm is not installed or has no such network.
    """
    if importlib.util.find_spec("timm") is None:
        raise ConfigError(
            f"backbone 'timm/{name}' needs the package timm, which is not installed: "
            f"run `pip install fastssd[timm]`"
        )
    import timm

    if not timm.is_model(name):
        raise unknown_choice(
            "backbone",
            f"timm/{name}",
            [f"timm/{each}" for each in timm.list_models()],
            remedy="Any name of timm.list_models() is valid.",
        )
    network: Any = timm.create_model(name, pretrained=False, num_classes=0)
    # Networks with hidden layers between pooling and classifier return those layers' width.
    width = getattr(network, "head_hidden_size", None) or network.num_features
    return ThirdPartyBackbone(network, width)


def _unsuitable(name: str, reason: str) -> ConfigError:
    return ConfigError(
        f"backbone 'torchvision/{name}' {reason} and so gives no feature vector to classify: "
        f"choose another, such as torchvision/resnet50"
    )
