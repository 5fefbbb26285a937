"""Runs on a GPU that there is not: the CPU's numbers, no devices mixed, no waits, no races."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from pretend_gpu import GPU, DeviceMixError, pretended_gpu, pretended_gpu_refuses_waits
from pretend_streams import UsedTooEarlyError
from safetensors.torch import load_file
from torch import nn

from fastssd.augment import executors
from fastssd.evaluation import report
from fastssd.trainer import Trainer

WARM_UP = 2
"""Steps that may wait: constants go to the device once, memory is found once."""

VARIANTS = {
    "images on the device": ["data.device_images=always"],
    "images from the host": ["data.device_images=never"],
    "instance, images and an online teacher": [
        "features.task=instance",
        "features.mask_same_class=true",
        "balance.source=images",
        "distill.teacher=online",
        "data.device_images=never",
        "augment.query=imagenet",
        "augment.test=center",
    ],
    "other heads, tables and statistics": [
        "model.head=cosine",
        "frozen.batchnorm=recalibrated",
        "frozen.store=features",
        "frozen.views=2",
        "data.on_error=replace",
        "data.device_images=never",
    ],
    "top logits, micro-batches and separate forward passes": [
        "frozen.store=topk",
        "frozen.topk=4",
        "precision=fp16",
        "features.accumulate=2",
        "features.forward=separate",
        "distill.accumulate=2",
    ],
}


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


@pytest.fixture
def run(monkeypatch, here, arguments, tmp_path):
    """Return what runs the tiny recipe, and gives its rows and the weights of each stage."""
    for device in ("cpu", "cuda"):  # what both have
        monkeypatch.setitem(executors.EXECUTORS, device, [])
    monkeypatch.setattr(report, "write_figures", lambda *args, **kwargs: [])

    def finished(name, overrides, code=0):
        AcceleratorState._reset_state(reset_partial_state=True)
        output = tmp_path / name
        of_run = arguments(output, "deterministic=false", "log.trace=false", *overrides)
        assert here(of_run) == code
        if code:
            return None
        files = output.glob("*/weights.safetensors")
        weights = {path.parent.name: load_file(path) for path in files}
        assert len(weights) == 6
        return json.loads((output / "report.json").read_text())["rows"], weights

    return finished


@pytest.fixture
def no_step_waits(monkeypatch):
    """Let steps wait for no pretended GPU but the first ones; gives the folders of the others."""
    train_step, folders = Trainer._train_step, set()

    def step(self, batches):
        if self.progress.step < WARM_UP:
            return train_step(self, batches)
        folders.add(self.folder.name)
        with pretended_gpu_refuses_waits():
            return train_step(self, batches)

    monkeypatch.setattr(Trainer, "_train_step", step)
    return folders


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_on_the_gpu_is_the_run_on_the_cpu(variant, run, no_step_waits):
    rows, weights = run("cpu", [*VARIANTS[variant], "precision=no"])
    with pretended_gpu():
        found_rows, found = run("gpu", VARIANTS[variant])

    assert len(no_step_waits) == 6
    assert found_rows == rows
    for folder, expected in weights.items():
        assert all(torch.equal(found[folder][name], expected[name]) for name in expected), folder


def test_a_stopped_run_goes_on_there_to_the_same_end(run, monkeypatch):
    rows, weights = run("cpu", [])
    train_step = Trainer._train_step

    def step(self, batches):
        if self.folder.name == "3-distill" and self.progress.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        train_step(self, batches)

    with pretended_gpu():
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_train_step", step)
            run("gpu", [], code=128 + signal.SIGTERM)
        found_rows, found = run("gpu", [])

    assert found_rows == rows
    for folder, expected in weights.items():
        assert all(torch.equal(found[folder][name], expected[name]) for name in expected), folder
