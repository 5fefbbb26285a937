import math

import pytest
import torch

from fastssd.errors import ConfigError
from fastssd.models.head_options import CosineOptions, LinearOptions
from fastssd.models.heads import (
    ClassScale,
    CosineHead,
    LinearHead,
    ProjectionHead,
    RotationHead,
    build_head,
)
from fastssd.models.seeding import seeded


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_head_gives_one_logit_a_class(kind):
    assert build_head(kind, 12, 7)(randn(3, 12)).shape == (3, 7)


def test_an_unknown_head_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'cosine'"):
        build_head("cosin", 12, 7)


def test_a_head_is_built_with_its_options_and_says_its_scale_if_it_is_fixed():
    fixed = build_head("cosine", 12, 7, CosineOptions(scale=30.0))
    learnable = build_head("cosine", 12, 7, CosineOptions(scale=30.0, learnable_scale=True))

    assert fixed.cosine_scale == fixed.scale.item() == learnable.scale.item() == 30
    assert learnable.cosine_scale is None
    assert build_head("linear", 12, 7, LinearOptions()).cosine_scale is None
    with pytest.raises(TypeError, match="head linear takes LinearOptions"):
        build_head("linear", 12, 7, CosineOptions())


@pytest.mark.parametrize("options", [{"scale": 0.0}, {"scale": math.inf}, {"init": "ones"}])
def test_options_of_a_cosine_head_that_mean_nothing_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        CosineOptions(**options)


def test_a_step_turns_a_unit_weight_vector_by_its_length_squared_further():
    turned = {}
    for init, factor in (("normal", 1), ("unit", 1), ("unit", 10)):
        with seeded(0):
            head = build_head("cosine", 400, 3, CosineOptions(init=init))
        with torch.no_grad():
            head.weight *= factor
        head(randn(2, 400))[:, 0].sum().backward()
        # The angle of a small step: the gradient is orthogonal to the weights.
        lengths = head.weight.detach().norm(dim=1)
        turned[init, factor] = head.weight.grad.norm(dim=1)[0] / lengths[0]

    torch.testing.assert_close(turned["unit", 1], 100 * turned["unit", 10])
    assert turned["unit", 1] / turned["normal", 1] == pytest.approx(400, rel=0.3)
    with seeded(0):
        unit = build_head("cosine", 400, 3, CosineOptions(init="unit")).weight
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(3))


def test_two_heads_of_one_seed_start_apart():
    with seeded(0, "hard"):
        hard = build_head("linear", 12, 7)
    with seeded(0, "soft"):
        soft = build_head("linear", 12, 7)

    assert not torch.equal(hard.weight, soft.weight)


def test_cosine_logits_are_the_scaled_cosine_of_the_angle():
    head = CosineHead(5, 4)
    features = randn(3, 5)

    logits = head(features)

    for i, f in enumerate(features.tolist()):
        for c, w in enumerate(head.weight.tolist()):
            dot = sum(a * b for a, b in zip(f, w, strict=True))
            assert logits[i, c].item() == pytest.approx(
                16 * dot / math.hypot(*f) / math.hypot(*w), abs=1e-5
            )


def test_the_length_of_a_feature_does_not_change_cosine_logits():
    head = CosineHead(5, 4)
    features = randn(3, 5)

    torch.testing.assert_close(head(features * 1000), head(features))


@pytest.mark.parametrize("learnable", [True, False])
def test_the_cosine_scale_is_saved_and_learns_only_if_asked_to(learnable):
    head = CosineHead(5, 4, scale=20.0, learnable_scale=learnable)

    assert head.state_dict()["scale"].item() == 20
    assert ("scale" in dict(head.named_parameters())) is learnable


def test_projections_are_unit_vectors_of_two_layers_with_a_relu_between():
    head = ProjectionHead(6, dim=4)
    features = randn(5, 6)

    embeddings = head(features)

    weights = {name: value.double() for name, value in head.state_dict().items()}
    hidden = (features.double() @ weights["hidden.weight"].T + weights["hidden.bias"]).clamp(min=0)
    projected = hidden @ weights["output.weight"].T + weights["output.bias"]
    expected = projected / projected.pow(2).sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(embeddings.double(), expected, rtol=1e-5, atol=1e-6)
    assert ProjectionHead(6)(features).shape == (5, 128)


def test_projections_of_half_precision_features_too_long_to_square_are_unit_vectors():
    head = ProjectionHead(6, dim=4).half()

    embeddings = head((randn(5, 6) * 5_000).half())

    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("build", [CosineHead, LinearHead])
def test_only_cosine_logits_keep_full_precision_under_autocast(build):
    head = build(64, 10)
    features = randn(8, 64)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(features)

    assert torch.equal(logits, head(features)) is (build is CosineHead)


def test_rotation_is_told_apart_into_four_angles():
    assert RotationHead(6)(randn(5, 6)).shape == (5, 4)


def test_class_scales_start_as_the_identity_and_scale_the_bias_with_the_weights():
    head, scale = LinearHead(6, 3), ClassScale(3)
    features = randn(5, 6)

    assert torch.equal(scale(head(features)), head(features))

    with torch.no_grad():
        scale.scale.copy_(torch.tensor([2.0, -1.0, 0.5]))
    # Kang et al.: w_c <- s_c w_c; the reference scales b_c alike.
    expected = torch.stack(
        [
            s * (features @ w + b)
            for s, w, b in zip(scale.scale, head.weight, head.bias, strict=True)
        ]
    ).T
    torch.testing.assert_close(scale(head(features)), expected)


def test_class_scales_learn_from_half_precision_logits_of_a_table():
    scale = ClassScale(3)
    logits = randn(5, 3).half()

    scale(logits).sum().backward()

    torch.testing.assert_close(scale.scale.grad, logits.float().sum(0))


def test_logits_that_would_broadcast_over_the_scales_are_refused():
    with pytest.raises(ValueError, match=r"\(5, 1\) for 3 class scales"):
        ClassScale(3)(randn(5, 1))
