import numpy as np
import pytest
import torch
from torch import nn

from fastssd.errors import ConfigError
from fastssd.models.frozen import freeze, recalibrate, set_batchnorm_mode


@pytest.fixture
def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.Dropout(0.5),
        nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2, momentum=0.1),
    )  # fmt: skip


def batches_of(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(size, 3, 4, 4, generator=generator) for size in sizes]


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module, before):
    return {
        name for name, value in module.state_dict().items() if not torch.equal(value, before[name])
    }


def test_a_frozen_network_gives_one_answer_an_image_and_gets_no_gradient(network):
    freeze(network)
    (images,) = batches_of(6)
    before = state_of(network)

    together = network(images)

    torch.testing.assert_close(together, torch.cat([network(image[None]) for image in images]))
    assert not together.requires_grad
    assert not changed(network, before)


@pytest.mark.parametrize("mode", ["frozen", "recalibrated"])
def test_running_statistics_stay_when_frozen_even_after_train_was_called(network, mode):
    freeze(network)
    network.train()
    set_batchnorm_mode(network, mode)
    before = state_of(network)

    network(*batches_of(6))

    assert not changed(network, before)


def test_in_batch_mode_each_batch_is_normalised_by_itself_and_the_statistics_drift(network):
    freeze(network)
    set_batchnorm_mode(network, "batch")
    before = state_of(network)

    output = network(*batches_of(6))

    torch.testing.assert_close(output.mean((0, 2, 3)), torch.zeros(2), rtol=0, atol=1e-5)
    assert {name.split(".")[1] for name in changed(network, before)} == {
        "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip
    assert not network[3].training, "dropout must be off"


def test_an_unknown_mode_is_answered_with_the_nearest(network):
    with pytest.raises(ConfigError, match="Did you mean 'recalibrated'"):
        set_batchnorm_mode(network, "recalibrate")


def pointwise(conv, x):
    weight = conv.weight.detach().double().numpy()[:, :, 0, 0]
    bias = conv.bias.detach().double().numpy()
    return np.einsum("oc,bchw->bohw", weight, x) + bias[:, None, None]


def test_recalibrated_statistics_are_the_means_of_the_batches_statistics(network):
    batches = batches_of(6, 5, 9)
    network(*batches_of(7))  # statistics that must not survive

    recalibrate(network, iter(batches))

    expected = {1: ([], []), 5: ([], [])}
    for batch in batches:
        x = batch.double().numpy()
        for conv, bn in [(0, 1), (4, 5)]:
            x = pointwise(network[conv], x)
            mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
            count = x.size / x.shape[1]
            expected[bn][0].append(mean.ravel())
            expected[bn][1].append(variance.ravel() * count / (count - 1))
            x = np.maximum((x - mean) / np.sqrt(variance + 1e-5), 0)
    for bn, (means, variances) in expected.items():
        np.testing.assert_allclose(network[bn].running_mean, np.mean(means, 0), atol=1e-6)
        np.testing.assert_allclose(network[bn].running_var, np.mean(variances, 0), rtol=1e-5)


def test_recalibration_touches_nothing_else_and_ends_in_eval_mode(network):
    before = state_of(network)

    recalibrate(network, batches_of(4, 4))

    assert {name.split(".")[1] for name in changed(network, before)} == {
        "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip
    assert not any(module.training for module in network.modules())
    assert (network[1].momentum, network[5].momentum) == (0.3, 0.1)


def test_recalibrating_twice_on_the_same_batches_gives_the_same_bits(network):
    recalibrate(network, batches_of(4, 4))
    once = state_of(network)
    recalibrate(network, batches_of(4, 4))

    assert not changed(network, once)


def test_without_batches_recalibration_is_refused_and_the_statistics_stay(network):
    network(*batches_of(4))
    before = state_of(network)

    with pytest.raises(ValueError, match="at least one batch"):
        recalibrate(network, [])

    assert not changed(network, before)


def test_an_interrupted_recalibration_leaves_the_momenta_as_they_were(network):
    def interrupted():
        yield from batches_of(4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recalibrate(network, interrupted())

    assert (network[1].momentum, network[5].momentum) == (0.3, 0.1)
    assert not any(module.training for module in network.modules())


def test_a_network_without_batchnorm_is_not_run_at_all():
    def unread():
        raise AssertionError("no batch is needed")
        yield

    recalibrate(nn.Linear(2, 2), unread())
