"""No step of any stage makes the host wait for the device, from the loader to the new weights."""

import pytest
import torch
from host_waits import NoHostWaits, cuda_refuses_waits

from fastssd.trainer import Trainer

WARM_UP = 2
"""Steps that may wait: constants go to the device once, memory is found once."""

VARIANTS = {
    "rotation and tables": [],
    "instance, images and an online teacher": [
        "features.task=instance",
        "balance.source=images",
        "distill.teacher=online",
        "augment.key=digits",
    ],
    "micro-batches and separate forward passes": [
        "features.accumulate=2",
        "features.forward=separate",
        "distill.accumulate=2",
        "precision=bf16",
    ],
}


@pytest.fixture
def guarded_run(monkeypatch, here, arguments, tmp_path):
    """Return what runs the tiny recipe with its steps under a guard, and gives their folders."""

    def run(guard, overrides):
        train_step, guarded = Trainer._train_step, set()

        def step(self, batches):
            if self.progress.step < WARM_UP:
                return train_step(self, batches)
            guarded.add(self.folder.name)
            with guard():
                return train_step(self, batches)

        monkeypatch.setattr(Trainer, "_train_step", step)
        always = ["log.trace=false", "deterministic=false", "data.validation=null"]
        assert here(arguments(tmp_path / "run", *always, *overrides)) == 0
        return guarded

    return run


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_step_reads_a_value_or_a_shape_that_the_device_has(guarded_run, variant):
    folders = guarded_run(NoHostWaits, VARIANTS[variant])

    assert {folder[:2] for folder in folders} >= {"1-", "2-", "3-", "4-"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("variant", VARIANTS)
def test_cuda_sees_no_step_wait(guarded_run, variant):
    folders = guarded_run(cuda_refuses_waits, [*VARIANTS[variant], "precision=fp16"])

    assert {folder[:2] for folder in folders} >= {"1-", "2-", "3-", "4-"}
