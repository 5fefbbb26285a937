"""The schedule against the published code's numbers and PyTorch's own schedulers."""

import itertools
import math

import pytest
import torch

from fastssd.config import Budget
from fastssd.training.learning_rate import learning_rate

STEPS_PER_EPOCH = 7


def rates(config):
    """The rate of every step of every epoch, as one list an epoch."""
    return [
        [
            learning_rate(config, epoch * STEPS_PER_EPOCH + step, steps_per_epoch=STEPS_PER_EPOCH)
            for step in range(STEPS_PER_EPOCH)
        ]
        for epoch in range(config.epochs)
    ]


def by_epoch(config):
    """The rate of each epoch, which must not change within it."""
    whole = rates(config)
    assert all(len(set(of_epoch)) == 1 for of_epoch in whole)
    return [of_epoch[0] for of_epoch in whole]


def budget(**settings):
    return Budget(**{"batch_size": 1, "lr": 0.2, **settings})


BBN = {"epochs": 200, "lr": 0.1, "schedule": "multistep", "decay": 0.01, "warmup_epochs": 5}
MILESTONES = [120, 160]


def test_warm_up_and_milestones_are_those_of_bbns_recipe():
    rate_of = dict(enumerate(by_epoch(budget(**BBN, milestones=MILESTONES)), start=1))

    warm_up = [0.0467, 0.0600, 0.0733, 0.0867, 0.1]
    assert [rate_of[epoch] for epoch in range(1, 6)] == pytest.approx(warm_up, abs=5e-5)
    assert {rate_of[epoch] for epoch in range(5, 120)} == {0.1}
    assert [rate_of[epoch] for epoch in range(120, 160)] == pytest.approx([1e-3] * 40)
    assert [rate_of[epoch] for epoch in range(160, 201)] == pytest.approx([1e-5] * 41)


def test_milestones_may_stand_in_any_order():
    shuffled = budget(**BBN, milestones=MILESTONES[::-1])

    assert by_epoch(shuffled) == by_epoch(budget(**BBN, milestones=MILESTONES))


def test_the_cosine_of_the_reference_code_moves_once_an_epoch():
    rate_of = by_epoch(budget(epochs=5, lr=0.2))

    assert rate_of == pytest.approx([0.2, 0.181, 0.131, 0.069, 0.019], abs=5e-4)


@pytest.mark.parametrize("update", ["epoch", "step"])
def test_the_cosine_is_pytorchs(update):
    config = budget(epochs=9, lr=0.3, update=update)
    total = 9 * (1 if update == "epoch" else STEPS_PER_EPOCH)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    expected = []
    for _ in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()

    found = by_epoch(config) if update == "epoch" else [r for epoch in rates(config) for r in epoch]

    assert found == pytest.approx(expected, rel=1e-6)


def test_a_cosine_by_steps_falls_at_every_step_and_stays_above_zero():
    steps = [rate for epoch in rates(budget(epochs=4, update="step")) for rate in epoch]

    assert all(later < earlier for earlier, later in itertools.pairwise(steps))
    assert steps[0] == 0.2
    assert steps[-1] > 0


def test_warm_up_scales_whatever_schedule_it_meets():
    warm = by_epoch(budget(epochs=10, lr=0.4, warmup_epochs=2))
    cold = by_epoch(budget(epochs=10, lr=0.4))

    assert warm[0] / cold[0] == pytest.approx(2 / 3)
    assert warm[1:] == cold[1:]
    assert cold[5] == pytest.approx(0.2 * (1 + math.cos(math.pi / 2)))


def test_a_constant_rate_stays():
    assert set(by_epoch(budget(epochs=30, lr=0.25, schedule="constant"))) == {0.25}
