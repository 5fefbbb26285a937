"""Backbones by the names that configs use."""

from collections.abc import Callable
from functools import partial

from fastssd.core.registry import unknown_choice
from fastssd.errors import ConfigError
from fastssd.models.backbone import Backbone
from fastssd.models.cifar_resnet import CifarResNet
from fastssd.models.plaincnn import PlainCnn
from fastssd.models.seeding import seeded
from fastssd.models.third_party import timm_backbone, torchvision_backbone, torchvision_names

__all__ = ["BACKBONES", "Backbone", "build_backbone"]

BACKBONES: dict[str, Callable[[], Backbone]] = {
    **{f"resnet{depth}": partial(CifarResNet, depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    "plaincnn": PlainCnn,
}
"""Our own backbones; ``torchvision/<name>`` and ``timm/<name>`` come beside them."""

_LIBRARIES: dict[str, Callable[[str], Backbone]] = {
    "torchvision": torchvision_backbone,
    "timm": timm_backbone,
}


def build_backbone(name: str, *, seed: int) -> Backbone:
    """Return a backbone with random weights, on the CPU and in train mode.

    Args:
        name: A key of `BACKBONES` (the CIFAR ResNets ``resnet8`` to ``resnet110`` and
            ``plaincnn``), ``torchvision/<name>`` or ``timm/<name>``.
        seed: The weights depend on this and on nothing else; no random state changes.

    Raises:
        ConfigError: If there is no such backbone, naming the nearest that there is, or if the
            library it comes from is not installed.
    """
    library, slash, model = name.partition("/")
    with seeded(seed, "backbone"):
        if name in BACKBONES:
            return BACKBONES[name]()
        if slash and library in _LIBRARIES:
            return _LIBRARIES[library](model)
    raise _unknown_backbone(name)


def _unknown_backbone(name: str) -> ConfigError:
    remedy = f"Valid names: {', '.join(BACKBONES)}, torchvision/<name>, timm/<name>."
    elsewhere = torchvision_names()
    model = name.rpartition("/")[2]
    if model in elsewhere:
        # By its letters "resnet50" is nearest to our "resnet56"; it means torchvision's.
        return ConfigError(
            f"backbone {name!r} is not known. Did you mean 'torchvision/{model}'? {remedy}"
        )
    candidates = [*BACKBONES, *(f"torchvision/{each}" for each in elsewhere)]
    return unknown_choice("backbone", name, candidates, remedy=remedy)
