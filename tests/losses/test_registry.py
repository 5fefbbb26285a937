"""Every loss that a stage may name: what all of them promise, and each against its paper."""

import math

import numpy as np
import pytest
import torch

from fastssd.errors import ConfigError
from fastssd.losses.classification import classification_loss
from fastssd.losses.options import LdamOptions, LogitAdjustmentOptions
from fastssd.losses.registry import LOSSES

COUNTS = np.array([500, 120, 7, 1])
SCALE = 30.0


def build(kind, counts=COUNTS, **options):
    return LOSSES[kind](LOSSES[kind].Options(**options), counts, scale=SCALE)


def batch(num_images=9, num_classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = SCALE * (2 * torch.rand(num_images, num_classes, generator=generator) - 1)
    return logits, torch.randint(num_classes, (num_images,), generator=generator)


def shifted(kind, cosines, label, n, options):
    """The logits of one image whose cross-entropy the paper takes, as plain Python floats."""
    total, rarest = sum(n), min(n)
    shifts = {
        "cross_entropy": lambda c: 0.0,
        # Cao et al., equation 13: Delta_y = C / n_y^(1/4), with C so that the largest is max_margin
        "ldam": lambda c: (
            -SCALE * options.get("max_margin", 0.5) * rarest**0.25 / n[c] ** 0.25
            if c == label
            else 0.0
        ),
        "balanced_softmax": lambda c: math.log(n[c]),  # Ren et al., equation 3
        "logit_adjustment": lambda c: options.get("tau", 1.0) * math.log(n[c] / total),
    }
    return [SCALE * cosine + shifts[kind](c) for c, cosine in enumerate(cosines)]


@pytest.mark.parametrize("weights", [None, [0.1, 0.4, 1.5, 2.0]])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("cross_entropy", {}),
        ("ldam", {}),
        ("ldam", {"max_margin": 0.3}),
        ("balanced_softmax", {}),
        ("logit_adjustment", {}),
        ("logit_adjustment", {"tau": 2.5}),
    ],
)
def test_each_loss_and_its_gradient_are_those_of_the_paper(kind, options, weights):
    logits, labels = batch()
    logits.requires_grad_()

    loss = build(kind, **options)(
        logits, labels, None if weights is None else torch.tensor(weights)
    )
    loss.backward()

    expected, weight_sum = 0.0, 0.0
    gradient = np.zeros(logits.shape)
    for i, (row, label) in enumerate(zip(logits.tolist(), labels.tolist(), strict=True)):
        z = shifted(kind, [each / SCALE for each in row], label, COUNTS.tolist(), options)
        largest = max(z)
        total = sum(math.exp(each - largest) for each in z)
        weight = 1.0 if weights is None else weights[label]
        expected += weight * (largest + math.log(total) - z[label])
        weight_sum += weight
        for c, each in enumerate(z):
            gradient[i, c] = weight * (math.exp(each - largest) / total - (c == label))
    assert loss.item() == pytest.approx(expected / weight_sum, rel=1e-5)
    np.testing.assert_allclose(logits.grad, gradient / weight_sum, atol=1e-6)


@pytest.mark.parametrize("kind", LOSSES.names())
def test_a_loss_is_a_float32_scalar_of_logits_of_any_precision(kind):
    logits, labels = batch()

    loss = build(kind)(logits.half(), labels)

    assert loss.dtype == torch.float32
    assert loss.shape == ()
    torch.testing.assert_close(loss, build(kind)(logits.half().float(), labels))


@pytest.mark.parametrize("kind", LOSSES.names())
def test_a_class_without_training_images_gives_no_infinity_and_learns_to_stay_silent(kind):
    logits, _ = batch()
    logits.requires_grad_()
    labels = torch.tensor([0, 1, 3] * 3)

    loss = build(kind, counts=np.array([500, 120, 0, 1]))(logits, labels)
    loss.backward()

    assert math.isfinite(loss.item())
    # Every image pushes the logit of the class that it is not down, for float32 to tell.
    assert (logits.grad[:, 2] >= 0).all()
    assert logits.grad[:, 2].max() > 0
    # As a label, of a validation image:
    assert math.isfinite(build(kind, counts=np.array([9, 9, 0, 1]))(logits, labels * 0 + 2).item())


