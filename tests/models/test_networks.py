import pytest
import torch
from torch import nn

from fastssd.errors import ConfigError
from fastssd.models.cifar_resnet import CifarResNet
from fastssd.models.heads import ClassScale, LinearHead
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


def balanced(frozen, learn=("scales",), **parts):
    """A network whose classifier was re-balanced: by scales, new weights or both."""
    generator = torch.Generator().manual_seed(7)
    made = BalancedNetwork(
        frozen,
        scale=ClassScale(5) if "scales" in learn else None,
        classifier=nn.Linear(64, 5) if "weights" in learn else None,
        **parts,
    )
    with torch.no_grad():
        if made.scale is not None:
            made.scale.scale.copy_(torch.tensor([1.0, -2.0, 0.0, 3.0, 0.5]))
        if made.classifier is not None:
            for value in made.classifier.parameters():
                value.normal_(0, 0.2, generator=generator)
    return made


LEARN = [(), ("scales",), ("weights",), ("weights", "scales")]


@pytest.mark.parametrize("learn", LEARN)
def test_logits_are_of_the_last_classifier_times_the_scales_bias_and_all(learn):
    frozen = network("frozen").eval()
    made = balanced(frozen, learn)

    logits = made(IMAGES, None).detach()

    feature = frozen.backbone(IMAGES).detach().double()
    last = made.classifier if "weights" in learn else frozen.head
    expected = feature @ last.weight.double().T + last.bias.double()
    if "scales" in learn:
        expected = expected * made.scale.scale.double()
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("learn", LEARN)
def test_folded_into_one_frozen_network_it_says_the_same(learn):
    made = balanced(network("frozen"), learn)

    folded = made.folded()

    assert torch.equal(folded(IMAGES), made(IMAGES, None))
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert folded.backbone is made.frozen.backbone


@pytest.mark.parametrize(
    ("learn", "holds"),
    [
        *((learn, "features") for learn in LEARN),
        *((learn, "logits") for learn in LEARN if "weights" not in learn),
    ],
)
def test_what_is_left_to_do_for_a_table_comes_to_the_same_logits(learn, holds):
    frozen = network("frozen").eval()
    made = balanced(frozen, learn)

    rest = made.for_table(holds)

    asked = {"logits": frozen, "features": frozen.features}[holds](IMAGES)
    said = (None, asked, None) if holds == "logits" else (None, None, asked)
    assert torch.equal(rest(*said), made(IMAGES, None))
    assert torch.equal(made(*said), made(IMAGES, None))
    assert sum(value.numel() for value in rest.state_dict().values()) < 1000  # no backbone


def test_half_precision_features_are_classified_in_float32_and_only_the_scales_learn():
    frozen = network("frozen").eval()
    made = balanced(frozen)

    read = made(None, None, frozen.features(IMAGES).half())
    read.sum().backward()

    assert read.dtype == torch.float32
    torch.testing.assert_close(read, made(IMAGES, None), atol=1e-2, rtol=1e-2)
    assert made.scale.scale.grad.any()
    assert frozen.head.weight.grad is None


@pytest.mark.parametrize(
    ("learn", "said", "message"),
    [
        (("scales",), (IMAGES, None), "table's logits"),
        (("scales",), (None, None, torch.zeros(2, 64)), "frozen classifier"),
        (("weights",), (IMAGES, None), "table's features"),
    ],
)
def test_a_network_without_its_frozen_part_says_what_it_needs(learn, said, message):
    with pytest.raises(ValueError, match=message):
        balanced(None, learn)(*said)


def test_a_network_without_its_frozen_part_is_none_to_stand_on():
    with pytest.raises(ValueError, match="no network of its own"):
        balanced(None).folded()
