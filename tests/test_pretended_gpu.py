"""What the pretended GPU finds, or the tests that use it would prove nothing."""

import numpy as np
import pytest
import torch
from pretend_gpu import GPU, DeviceMixError, pretended_gpu, pretended_gpu_refuses_waits
from pretend_streams import UsedTooEarlyError
from torch import nn


def ones(*shape):
    return torch.ones(*shape, device="cuda:0")


def test_what_is_on_the_gpu_stays_there_and_mixes_with_nothing_else():
    with pretended_gpu():
        x = ones(2, 3)
        assert (x + torch.tensor(1.0)).device == (x * 2).device == GPU
        assert torch.zeros_like(x).device == x[:, 1:].device == GPU
        assert torch.tensor([1], device=GPU).device == torch.arange(3, device=GPU).device == GPU
        assert x.cpu().numpy().sum() == 6
        assert x.sum().item() == 6
        for mixed in (
            lambda: x + torch.ones(2, 3),
            lambda: torch.ones(2, 3).add_(x),
            lambda: x[torch.tensor([0])],
            lambda: nn.functional.cross_entropy(x, torch.tensor([0, 1])),
            lambda: torch.cat([x, torch.ones(2, 3)]),
            lambda: nn.Linear(3, 1)(x),
        ):
            with pytest.raises(DeviceMixError):
                mixed()
        for read in (x.numpy, lambda: np.asarray(x)):
            with pytest.raises(TypeError, match="cuda:0"):
                read()


def test_a_network_learns_there_what_it_learns_on_the_cpu():
    def trained(device):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)]
        network = nn.Sequential(*layers)
        x = torch.rand(8, 3, 3, 3)
        network, x = network.to(device), x.to(device)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, fused=True)
        for _ in range(3):
            loss = nn.functional.cross_entropy(network(x), torch.arange(8, device=x.device) % 2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return {name: values.cpu() for name, values in network.state_dict().items()}

    expected = trained(torch.device("cpu"))
    with pretended_gpu():
        found = trained(GPU)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "wait",
    [
        lambda: ones(2).sum().item(),
        lambda: bool(ones(2).any()),
        lambda: ones(2).cpu(),
        lambda: ones(2).tolist(),
        lambda: ones(2)[ones(2) > 0],
        lambda: ones(2).nonzero(),
        lambda: torch.ones(2).to(GPU),
        lambda: torch.ones(2).to(GPU, non_blocking=True),  # not page-locked
        lambda: torch.empty(2, pin_memory=True).to(GPU),
        lambda: torch.tensor([1.0, 2.0], device=GPU),
        lambda: ones(2).copy_(torch.ones(2)),
        lambda: torch.ones(2).copy_(ones(2)),
    ],
)
def test_a_wait_is_found(wait):
    with pretended_gpu():
        with pytest.raises(AssertionError), pretended_gpu_refuses_waits():
            wait()
        with pretended_gpu_refuses_waits():
            torch.empty(2, pin_memory=True).to(GPU, non_blocking=True)
            ones(3).copy_(torch.empty(3, pin_memory=True), True)
            ones(3)[torch.zeros(1, dtype=torch.int64, device=GPU)].sum() + ones(3).cumsum(0)
            torch.ones(3) + 1


def test_a_copy_is_late_and_must_be_waited_for():
    with pretended_gpu():
        source = torch.empty(2, pin_memory=True)
        copies, event = torch.cuda.Stream(), torch.cuda.Event()
        with torch.cuda.stream(copies):
            moved, late = (source.fill_(n).to(GPU, non_blocking=True) for n in (1, 2))
            event.record(copies)
        with pytest.raises(UsedTooEarlyError):
            moved + 1
        torch.cuda.current_stream().wait_event(event)
        assert not event.query()
        assert moved[:1].item() == 2  # the source was used again before the copy was over
        event.synchronize()
        source.fill_(3)
        assert event.query()
        assert late.tolist() == [2, 2]
