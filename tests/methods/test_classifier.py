import numpy as np
import pytest
import torch

from fastssd.methods.batch import Batch
from fastssd.methods.classifier import BalanceStage
from fastssd.models.networks import BalancedNetwork

LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) * 2
LABELS = torch.tensor([0, 1, 2, 2, 1, 0])


def test_only_the_scales_learn_and_by_the_gradient_of_cross_entropy():
    stage = BalanceStage(BalancedNetwork(None, 3), head="hard")
    scale = stage.network.scale.scale
    with torch.no_grad():
        scale.copy_(torch.tensor([0.5, 1.0, 2.0]))

    output = stage(Batch(draws=None, labels=LABELS, frozen_logits=LOGITS))
    output.losses["classification"].backward()

    logits, s = LOGITS.double().numpy(), np.array([0.5, 1.0, 2.0])
    share = np.exp(logits * s) / np.exp(logits * s).sum(axis=1, keepdims=True)
    loss = -np.log(share[np.arange(6), LABELS.numpy()]).mean()
    gradient = ((share - np.eye(3)[LABELS.numpy()]) * logits).mean(axis=0)
    assert output.losses["classification"].item() == pytest.approx(loss, abs=1e-6)
    np.testing.assert_allclose(scale.grad.numpy(), gradient, atol=1e-6)
    assert output.hits["classification"].tolist() == (share.argmax(1) == LABELS.numpy()).tolist()
    assert stage.heads == ("hard",)
    assert [name for name, _ in stage.named_parameters()] == ["network.scale.scale"]


def test_a_batch_without_images_says_so_when_asked_for_them():
    with pytest.raises(ValueError, match="no images"):
        _ = Batch(draws=None, labels=LABELS, frozen_logits=LOGITS).query
