"""Compiling the networks of a stage, so that their weights keep their names."""

import torch
from torch import nn

from fastssd.models.backbone import Backbone


def compile_backbones(module: nn.Module) -> int:
    """Let torch.compile make the backbones within a module faster, from their next call on.

    They are changed in place and stay what they are: a state dict has the names it had, a copy is
    not compiled, and DistributedDataParallel may wrap the module before or after. Each network is
    compiled once for training and once for evaluation, there for any batch size. What was
    compiled before is forgotten, so that the stages of a run do not add up to more variants than
    PyTorch keeps.

    Args:
        module: A stage. Its heads stay as they are: they are a layer or two each.

    Returns:
        How many backbones there were.
    """
    torch.compiler.reset()
    backbones = [each for each in module.modules() if isinstance(each, Backbone)]
    for backbone in backbones:
        backbone.compile()
    return len(backbones)
