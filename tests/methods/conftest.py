"""Trained networks for methods to stand on."""

import numpy as np
import pytest
import torch
from torch import nn

from fastssd.config import ModelConfig
from fastssd.methods.classifier import Classifier
from fastssd.methods.method import Method, Parts
from fastssd.methods.options import ClassifierOptions, SupervisedOptions
from fastssd.methods.supervised import Supervised

NUM_CLASSES = 3
COUNTS = np.array([70, 20, 4])


@pytest.fixture
def parts():
    """Return what makes the parts of a method, on trained ones by role."""

    def make(backbone="plaincnn", *, seed=0, reads="images", **sources: Method) -> Parts:
        return Parts(
            seed=seed,
            order="a test",
            num_classes=NUM_CLASSES,
            counts=COUNTS,
            model=ModelConfig(backbone=backbone),
            sources=sources,
            reads=reads,
        )

    return make


@pytest.fixture
def trained(parts) -> Method:
    """A network with cross-entropy whose BatchNorm has seen images."""
    method = Supervised(SupervisedOptions(), parts("resnet8", seed=1))
    generator = torch.Generator().manual_seed(5)
    for layer in method.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
    return method.eval()


@pytest.fixture
def balanced(parts, trained) -> Classifier:
    """That network with scales of its classes."""
    method = Classifier(ClassifierOptions(), parts(source=trained))
    with torch.no_grad():
        method.network.scale.scale.copy_(torch.tensor([0.5, 1.0, 2.0]))
    return method.eval()
