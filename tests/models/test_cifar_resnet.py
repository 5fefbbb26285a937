import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastssd.models.cifar_resnet import BasicBlock, CifarResNet


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("depth", "published"),
    # With a classifier of 10 classes: Idelbayev's pytorch_resnet_cifar10, which reproduces the
    # 0.27 to 1.7 million of He et al., table 6.
    [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)],
)
def test_it_has_as_many_parameters_as_published(depth, published):
    assert num_parameters(CifarResNet(depth)) + num_parameters(nn.Linear(64, 10)) == published


def test_resnet_32_with_100_classes_is_the_small_network_of_the_long_tail_literature():
    assert 0.46e6 < num_parameters(CifarResNet(32)) + num_parameters(nn.Linear(64, 100)) < 0.475e6


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56, 110])
def test_depth_counts_the_layers_with_weights_and_the_classifier(depth):
    convolutions = [m for m in CifarResNet(depth).modules() if isinstance(m, nn.Conv2d)]

    assert len(convolutions) + 1 == depth


@pytest.mark.parametrize("depth", [2, 9, 18, 34, -4])
def test_a_depth_not_of_the_form_6n_plus_2_is_refused(depth):
    with pytest.raises(ValueError, match=f"depth={depth}"):
        CifarResNet(depth)


def test_the_shortcut_takes_every_second_pixel_between_channels_of_zeros():
    block = BasicBlock(4, 8, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(2, 4, 6, 6)

    out = block(x)

    assert torch.equal(out[:, 2:6], x[:, :, [0, 2, 4]][..., [0, 2, 4]])
    assert not out[:, :2].any()
    assert not out[:, 6:].any()


def reference_resnet_8(state, x):
    """Return the features by the layers' formulas in float64, from the paper's figure and 4.2."""
    state = {name: value.double() for name, value in state.items()}

    def conv_bn(x, conv, bn, stride):
        x = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=1)
        centred = x - state[f"{bn}.running_mean"].view(1, -1, 1, 1)
        scale = state[f"{bn}.weight"] / (state[f"{bn}.running_var"] + 1e-5).sqrt()
        return centred * scale.view(1, -1, 1, 1) + state[f"{bn}.bias"].view(1, -1, 1, 1)

    x = conv_bn(x, "conv", "bn", 1).clamp(min=0)
    for i, (width, stride) in enumerate([(16, 1), (32, 2), (64, 2)]):
        y = conv_bn(x, f"blocks.{i}.conv1", f"blocks.{i}.bn1", stride).clamp(min=0)
        y = conv_bn(y, f"blocks.{i}.conv2", f"blocks.{i}.bn2", 1)
        shortcut = torch.zeros_like(y)
        missing = (width - x.shape[1]) // 2
        shortcut[:, missing : width - missing] = x[..., ::stride, ::stride]
        x = (y + shortcut).clamp(min=0)
    return x.flatten(2).sum(2) / (x.shape[2] * x.shape[3])


def test_features_follow_the_papers_formulas():
    generator = torch.Generator().manual_seed(0)
    network = CifarResNet(8).eval()
    for name, value in network.state_dict().items():
        if value.ndim == 1:
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        assert value.ndim in (0, 1, 4), name
    images = torch.randn(3, 3, 32, 32, generator=generator)

    features = network(images)

    expected = reference_resnet_8(network.state_dict(), images.double())
    assert features.shape == (3, network.width)
    torch.testing.assert_close(features.double(), expected, rtol=1e-5, atol=1e-5)


def test_convolutions_start_at_he_et_als_deviation():
    network = CifarResNet(20)

    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5_000:
            expected = (2 / (module.in_channels * 9)) ** 0.5
            # Standard error of a deviation from n > 5000 numbers: below 1 %; four of them.
            assert module.weight.std().item() == pytest.approx(expected, rel=0.04)


def test_channels_last_stays_channels_last_through_a_shortcut():
    block = BasicBlock(16, 32, stride=2).to(memory_format=torch.channels_last)
    x = torch.rand(2, 16, 8, 8).contiguous(memory_format=torch.channels_last)

    assert block(x).is_contiguous(memory_format=torch.channels_last)
