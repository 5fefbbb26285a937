import pytest
import torch
from torch import nn

from fastssd.errors import ConfigError
from fastssd.models.cifar_resnet import CifarResNet
from fastssd.models.heads import LinearHead
from fastssd.models.networks import BalancedNetwork, FrozenNetwork


def network(batchnorm: str) -> FrozenNetwork:
    torch.manual_seed(0)
    backbone = CifarResNet(8)
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.5)
            layer.running_var.uniform_(0.5, 2)
    return FrozenNetwork(backbone, LinearHead(64, 5), batchnorm=batchnorm)


IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(3)) * 3 + 1


@pytest.mark.parametrize("batchnorm", ["frozen", "recalibrated"])
def test_a_frozen_network_in_training_says_what_it_says_in_evaluation(batchnorm):
    frozen = network(batchnorm)
    before = {name: value.clone() for name, value in frozen.state_dict().items()}

    in_training = [frozen.train()(IMAGES) for _ in range(3)][-1]

    assert torch.equal(in_training, frozen.eval()(IMAGES))
    for name, value in frozen.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_mode_batch_uses_the_batchs_statistics_and_lets_the_running_ones_drift():
    frozen = network("batch")
    first = next(layer for layer in frozen.modules() if isinstance(layer, nn.BatchNorm2d))
    convolution = next(layer for layer in frozen.modules() if isinstance(layer, nn.Conv2d))
    mean_before = first.running_mean.clone()

    evaluated = frozen.eval()(IMAGES)
    assert torch.equal(first.running_mean, mean_before)
    trained = frozen.train()(IMAGES)

    batch_mean = convolution(IMAGES).mean(dim=(0, 2, 3))
    torch.testing.assert_close(first.running_mean, 0.9 * mean_before + 0.1 * batch_mean)
    assert (trained - evaluated).abs().max() > 0.1
    alone = frozen.train()(IMAGES[:2])
    assert (alone - trained[:2]).abs().max() > 1e-3  # an image's logits depend on its batch
    assert not frozen.eval().backbone.training


def test_nothing_in_a_frozen_network_learns_whatever_holds_it():
    holder = nn.Sequential(network("frozen")).train()
    assert not any(parameter.requires_grad for parameter in holder.parameters())
    assert not holder(IMAGES).requires_grad
    assert not any(
        layer.training for layer in holder[0].modules() if isinstance(layer, nn.BatchNorm2d)
    )


def test_an_unknown_mode_is_refused():
    with pytest.raises(ConfigError, match="frozen"):
        network("frosen").train()


def test_a_balanced_network_scales_logits_and_their_bias_wherever_they_come_from():
    frozen = network("frozen").eval()
    balanced = BalancedNetwork(frozen, 5)
    with torch.no_grad():
        balanced.scale.scale.copy_(torch.tensor([1.0, -2.0, 0.0, 3.0, 0.5]))
        feature = frozen.backbone(IMAGES)
        expected = balanced.scale.scale * (feature @ frozen.head.weight.T + frozen.head.bias)
    torch.testing.assert_close(balanced(IMAGES, None), expected)
    torch.testing.assert_close(BalancedNetwork(None, 5)(None, expected), expected)
    assert torch.equal(balanced(None, frozen(IMAGES)), balanced(IMAGES, None))


def test_a_network_without_its_frozen_part_needs_logits():
    with pytest.raises(ValueError, match="table's logits"):
        BalancedNetwork(None, 5)(IMAGES, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_tables_features_go_through_the_frozen_classifier(dtype):
    frozen = network("frozen").eval()
    balanced = BalancedNetwork(frozen, 5)
    with torch.no_grad():
        balanced.scale.scale.copy_(torch.tensor([1.0, -2.0, 0.0, 3.0, 0.5]))
    features = frozen.features(IMAGES).to(dtype)
    read = balanced(None, None, features)
    torch.testing.assert_close(read, balanced(IMAGES, None), atol=1e-2, rtol=1e-2)
    if dtype == torch.float32:
        assert torch.equal(read, balanced(IMAGES, None))
    alone = BalancedNetwork(None, 5, head=frozen.head)
    alone.scale.load_state_dict(balanced.scale.state_dict())
    assert torch.equal(alone(None, None, features), read)
    read.sum().backward()
    assert balanced.scale.scale.grad.any()
    assert frozen.head.weight.grad is None


def test_a_tables_features_need_the_frozen_classifier():
    with pytest.raises(ValueError, match="frozen classifier"):
        BalancedNetwork(None, 5)(None, None, torch.zeros(2, 64))
