"""Runs on a GPU, pretended where there is none: the CPU's numbers, no mixed devices, no waits."""

import json
import os
import signal

import pytest
import torch
from accelerate.state import AcceleratorState
from host_waits import cuda_refuses_waits
from pretend_gpu import pretended_gpu, pretended_gpu_refuses_waits
from safetensors.torch import load_file

from fastssd.augment import executors
from fastssd.evaluation import report
from fastssd.training.trainer import Trainer

WARM_UP = 2
"""Steps that may wait: constants go to the device once, memory is found once."""

INSTANCE = "ssd.I.task={kind: instance, queue: 64, embedding: 16, mask_same_class: true}"
VARIANTS = {
    "images on the device": ["data.device_images=always"],
    "images from the host": ["data.device_images=never"],
    "instance, images and an online teacher": [
        INSTANCE,
        *(f"{label}.reads=images" for label in ("lws.model", "ssd.II", "ssd.III", "ssd.IV")),
        "data.device_images=never",
        "augment.train=imagenet",
        "augment.test=center",
    ],
    "other heads, tables and statistics": [
        "model.head=cosine",
        "batchnorm=recalibrated",
        "tables.store=features",
        "tables.views=2",
        "data.on_error=replace",
        "data.device_images=never",
    ],
    "top logits, micro-batches and separate forward passes": [
        *("ssd.II.reads=plan", "ssd.II.bind=S", "ssd.III.reads=S", "tables.topk=4"),
        "precision=fp16",
        "budgets.scratch.accumulate=2",
        "ssd.I.task.forward=separate",
    ],
    "other losses and classifiers made without training": [
        "methods=[ldam_drw, balanced_softmax, crt, tau_norm, ncm, la_posthoc]",
        "la_posthoc.model.tau=null",
        "ldam_drw.model.class_weights.from=0.5",
    ],
}


@pytest.fixture
def run(monkeypatch, here, arguments, tmp_path):
    """Return what runs the tiny recipe, and gives its rows and the weights of each stage."""
    monkeypatch.setattr(report, "write_figures", lambda *args, **kwargs: ([], []))

    def finished(name, overrides, code=0):
        AcceleratorState._reset_state(reset_partial_state=True)
        monkeypatch.setenv("ACCELERATE_USE_CPU", str(name == "cpu").lower())
        output = tmp_path / name
        of_run = arguments(output, "deterministic=false", "log.trace=false", *overrides)
        assert here(of_run) == code
        if code:
            return None
        stages = json.loads((output / "graph.json").read_text())["stages"]
        weights = {
            stage["folder"]: load_file(output / stage["folder"] / "weights.safetensors")
            for stage in stages
        }
        return json.loads((output / "report.json").read_text())["rows"], weights

    return finished


@pytest.fixture
def same_augmentation(monkeypatch):
    """Let both devices augment with PyTorch's operations."""
    for device in ("cpu", "cuda"):
        monkeypatch.setitem(executors.EXECUTORS, device, [])


@pytest.fixture
def guard_steps(monkeypatch):
    """Return what puts all steps but the first ones under a guard, and gives their folders."""

    def put(guard):
        train_step, folders = Trainer._train_step, set()

        def step(self, batches):
            if self.progress.step < WARM_UP:
                return train_step(self, batches)
            folders.add(self.folder.name)
            with guard():
                return train_step(self, batches)

        monkeypatch.setattr(Trainer, "_train_step", step)
        return folders

    return put


def trained(run):
    """Return the folders of a run's stages that have steps."""
    return run[1].keys() - {"tau_norm", "ncm", "la_posthoc"}


def assert_same(found, expected):
    (found_rows, found_weights), (rows, weights) = found, expected
    assert found_rows == rows
    for folder, values in weights.items():
        assert all(torch.equal(found_weights[folder][name], values[name]) for name in values)


@pytest.mark.usefixtures("same_augmentation")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_on_the_gpu_is_the_run_on_the_cpu_and_no_step_waits(variant, run, guard_steps):
    expected = run("cpu", [*VARIANTS[variant], "precision=no"])
    guarded = guard_steps(pretended_gpu_refuses_waits)
    with pretended_gpu():
        found = run("gpu", VARIANTS[variant])

    assert guarded == trained(found)
    assert_same(found, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("variant", VARIANTS)
def test_cuda_sees_no_step_wait(variant, run, guard_steps):
    guarded = guard_steps(cuda_refuses_waits)
    found = run("gpu", [*VARIANTS[variant], "precision=fp16"])

    assert guarded == trained(found)


@pytest.mark.usefixtures("same_augmentation")
def test_a_stopped_run_goes_on_there_to_the_same_end(run, monkeypatch):
    expected = run("cpu", [])
    train_step = Trainer._train_step

    def step(self, batches):
        if self.folder.name == "ssd-III" and self.progress.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        train_step(self, batches)

    with pretended_gpu():
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_train_step", step)
            run("gpu", [], code=128 + signal.SIGTERM)
        found = run("gpu", [])

    assert_same(found, expected)