@pytest.mark.parametrize("kind", LOSSES.names())
def test_nothing_of_a_loss_is_saved_or_trained(kind):
    loss = build(kind)

    assert not loss.state_dict()
    assert not list(loss.parameters())


@pytest.mark.parametrize("kind", LOSSES.names())
def test_gradients_are_the_slopes_of_the_loss(kind):
    logits, labels = batch(num_images=3)
    loss = build(kind)

    # In float32: a long step and a tolerance for its rounding.
    assert torch.autograd.gradcheck(
        lambda z: loss(z, labels, torch.tensor([1.0, 2.0, 3.0, 4.0])),
        (logits.double().requires_grad_(),),
        eps=3e-2,
        atol=2e-3,
        rtol=1e-2,
    )


@pytest.mark.parametrize(
    ("kind", "options", "counts"),
    [
        ("ldam", {"max_margin": 0.0}, COUNTS),
        ("balanced_softmax", {}, np.full(4, 37)),
        ("logit_adjustment", {"tau": 0.0}, COUNTS),
        ("logit_adjustment", {"tau": 3.0}, np.full(4, 37)),
    ],
)
def test_it_is_cross_entropy_where_it_should_be(kind, options, counts):
    logits, labels = batch()

    loss = build(kind, counts, **options)(logits, labels)

    torch.testing.assert_close(loss, classification_loss(logits, labels))


def test_logit_adjustment_at_1_is_balanced_softmax():
    assert torch.equal(build("logit_adjustment")(*batch()), build("balanced_softmax")(*batch()))


@pytest.mark.parametrize("scale", [None, 8.0])
def test_the_margin_is_one_of_cosines_whatever_the_scale(scale):
    if scale is None:
        with pytest.raises(ConfigError, match=r"head: \{kind: cosine, scale: 30\}"):
            LOSSES["ldam"](LdamOptions(), COUNTS, scale=None)
        return
    cosines, labels = batch()[0] / SCALE, torch.zeros(9, dtype=torch.int64)
    ldam = LOSSES["ldam"](LdamOptions(max_margin=0.4), np.full(4, 12), scale=scale)

    loss = ldam(scale * cosines, labels)

    cosines[:, 0] -= 0.4
    torch.testing.assert_close(loss, classification_loss(scale * cosines, labels))


def test_a_class_is_right_only_by_its_margin():
    # Equally near to both classes, label 0: the loss is log(1 + exp(scale * margin)).
    ldam = LOSSES["ldam"](
        LdamOptions(), np.array([int(500 * 0.01 ** (c / 99)) for c in range(100)]), scale=1.0
    )
    for label, margin in ((0, 0.158), (50, 0.284), (99, 0.5)):
        logits = torch.full((1, 100), -torch.inf)
        logits[0, [label, 1]] = 0.0

        loss = ldam(logits, torch.tensor([label])).item()

        assert math.log(math.expm1(loss)) == pytest.approx(margin, abs=5e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda: LdamOptions(max_margin=-0.1), "max_margin=-0.1 must be from 0"),
        (lambda: LdamOptions(max_margin=math.nan), "max_margin=nan"),
        (lambda: LdamOptions(max_margin=2.1), "to 2"),
        (lambda: LogitAdjustmentOptions(tau=-1), "tau=-1 must be"),
        (lambda: LogitAdjustmentOptions(tau=math.inf), "tau=inf"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        options()


@pytest.mark.parametrize("counts", [[[1, 2]], [1.0, 2.0], [3, -1], [0, 0], []])
def test_counts_that_are_none_are_refused(counts):
    with pytest.raises(ValueError, match="counts"):
        build("cross_entropy", np.array(counts))
