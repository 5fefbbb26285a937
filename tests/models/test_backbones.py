import importlib.util
import sys

import pytest
import torch

from fastssd.errors import ConfigError
from fastssd.models.backbones import BACKBONES, build_backbone
from fastssd.models.plaincnn import PlainCnn
from fastssd.models.third_party import torchvision_backbone

needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="the extra fastssd[timm] is not installed"
)


def state_of(name, seed):
    return build_backbone(name, seed=seed).state_dict()


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("size", [8, 32])
def test_our_backbones_pool_digits_and_photographs_to_their_width(name, size):
    backbone = build_backbone(name, seed=0).eval()

    with torch.no_grad():
        assert backbone(torch.rand(2, 3, size, size)).shape == (2, backbone.width)


def test_torchvisions_resnet_18_works_at_64_pixels_and_learns():
    backbone = build_backbone("torchvision/resnet18", seed=0)

    features = backbone(torch.rand(2, 3, 64, 64))
    features.sum().backward()

    assert features.shape == (2, 512)
    assert backbone.width == 512
    assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_resnet_50_is_the_published_one_without_its_classifier():
    with torch.device("meta"):
        backbone = torchvision_backbone("resnet50")

    # 25.557 million parameters (torchvision's page of the model), of which 2048 * 1000 + 1000.
    assert sum(p.numel() for p in backbone.parameters()) == 25_557_032 - 2_049_000


@pytest.mark.parametrize(
    "name",
    [
        "resnext50_32x4d", "vgg11", "alexnet", "densenet121", "mobilenet_v3_small", "vit_b_16",
        "convnext_tiny", "efficientnet_b0", "shufflenet_v2_x0_5", "swin_t", "mnasnet0_5",
    ],
)  # fmt: skip
def test_every_family_of_torchvision_gives_features_of_the_stated_width(name):
    # The meta device computes shapes only.
    with torch.device("meta"):
        backbone = torchvision_backbone(name).eval()
        features = backbone(torch.zeros(2, 3, 224, 224))

    assert features.shape == (2, backbone.width)


@pytest.mark.parametrize("name", ["squeezenet1_0", "inception_v3"])
def test_a_network_without_a_linear_classifier_to_remove_is_refused(name):
    with torch.device("meta"), pytest.raises(ConfigError, match=f"torchvision/{name}.*resnet50"):
        torchvision_backbone(name)


@needs_timm
# The second has hidden layers behind the pooling: 1024 features from 288 channels.
@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("mobilenetv3_small_050", 1024)])
def test_timms_networks_give_features_of_the_stated_width(name, width):
    backbone = build_backbone(f"timm/{name}", seed=0).eval()

    with torch.no_grad():
        assert backbone(torch.rand(2, 3, 64, 64)).shape == (2, width)
    assert backbone.width == width


def test_without_timm_the_message_says_what_to_install(monkeypatch):
    # What an import system without the package does.
    monkeypatch.setitem(sys.modules, "timm", None)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "timm" else find_spec(name)
    )

    with pytest.raises(ConfigError, match=r"pip install fastssd\[timm\]"):
        build_backbone("timm/resnet18", seed=0)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resnet33", "resnet32"),
        ("plainccn", "plaincnn"),
        ("resnet50", "torchvision/resnet50"),
        ("vgg11", "torchvision/vgg11"),
        ("torchvison/resnet18", "torchvision/resnet18"),
        ("torchvision/resnet19", "torchvision/resnet1"),
        pytest.param("timm/resnet18_", "timm/resnet18", marks=needs_timm),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(ConfigError) as error:
        build_backbone(name, seed=0)

    assert f"Did you mean '{nearest}" in str(error.value)
    assert name in str(error.value)


def test_a_name_like_no_other_is_answered_with_those_there_are():
    with pytest.raises(ConfigError, match=r"resnet110.*plaincnn.*torchvision/.*timm/"):
        build_backbone("?", seed=0)


@pytest.mark.parametrize("name", ["resnet8", "plaincnn", "torchvision/resnet18"])
def test_weights_depend_on_the_seed_and_on_nothing_else(name):
    first = state_of(name, seed=5)
    before = torch.get_rng_state()
    again = state_of(name, seed=5)
    other = state_of(name, seed=6)

    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if first[key].ndim == 4)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_plain_network_sees_each_image_alone():
    network = PlainCnn().double()
    images = torch.rand(6, 3, 16, 16, dtype=torch.float64)

    together = network(images)

    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    assert not list(network.buffers())
