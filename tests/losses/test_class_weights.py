import math

import numpy as np
import pytest
import torch

from fastssd.errors import ConfigError
from fastssd.losses.classification import classification_loss
from fastssd.losses.registry import CLASS_WEIGHTS

CIFAR100_LT = np.array([int(500 * 0.01 ** (c / 99)) for c in range(100)])


def build(kind, **options):
    return CLASS_WEIGHTS[kind](CLASS_WEIGHTS[kind].Options(**options))


@pytest.mark.parametrize(
    ("kind", "options", "formula"),
    [
        ("effective_number", {"beta": 0.9999}, lambda n: 1e-4 / (1 - 0.9999**n)),
        ("effective_number", {"beta": 0.0}, lambda n: 1.0),
        ("inverse_power", {}, lambda n: 1 / n),
        ("inverse_power", {"power": 0.5}, lambda n: 1 / math.sqrt(n)),
    ],
)
def test_weights_are_the_formula_scaled_to_the_sum_of_one_a_class(kind, options, formula):
    weights = build(kind, **options).weights(CIFAR100_LT)

    raw = [formula(n) for n in CIFAR100_LT.tolist()]
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [100 * each / sum(raw) for each in raw], rtol=1e-5)


def test_published_weights_of_cifar100_lt():
    weights = build("effective_number", beta=0.9999).weights(CIFAR100_LT)

    assert weights[[0, 50, 99]] == pytest.approx([0.0449, 0.4571, 4.378], abs=6e-4)


@pytest.mark.parametrize("kind", ["effective_number", "inverse_power"])
def test_a_class_without_images_weighs_nothing_and_changes_no_loss(kind):
    with_gap = build(kind).weights(np.array([50, 0, 3]))
    without = build(kind).weights(np.array([50, 3]))
    logits = torch.tensor([[1.0, 0.0], [0.5, 2.0]])

    assert with_gap[1] == 0
    assert with_gap.sum() == pytest.approx(3)
    losses = [
        classification_loss(logits, torch.tensor([0, 1]), torch.from_numpy(weights))
        for weights in (with_gap[[0, 2]], without)
    ]
    torch.testing.assert_close(*losses)  # a weighted mean: only their ratio matters


def test_no_weights_are_none_at_any_time():
    assert build("none").weights(CIFAR100_LT) is None
    assert not build("none").active(199, 200)
    assert build("none").first_epoch(1) == 0


@pytest.mark.parametrize(
    ("share", "epochs", "first"),
    [(0.8, 200, 160), (0.8, 30, 24), (0.8, 3, 2), (0.0, 1, 0), (0.29, 100, 29), (0.5, 3, 2)],
)
def test_weights_hold_from_their_share_of_the_epochs_on(share, epochs, first):
    weights = build("inverse_power", from_=share)

    assert [weights.active(epoch, epochs) for epoch in range(epochs)] == [
        epoch >= first for epoch in range(epochs)
    ]


@pytest.mark.parametrize(
    ("share", "epochs", "message"),
    [
        (0.8, 1, r"from=0\.8 of 1 epochs .* at least 3 epochs or set from to 0$"),
        (0.8, 2, "at least 3 epochs"),
        (0.999, 200, "at least 501 epochs or set from to less than 0.9975"),
        (0.3, 1, "first epoch: train for at least 2 epochs, or set from to 0"),
        (0.01, 20, "at least 50 epochs"),
    ],
)
def test_weights_that_would_never_or_always_hold_are_refused_with_a_remedy_that_works(
    share, epochs, message
):
    weights = build("effective_number", from_=share)

    with pytest.raises(ConfigError, match=message):
        weights.active(0, epochs)
    fewest = int(str(_error(weights, epochs)).split("at least ")[1].split()[0])
    assert 0 < weights.first_epoch(fewest) < fewest
    with pytest.raises(ConfigError):
        weights.first_epoch(fewest - 1)


def _error(weights, epochs):
    with pytest.raises(ConfigError) as caught:
        weights.first_epoch(epochs)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("effective_number", {"from_": 1.0}, "from=1.0 must be at least 0 and below 1"),
        ("inverse_power", {"from_": -0.1}, "from=-0.1"),
        ("effective_number", {"beta": 1.0}, "beta=1.0 must be"),
        ("inverse_power", {"power": -1}, "power=-1 must be"),
        ("inverse_power", {"power": math.nan}, "power=nan"),
    ],
)
def test_options_that_mean_nothing_are_refused(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        build(kind, **options)


def test_one_weight_a_class_or_none():
    with pytest.raises(ValueError, match=r"\(2,\) for 3 classes"):
        classification_loss(torch.zeros(4, 3), torch.zeros(4).long(), torch.ones(2))
