"""The one training loop: it knows no stage and no format, only batches in and losses out."""

import json
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

import torch
from accelerate import Accelerator
from numpy.typing import ArrayLike
from torch import Tensor, nn

from fastssd.config import Budget, LogConfig
from fastssd.core.exchange import Exchange
from fastssd.core.files import append
from fastssd.core.processes import Stopped
from fastssd.data.draws import Draws
from fastssd.errors import FastssdError
from fastssd.methods.batch import Moment
from fastssd.models.seeding import seed_step
from fastssd.training.checkpoints import WEIGHTS, DivergedError, save_weights
from fastssd.training.learning_rate import learning_rate
from fastssd.training.meter import Meter
from fastssd.training.optimizer import Optimizer
from fastssd.training.resume import METRICS, TRACE, Progress, Resume
from fastssd.training.tracing import Trace

HeadAccuracies = dict[str, dict[str, float | None]]


class StepBatch(Protocol):
    """What the loop itself needs of a batch."""

    @property
    def draws(self) -> Draws:
        """The draws of this process."""

    @property
    def labels(self) -> Tensor:
        """(B,) int64."""

    @property
    def checksums(self) -> Tensor | None:
        """(B,) int64 of the pixels, where traced."""


class EpochBatches(Protocol):
    """Where batches come from."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""

    def batches(self, first_step: int, last_step: int) -> Generator[StepBatch, None, None]:
        """Yield the micro-batches of the steps from one to before another, over all epochs."""


class Observer(Protocol):
    """Who is told how training goes: `fastssd.runtime.console.Console`."""

    def warning(self, text: str) -> None:
        """Take a line that stands out."""

    def stage_started(
        self, title: str, *, epochs: int, steps_per_epoch: int, first_step: int = 0
    ) -> None:
        """Take that a stage starts, or goes on after the steps done before."""

    def progress(
        self,
        *,
        epoch: int,
        step: int,
        losses: Mapping[str, float],
        accuracy: Mapping[str, float],
        lr: float,
        images_per_second: float,
        data_wait_percent: float,
    ) -> None:
        """Take how far the stage is."""

    def evaluated(self, split: str, heads: Mapping[str, Mapping[str, float | None]]) -> None:
        """Take accuracies in percent, by head and then by group."""

    def stage_finished(self, seconds: float) -> None:
        """Take that the stage is done, and how long it took."""


class StopSignal(Protocol):
    """When to stop, the same on all processes: `fastssd.runtime.stop_signal.StopSignal`."""

    def at_step(self) -> int:
        """Return the signal that any process had been sent a step ago, or 0."""

    def now(self) -> int:
        """Return the signal that any process was sent, or 0."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Measuring a stage while it is trained.

    Attributes:
        split: Its name.
        every: Epochs between measurements; the last epoch is measured too.
        measure: Returns accuracies by head.
    """

    split: str
    every: int
    measure: Callable[[], HeadAccuracies]


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """What goes on around a stage's training.

    Attributes:
        console: Told what happens.
        log: How often.
        validation: What is measured during training, if there is a split for it.
        stop_signal: When to stop.
    """

    console: Observer
    log: LogConfig
    validation: Validation | None
    stop_signal: StopSignal


class Trainer:
    """Trains one stage in its folder, going on from the checkpoint there.

    Args:
        method: Its `forward(batch, moment)` gives losses and right answers.
        batches: What it is trained on.
        budget: Epochs, rate, optimizer.
        accelerator: Device, precision and processes.
        folder: The stage's folder, which exists.
        train_counts: (C,) training images of each class.
        seed: Of dropout.
        order: Of the draws; dropout depends on it, and not on the folder's name.
        digest: Of what the stage is trained by; what is saved carries it, and a checkpoint of
            another is not gone on from.
        supervision: Console, evaluation and signals.
        synchronise: Brings the processes' copies of the stage together, at log lines.
        title: As the console names the stage; its folder's name unless given.

    Attributes:
        progress: Where training is.
        stage: The stage, on its device, not wrapped.
    """

    def __init__(
        self,
        method: nn.Module,
        batches: EpochBatches,
        budget: Budget,
        *,
        accelerator: Accelerator,
        folder: Path,
        train_counts: ArrayLike,
        seed: int,
        order: str,
        digest: str,
        supervision: Supervision,
        synchronise: Callable[[nn.Module], None],
        title: str = "",
    ) -> None:
        self.batches = batches
        self.budget = budget
        self.accelerator = accelerator
        self.folder = folder
        self.title = title or folder.name
        self.seed = seed
        self.order = order
        self.digest = digest
        self.supervision = supervision
        self.synchronise = synchronise
        method = method.to(memory_format=torch.channels_last)
        self._wrapped = accelerator.prepare(method)
        if accelerator.scaler is not None:
            # The stages share it: one that a run resumes at must find it as any other does.
            accelerator.scaler.load_state_dict(type(accelerator.scaler)().state_dict())
        self.stage: Any = accelerator.unwrap_model(self._wrapped)
        self._optimizer = Optimizer(
            self.stage, budget, device=accelerator.device, scaler=accelerator.scaler
        )
        self.progress = Progress()
        exchange = Exchange(
            rank=accelerator.process_index,
            num_processes=accelerator.num_processes,
            device=accelerator.device,
            gather=accelerator.gather,
            reduce=self._sum,
        )
        self._resume = Resume(
            folder,
            recipe=digest,
            accelerator=accelerator,
            exchange=exchange,
            warn=supervision.console.warning,
        )
        self._meter = Meter(train_counts, device=accelerator.device, total=exchange.summed)
        self._trace = None
        if supervision.log.trace:
            self._trace = Trace(
                folder / TRACE,
                gather=accelerator.gather,
                device=accelerator.device,
                enabled=accelerator.is_main_process,
            )

    def run(self) -> None:
        """Train to the last epoch and leave the final weights in the folder."""
        self._load()
        steps_per_epoch = self.batches.steps_per_epoch
        self.supervision.console.stage_started(
            self.title,
            epochs=self.budget.epochs,
            steps_per_epoch=steps_per_epoch,
            first_step=self.progress.step,
        )
        started = time.perf_counter()
        last_step = self.budget.epochs * steps_per_epoch
        with closing(self.batches.batches(self.progress.step, last_step)) as batches:
            timed_batches = self._meter.timed(batches)
            while self.progress.epoch < self.budget.epochs:
                self._train_epoch(timed_batches)
                self._evaluate()
                self.progress.epoch += 1
                self._checkpoint()
                if signal_number := self.supervision.stop_signal.now():
                    raise Stopped(signal_number)
        self._save_weights("last")
        self.accelerator.wait_for_everyone()
        self.supervision.console.stage_finished(time.perf_counter() - started)

    def _train_epoch(self, batches: Iterator[StepBatch]) -> None:
        """Train from where the epoch is to its end."""
        end = (self.progress.epoch + 1) * self.batches.steps_per_epoch
        self._wrapped.train()
        self._meter.restart_clock()
        while self.progress.step < end:
            self._train_step(batches)
            self.progress.step += 1
            ends_epoch = self.progress.step == end
            at_log_line = self.progress.step % self.supervision.log.every == 0
            if ends_epoch:
                self.synchronise(self.stage)
            if ends_epoch or at_log_line:
                self._log()
            if not ends_epoch and (signal_number := self.supervision.stop_signal.at_step()):
                self._stop(signal_number)

    def _train_step(self, batches: Iterator[StepBatch]) -> None:
        step, accumulate = self.progress.step, self.budget.accumulate
        device, rank = self.accelerator.device, self.accelerator.process_index
        seed_step(self.seed, self.order, step, rank, device=device)
        moment = Moment(
            epoch=self.progress.epoch,
            epochs=self.budget.epochs,
            step=step,
            steps_per_epoch=self.batches.steps_per_epoch,
        )
        for micro_batch in range(accumulate):
            batch = next(batches)
            is_last = micro_batch == accumulate - 1
            with nullcontext() if is_last else self.accelerator.no_sync(self._wrapped):
                losses, correct = self._wrapped(batch, moment)
                self._optimizer.backward(losses, share=accumulate)
            self._meter.add(losses, correct, batch.labels)
            if self._trace is not None:
                self._trace.add(batch.draws, batch.checksums, losses)
        self._optimizer.step(
            learning_rate(self.budget, step, steps_per_epoch=self.batches.steps_per_epoch)
        )
        self.stage.after_step(moment)
        self._meter.num_images += self.budget.batch_size
        if self._trace is not None:
            self._trace.step(self.progress.epoch, step)

    def _log(self) -> None:
        """Write a line of metrics; the one place in an epoch that waits for the device."""
        losses, accuracy = self._meter.flush()
        images, seconds, wait = self._count_window()
        if not all(math.isfinite(loss) for loss in losses.values()):
            raise self._diverged(f"{self.title}: a loss is no longer finite ({losses})")
        line = {
            "lr": self._optimizer.rate,
            "losses": losses,
            "accuracy": accuracy,
            "images_per_second": images / seconds,
            "data_wait_percent": 100 * wait / seconds,
        }
        self._write_metrics({"kind": "train", **self._position(), **line})
        self.supervision.console.progress(
            epoch=self.progress.epoch,
            step=self.progress.step,
            losses=losses,
            accuracy={task: groups["overall"] for task, groups in accuracy.items()},
            lr=self._optimizer.rate,
            images_per_second=images / seconds,
            data_wait_percent=100 * wait / seconds,
        )

    def _count_window(self) -> tuple[int, float, float]:
        """Add the window's images and seconds to the progress, and return them."""
        images, wait = self._meter.num_images, self._meter.wait_seconds
        seconds = self._meter.restart_clock()
        self.progress.images += images
        self.progress.seconds += seconds
        self.progress.wait_seconds += wait
        return images, seconds, wait

    def _evaluate(self) -> None:
        """Measure on the validation split where it is due, and keep the best weights.

        Evaluation breaks off when the run is to stop; it is done again when the run goes on.
        """
        validation = self.supervision.validation
        epoch = self.progress.epoch
        at_end = epoch + 1 == self.budget.epochs
        if validation is None or ((epoch + 1) % validation.every and not at_end):
            return
        heads = validation.measure()
        self._meter.restart_clock()
        if signal_number := self.supervision.stop_signal.now():
            self._stop(signal_number)
        line = {"epoch": epoch, "step": self.progress.step, "heads": heads}
        self._write_metrics({"kind": "evaluation", "split": validation.split, **line})
        self.supervision.console.evaluated(validation.split, heads)
        # Equal to overall accuracy where the split has as many images of each class.
        score = sum(cast(float, groups["class_mean"]) for groups in heads.values()) / len(heads)
        if self.progress.best is None or score > self.progress.best:
            self.progress.best = score
            self._save_weights("best")

    def _position(self) -> dict[str, int]:
        return {"epoch": self.progress.epoch, "step": self.progress.step}

    def _write_metrics(self, line: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            append(self.folder / METRICS, json.dumps(line) + "\n")

    def _checkpoint(self) -> None:
        try:
            self._resume.save(
                self.progress,
                stage=self.stage,
                optimizer=self._optimizer.inner,
                window=self._meter.state(),
            )
        except DivergedError as error:
            raise self._diverged(str(error)) from error

    def _save_weights(self, which: str) -> None:
        if not self.accelerator.is_main_process:
            return
        try:
            save_weights(self.folder / WEIGHTS[which], self.stage, made_by=self.digest)
        except DivergedError as error:
            raise self._diverged(str(error)) from error

    def _diverged(self, what: str) -> FastssdError:
        step, of = self.progress.step, self.budget.epochs * self.batches.steps_per_epoch
        return FastssdError(
            f"{what}, after step {step} of {of}: the training has diverged: lower the learning "
            f"rate (it is {self.budget.lr:g} at its peak), or choose precision bf16 or no"
        )

    def _load(self) -> None:
        self.progress, window = self._resume.load(stage=self.stage, optimizer=self._optimizer.inner)
        self._meter.load_state(window)

    def _stop(self, signal_number: int) -> NoReturn:
        """Leave, after a checkpoint, as a signal asked."""
        self._count_window()
        self._checkpoint()
        raise Stopped(signal_number)

    def _sum(self, values: Tensor) -> Tensor:
        return cast(Tensor, self.accelerator.reduce(values, reduction="sum"))
