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
from torch import nn

from fastssd.config import Budget, LogConfig
from fastssd.core.processes import Processes
from fastssd.data.dataset import open_dataset
from fastssd.data.decode.decoders import build_decoder
from fastssd.data.workers import Workers
from fastssd.methods.batch import Batch
from fastssd.models.compiling import compile_backbones
from fastssd.recipe_file import load_recipe
from fastssd.runtime.build import Prepared, prepare, untrained
from fastssd.runtime.console import Console
from fastssd.runtime.context import Context
from fastssd.runtime.environment import set_algorithms
from fastssd.runtime.make_graph import make_graph
from fastssd.runtime.stop_signal import StopSignal
from fastssd.training.checkpoints import WEIGHTS, save_weights
from fastssd.training.trainer import EpochBatches, StepBatch, Supervision, Trainer

PREFETCH = 4
"""Finished batches that wait for a step, at most."""
_RECIPE = """
output: unset
data: {path: unset, test: train}
augment: {size: 224}
budgets:
  # More epochs than are taken: the rate and the draws of a long training.
  scratch: {epochs: 10000, batch_size: 256, lr: 0.1}
tables: {views: 2}
"""


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
    """Batches that are there: one, again and again."""

    def __init__(self, batch: StepBatch) -> None:
        self.batch = batch
        self.steps_per_epoch = 1

    def batches(self, first_step: int, last_step: int) -> Generator[StepBatch, None, None]:
        """Yield the batch."""
        for _ in range(first_step, last_step):
            yield self.batch


class Measured:
    """Batches of another that take the time from one of them to the last.

    What prepares the batches goes on to the end as it would in the middle of an epoch: it is asked
    for more of them than are given out.

    Args:
        inner: Its batches.
        steps: How many are given out, as one epoch.
        warm_up: Steps that are not counted; with real batches, as many as are prepared ahead.
    """

    def __init__(self, inner: EpochBatches, *, steps: int, warm_up: int) -> None:
        self.inner, self.steps_per_epoch, self._warm_up = inner, steps, warm_up
        self._stamps: list[float] = []

    @property
    def seconds_per_step(self) -> float:
        """Mean over the counted steps, with their batches' coming."""
        first, last = self._stamps
        return (last - first) / (self.steps_per_epoch - 1 - self._warm_up)

    def batches(self, first_step: int, last_step: int) -> Generator[StepBatch, None, None]:
        """Yield the inner batches."""
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
        self._workers = Workers(
            rank=0,
            num_processes=1,
            threads=setting.threads,
            prefetch=PREFETCH,
            device=self._accelerator.device,
        )
        self._overrides = [
            f"data.path={setting.dataset}",
            f"augment.size={setting.size}",
            f"model.backbone={setting.backbone}",
            f"precision={setting.precision}",
            f"budgets.scratch.batch_size={setting.batch_size}",
        ]

    def stage(self, label: str, *options: str) -> Prepared:
        """Return a stage with its real batches.

        What it stands on has random weights: they take as long as trained ones.

        Args:
            label: The stage's, such as ``ssd.III``.
            options: Of its method, as the command line has them.
        """
        path = self._setting.output / "recipe.yaml"
        path.write_text(_RECIPE, encoding="utf-8")
        recipe = load_recipe(
            path, [f"methods=[{label.partition('.')[0]}]", *self._overrides, *options]
        )
        set_algorithms(recipe.config)  # as a run does: cuDNN tries several
        graph = make_graph(recipe)
        stage = next(each for each in graph.stages if each.label == label)
        output = self._setting.output / stage.digest[:16]
        context = Context(
            config=recipe.config,
            dataset=self._dataset,
            decoder=self._decoder,
            workers=self._workers,
            output=output,
            processes=Processes(autocast=self._accelerator.autocast),
        )
        needed = [*stage.sources.values()]
        for source in needed:
            needed += source.sources.values()
        for source in reversed(needed):  # each after those that it stands on
            file = output / source.folder / WEIGHTS["last"]
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                save_weights(file, untrained(source, context))
        prepared = prepare(stage, context)
        if self._setting.compile:
            compile_backbones(prepared.method)
        return prepared

    def ready(self, prepared: Prepared) -> Ready:
        """Return a stage's first batch, on the device and augmented, to be given again."""
        with closing(prepared.batches.batches(0, 1)) as batches:
            batch: Batch = next(batches)
        return Ready(dataclasses.replace(batch, labels=batch.labels.clone()))

    def timed(
        self, method: nn.Module, batches: EpochBatches, *, steps: int, warm_up: int
    ) -> Callable[[], float]:
        """Return what trains a method for some steps and gives the milliseconds of one."""
        budget = Budget(epochs=1, batch_size=self._setting.batch_size, lr=1e-3, schedule="constant")

        def run() -> float:
            measured = Measured(batches, steps=steps, warm_up=warm_up)
            with tempfile.TemporaryDirectory(dir=self._setting.output) as folder:
                trainer = Trainer(
                    method,
                    measured,
                    budget,
                    accelerator=self._accelerator,
                    folder=Path(folder),
                    train_counts=[100] * self.num_classes,
                    seed=0,
                    order="benchmark",
                    digest="benchmark",
                    supervision=Supervision(
                        console=Console(enabled=False),
                        log=LogConfig(),
                        validation=None,
                        stop_signal=StopSignal(lambda: 0),
                    ),
                    synchronise=lambda module: None,
                )
                trainer.run()
            self._accelerator.free_memory()
            return 1000 * measured.seconds_per_step

        return run
