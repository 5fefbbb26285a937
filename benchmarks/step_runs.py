"""Stages ready to be trained for a while, by the trainer itself, on real or on ready batches."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator
from fastssd.runtime.jobs import jobs_of
from torch import nn

from fastssd.config import (
    AugmentConfig,
    BalanceConfig,
    Config,
    DataConfig,
    DistillConfig,
    FeaturesConfig,
    FrozenConfig,
    LogConfig,
    ModelConfig,
    TrainingConfig,
)
from fastssd.data.dataset import open_dataset
from fastssd.data.decode.decoders import build_decoder
from fastssd.methods.batch import Batch
from fastssd.models.compiling import compile_backbones
from fastssd.runtime.build import Prepared, prepare
from fastssd.runtime.console import Console
from fastssd.runtime.context import Context
from fastssd.runtime.environment import set_algorithms
from fastssd.runtime.stop_signal import Agreement
from fastssd.training.batches import Workers
from fastssd.training.checkpoints import WEIGHTS, save_weights
from fastssd.training.trainer import EpochFeed, StepBatch, Supervision, Trainer

PREFETCH = 4
"""Finished batches that wait for a step, at most."""
_EPOCHS = 10_000
"""More than are taken: the rate and the draws of a long training."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained.

    Attributes:
        dataset: A dataset directory.
        output: Where runs are kept.
        backbone: Its name.
        size: Side of the images, in pixels.
        batch_size: Images a step.
        precision: ``no`` or ``bf16``.
        compile: Whether the networks are.
        threads: Of the loader.
    """

    dataset: Path
    output: Path
    backbone: str
    size: int
    batch_size: int
    precision: str
    compile: bool
    threads: int


class Ready:
    """A feed whose batches are there: one batch, again and again."""

    def __init__(self, batch: StepBatch) -> None:
        self.batch = batch
        self.steps_per_epoch = 1

    def batches(self, first_step: int, last_step: int) -> Generator[StepBatch, None, None]:
        """Yield the batch."""
        for _ in range(first_step, last_step):
            yield self.batch


class Measured:
    """A feed that takes the time from one of its batches to its last.

    What prepares the batches goes on to the end as it would in the middle of an epoch: it is asked
    for more of them than are given out.

    Args:
        inner: Its batches.
        steps: How many are given out, as one epoch.
        warm_up: Steps that are not counted; with real batches, as many as are prepared ahead.
    """

    def __init__(self, inner: EpochFeed, *, steps: int, warm_up: int) -> None:
        self.inner, self.steps_per_epoch, self._warm_up = inner, steps, warm_up
        self._stamps: list[float] = []

    @property
    def seconds_per_step(self) -> float:
        """Mean over the counted steps, with their batches' coming."""
        first, last = self._stamps
        return (last - first) / (self.steps_per_epoch - 1 - self._warm_up)

    def batches(self, first_step: int, last_step: int) -> Generator[StepBatch, None, None]:
        """Yield the inner feed's."""
        with closing(self.inner.batches(first_step, last_step + self._warm_up)) as batches:
            for number, batch in enumerate(islice(batches, last_step - first_step)):
                if number in (self._warm_up, self.steps_per_epoch - 1):
                    if torch.cuda.is_available():
                        torch.cuda.synchronize()
                    self._stamps.append(time.perf_counter())
                yield batch


class Runs:
    """Stages on one dataset, prepared once, and their steps timed.

    Args:
        setting: What is trained.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._accelerator = Accelerator(mixed_precision=setting.precision)
        self._dataset = open_dataset(setting.dataset)
        self._decoder = build_decoder("auto", threads=setting.threads)
        self.num_classes = len(self._dataset.classes)

    def stage(self, folder: str, *, task: str = "none", teacher: str = "table") -> Prepared:
        """Return a stage with its real feed.

        What it stands on has random weights: they take as long as trained ones.

        Args:
            folder: Of its job, such as ``3-distill``.
            task: Self-supervised, of stage I.
            teacher: Of stage III.
        """
        context = self._context(task, teacher)
        jobs = {job.folder: job for job in jobs_of(context.config)}
        for needed in ("1-features", "2-balance"):
            file = context.output / needed / WEIGHTS["last"]
            if folder == "3-distill" and not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                save_weights(file, prepare(jobs[needed], context).stage)
        (context.output / folder).mkdir(parents=True, exist_ok=True)
        prepared = prepare(jobs[folder], context)
        if self._setting.compile:
            compile_backbones(prepared.stage)
        return prepared

    def ready(self, prepared: Prepared) -> Ready:
        """Return a feed of a stage's first batch, on the device and augmented."""
        with closing(prepared.feed.batches(0, 1)) as batches:
            batch: Batch = next(batches)
        return Ready(dataclasses.replace(batch, labels=batch.labels.clone()))

    def timed(
        self, stage: nn.Module, feed: EpochFeed, *, steps: int, warm_up: int
    ) -> Callable[[], float]:
        """Return what trains a stage for some steps and gives the milliseconds of one."""
        training = TrainingConfig(
            epochs=1, batch_size=self._setting.batch_size, lr=1e-3, schedule="constant"
        )

        def run() -> float:
            measured = Measured(feed, steps=steps, warm_up=warm_up)
            with tempfile.TemporaryDirectory(dir=self._setting.output) as folder:
                trainer = Trainer(
                    stage,
                    measured,
                    training,
                    accelerator=self._accelerator,
                    folder=Path(folder),
                    train_counts=[100] * self.num_classes,
                    seed=0,
                    recipe="",
                    supervision=Supervision(
                        console=Console(enabled=False),
                        log=LogConfig(),
                        validation=None,
                        agreement=Agreement(lambda: 0),
                    ),
                    synchronise=lambda module: None,
                )
                trainer.run()
            self._accelerator.free_memory()
            return 1000 * measured.seconds_per_step

        return run

    def _context(self, task: str, teacher: str) -> Context:
        setting, device = self._setting, self._accelerator.device
        output = setting.output / f"{task}-{teacher}"
        output.mkdir(parents=True, exist_ok=True)
        config = Config(
            output=str(output),
            data=DataConfig(path=str(setting.dataset), test="train"),
            augment=AugmentConfig(size=setting.size),
            model=ModelConfig(backbone=setting.backbone),
            precision=setting.precision,
            features=FeaturesConfig(
                task=task, epochs=_EPOCHS, batch_size=setting.batch_size, queue=65_536
            ),
            balance=BalanceConfig(batch_size=setting.batch_size),
            distill=DistillConfig(teacher=teacher, epochs=_EPOCHS, batch_size=setting.batch_size),
            frozen=FrozenConfig(views=2),
        )
        set_algorithms(config)  # as a run does: cuDNN tries several
        return Context(
            config=config,
            dataset=self._dataset,
            decoder=self._decoder,
            workers=Workers(
                rank=0, num_processes=1, threads=setting.threads, prefetch=PREFETCH, device=device
            ),
            output=output,
            is_main=True,
            autocast=self._accelerator.autocast,
            reduce=lambda values: values,
            barrier=lambda: None,
            stop_if_asked=lambda: None,
        )
