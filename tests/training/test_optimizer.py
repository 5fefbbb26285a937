"""SGD against float64 formulas, alone and under fp16's loss scale."""

import pytest
import torch
from pretend_gpu import GPU, pretended_gpu, pretended_gpu_refuses_waits
from torch import nn

from fastssd.config import Budget
from fastssd.training.optimizer import Optimizer

CPU = torch.device("cpu")
RATES = (0.1, 0.05, 0.02, 0.01)


def budget(**settings):
    return Budget(**{"epochs": 1, "batch_size": 4, "lr": 0.1, **settings})


def line(num_weights=40, seed=0):
    """Return a stage whose loss has its inputs as its gradient, and some inputs."""
    generator = torch.Generator().manual_seed(seed)
    stage = nn.ParameterDict({"weight": torch.randn(num_weights, generator=generator)})
    return stage, torch.randn(len(RATES), num_weights, generator=generator)


def loss_of(stage, inputs):
    return (stage["weight"] * inputs).sum()


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
def test_steps_are_sgd_with_momentum_and_weight_decay_in_float64(nesterov, scaled):
    stage, inputs = line()
    weight, velocity = stage["weight"].detach().double(), torch.zeros(40, dtype=torch.float64)
    settings = budget(momentum=0.9, weight_decay=0.01, nesterov=nesterov)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12) if scaled else None
    optimizer = Optimizer(stage, settings, device=CPU, scaler=scaler)

    for row, rate in zip(inputs, RATES, strict=True):
        optimizer.backward({"loss": loss_of(stage, row)})
        optimizer.step(rate)
        gradient = row.double() + 0.01 * weight
        velocity = 0.9 * velocity + gradient
        weight = weight - rate * (gradient + 0.9 * velocity if nesterov else velocity)

    torch.testing.assert_close(stage["weight"].double(), weight, rtol=0, atol=1e-6)
    assert optimizer.rate == RATES[-1]
    assert stage["weight"].grad is None


def test_named_losses_and_micro_batches_add_up_to_one_loss():
    settings = budget(momentum=0.0, weight_decay=0.0)
    (whole, inputs), (parts, _) = line(), line()
    together, apart = (Optimizer(stage, settings, device=CPU) for stage in (whole, parts))

    together.backward({"all": (whole["weight"] * inputs).sum() / 2})
    together.step(0.1)
    for pair in (inputs[:2], inputs[2:]):
        losses = {"one": loss_of(parts, pair[0]), "other": loss_of(parts, pair[1])}
        apart.backward(losses, share=2)
    apart.step(0.1)

    torch.testing.assert_close(parts["weight"], whole["weight"])


def test_weights_that_learn_nothing_stay():
    stage = nn.ParameterDict({"weight": torch.ones(3), "frozen": torch.ones(3)})
    stage["frozen"].requires_grad_(False)
    optimizer = Optimizer(stage, budget(weight_decay=0.1), device=CPU)

    optimizer.backward({"loss": (stage["weight"] * stage["frozen"]).sum()})
    optimizer.step(0.1)

    assert stage["frozen"].tolist() == [1, 1, 1]
    assert stage["weight"].tolist() == pytest.approx([1 - 0.1 * 1.1] * 3)


@pytest.mark.parametrize("left_out", [{0}, {0, 1}, {1}, {2}])
def test_a_gradient_beyond_fp16_leaves_its_step_out_and_halves_the_scale(left_out):
    (stage, inputs), (expected, _) = line(), line()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = Optimizer(stage, budget(), device=CPU, scaler=scaler)
    other = Optimizer(expected, budget(), device=CPU)

    for number, row in enumerate(inputs):
        before = stage["weight"].detach().clone()
        beyond = torch.inf if number in left_out else 1.0
        optimizer.backward({"loss": loss_of(stage, row * beyond)})
        optimizer.step(0.1)
        if number in left_out:
            assert torch.equal(stage["weight"], before)
            continue
        other.backward({"loss": loss_of(expected, row)})
        other.step(0.1)
        torch.testing.assert_close(stage["weight"], expected["weight"])

    assert scaler.get_scale() == 1024.0 / 2 ** len(left_out)


@pytest.mark.parametrize("scaled", [False, True])
def test_neither_backward_nor_step_waits_for_the_device(scaled):
    stage, inputs = line()
    with pretended_gpu():
        stage = stage.to(GPU)
        scaler = torch.amp.GradScaler("cuda") if scaled else None
        optimizer = Optimizer(stage, budget(), device=GPU, scaler=scaler)
        for number, row in enumerate(inputs.to(GPU)):
            losses = {"one": loss_of(stage, row), "other": loss_of(stage, row)}
            if number == 0:  # the scale goes to the device once
                optimizer.backward(losses, share=2)
                optimizer.step(0.1)
                continue
            with pretended_gpu_refuses_waits():
                optimizer.backward(losses, share=2)
                optimizer.step(0.1)
