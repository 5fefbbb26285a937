import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from fastssd.config import Budget, LogConfig
from fastssd.core.processes import Stopped
from fastssd.data.draws import Draws
from fastssd.errors import FastssdError
from fastssd.methods.batch import Batch, Moment, Output
from fastssd.runtime.console import Console
from fastssd.runtime.stop_signal import StopSignal
from fastssd.training.trainer import Supervision, Trainer, Validation

NUM_IMAGES = 24
COUNTS = [200, 50, 10]  # many, medium, few
LABELS = torch.arange(NUM_IMAGES) % 3


class Toy(nn.Module):
    """A linear classifier with dropout on random features, which batches carry as their logits."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(5, 3)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch, at: Moment) -> Output:
        logits = self.linear(self.dropout(batch.frozen_logits))
        loss = nn.functional.cross_entropy(logits, batch.labels)
        return Output({"loss": loss}, {"task": logits.argmax(dim=1) == batch.labels})

    def after_step(self, at: Moment) -> None:
        self.steps += 1


class ToyBatches:
    """The same 24 images in every epoch, cut into micro-batches."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.features = torch.randn(NUM_IMAGES, 5, generator=torch.Generator().manual_seed(1))

    @property
    def steps_per_epoch(self) -> int:
        return NUM_IMAGES // self.budget.batch_size

    def batches(self, first_step, last_step):
        size = self.budget.batch_size // self.budget.accumulate
        batch_size = self.budget.batch_size
        for position in range(first_step * batch_size, last_step * batch_size, size):
            epoch, start = divmod(position, NUM_IMAGES)
            rows = np.arange(start, start + size)
            draws = Draws(rows, np.full_like(rows, epoch))
            yield Batch(
                draws=draws, labels=LABELS[rows], frozen_logits=self.features[rows] * (1 + epoch)
            )


@pytest.fixture
def trainer(tmp_path):
    """Return what makes a trainer of a toy in a folder that may hold a checkpoint."""

    def make(
        name="run", *, method=None, every=2, stop_at=None, scores=None, evaluate_every=1, **settings
    ):
        budget = Budget(**{"epochs": 3, "batch_size": 6, "lr": 0.1, **settings})
        folder: Path = tmp_path / name / "stage"
        folder.mkdir(parents=True, exist_ok=True)
        results = iter(scores or [])
        made = Trainer(
            method or Toy(),
            ToyBatches(budget),
            budget,
            accelerator=Accelerator(cpu=True),
            folder=folder,
            train_counts=COUNTS,
            seed=0,
            order="a stage",
            digest="a digest",
            supervision=Supervision(
                console=Console(enabled=False),
                log=LogConfig(every=every),
                validation=scores
                and Validation(
                    split="val",
                    every=evaluate_every,
                    measure=lambda: {"head": {"overall": 50.0, "class_mean": next(results)}},
                ),
                stop_signal=StopSignal(lambda: 15 if made.progress.step == stop_at else 0),
            ),
            synchronise=lambda module: None,
        )
        return made

    return make


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return load_file(trainer.folder / "weights.safetensors")


def assert_equal_weights(one: Trainer, other: Trainer) -> None:
    for name, value in weights(one).items():
        assert torch.equal(value, weights(other)[name]), name


def test_training_is_sgd_as_written_by_hand(trainer):
    made = trainer(momentum=0.9, weight_decay=0.1, schedule="constant")
    made.run()

    reference, batches = Toy(), made.batches
    velocity = [torch.zeros_like(value) for value in reference.parameters()]
    for epoch in range(3):
        start = epoch * batches.steps_per_epoch
        moment = Moment(epoch, 3, start, batches.steps_per_epoch)
        for batch in batches.batches(start, start + batches.steps_per_epoch):
            reference.zero_grad()
            reference(batch, moment).losses["loss"].backward()
            with torch.no_grad():
                for value, moving in zip(reference.parameters(), velocity, strict=True):
                    moving.mul_(0.9).add_(value.grad + 0.1 * value)
                    value -= 0.1 * moving
    for name, value in reference.named_parameters():
        torch.testing.assert_close(weights(made)[name], value.detach(), atol=1e-6, rtol=0)


def test_two_micro_batches_are_one_batch_of_the_same_images(trainer):
    whole, halves = trainer("whole"), trainer("halves", accumulate=2)
    whole.run()
    halves.run()
    for name, value in weights(whole).items():
        torch.testing.assert_close(value, weights(halves)[name], atol=1e-6, rtol=0)
    assert weights(halves)["steps"] == 12  # once a step, not once a micro-batch


def test_the_learning_rate_of_every_step_is_logged_as_planned(trainer, lines):
    made = trainer(every=1, epochs=4, schedule="cosine", update="step")
    made.run()
    logged = [line["lr"] for line in lines(made.folder / "metrics.jsonl")]
    planned = [0.05 * (1 + math.cos(math.pi * step / 16)) for step in range(16)]
    assert logged == pytest.approx(planned, abs=1e-12)


def test_losses_and_right_answers_of_a_window_are_logged_by_shot_group(trainer, lines):
    made = trainer(epochs=1, lr=1e-12, momentum=0.0, every=2)
    made.run()

    toy = Toy()
    logits = toy.linear(made.batches.features)
    losses = nn.functional.cross_entropy(logits, LABELS, reduction="none")
    hits = (logits.argmax(dim=1) == LABELS).float() * 100
    logged = lines(made.folder / "metrics.jsonl")
    assert [line["step"] for line in logged] == [2, 4]
    for window, line in enumerate(logged):
        rows = slice(12 * window, 12 * window + 12)
        assert line["losses"]["loss"] == pytest.approx(losses[rows].mean().item(), abs=1e-5)
        expected = {"overall": hits[rows].mean().item()}
        for label, group in enumerate(("many", "medium", "few")):
            expected[group] = hits[rows][LABELS[rows] == label].mean().item()
        assert line["accuracy"]["task"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 6, 12])
def test_a_stop_at_any_step_changes_neither_weights_nor_metrics(trainer, lines, step):
    straight = trainer("straight", method=Toy(dropout=0.5), every=3)
    straight.run()
    with pytest.raises(Stopped) as stopped:
        trainer("stopped", method=Toy(dropout=0.5), every=3, stop_at=step).run()
    assert stopped.value.signal_number == 15

    resumed = trainer("stopped", method=Toy(dropout=0.5), every=3)
    resumed.run()

    assert_equal_weights(straight, resumed)
    files = [each.folder / "metrics.jsonl" for each in (straight, resumed)]
    assert lines(files[0]) == lines(files[1])
    assert resumed.progress.images == straight.progress.images == 72


def test_a_signal_is_heeded_where_every_epoch_is_one_step(trainer):
    made = trainer(batch_size=24, stop_at=1)
    with pytest.raises(Stopped):
        made.run()
    assert made.progress.epoch == 1
    assert (made.folder / "checkpoint.safetensors").exists()


def test_the_time_of_evaluation_is_no_training_time(trainer, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    short, long = trainer("short", epochs=1), trainer("long", epochs=1, scores=[1.0])
    measure = long.supervision.validation.measure
    object.__setattr__(
        long.supervision.validation,
        "measure",
        lambda: [next(clock) for _ in range(500)] and measure(),
    )
    short.run()
    long.run()
    assert long.progress.seconds == short.progress.seconds


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(trainer):
    method = Toy()
    method.linear.weight.data *= 1e4  # so that they overflow in the third step
    made = trainer(method=method, lr=1e6, weight_decay=1e6)
    with pytest.raises(
        FastssdError, match=r"stage: a loss is no longer finite.*after step 4 of 12.*lower"
    ):
        made.run()
    assert not (made.folder / "weights.safetensors").exists()
    assert FastssdError.exit_code == 1


@pytest.mark.parametrize("last_step", [12, 5])
def test_weights_that_a_step_has_made_infinite_are_not_kept_though_its_loss_was_finite(
    trainer, last_step
):
    method = Toy()

    def after_step(at):
        method.steps += 1
        if int(method.steps) == last_step:
            method.linear.weight.data[0, 0] = float("inf")

    method.after_step = after_step
    made = trainer(method=method, stop_at=last_step if last_step < 12 else None)

    with pytest.raises(
        FastssdError, match=rf"stage: .*linear\.weight is not finite.*step {last_step} of 12.*lower"
    ):
        made.run()

    assert not (made.folder / "weights.safetensors").exists()
    resumed = trainer()
    resumed._load()
    assert resumed.progress.step == 4 * ((last_step - 1) // 4)
    assert bool(resumed.stage.linear.weight.isfinite().all())


def test_the_best_weights_are_those_of_the_best_evaluation(trainer, lines):
    made = trainer(epochs=4, scores=[10.0, 30.0, 20.0, 30.0])
    made.run()

    second_epoch = trainer("shorter", epochs=4, stop_at=8)
    with pytest.raises(Stopped):
        second_epoch.run()
    checkpoint = load_file(second_epoch.folder / "checkpoint.safetensors")
    best = load_file(made.folder / "best.safetensors")
    for name, value in best.items():
        assert torch.equal(value, checkpoint[f"model.{name}"])
    kinds = [line["kind"] for line in lines(made.folder / "metrics.jsonl")]
    assert kinds.count("evaluation") == 4
    assert made.progress.best == 30.0


def test_evaluation_comes_every_so_many_epochs_and_after_the_last(trainer, lines):
    made = trainer(epochs=5, scores=[1.0] * 9, evaluate_every=2)
    made.run()
    found = lines(made.folder / "metrics.jsonl")
    assert [line["epoch"] for line in found if line["kind"] == "evaluation"] == [1, 3, 4]


def test_metrics_go_on_without_gaps_after_lines_that_a_killed_run_left(trainer, lines):
    with pytest.raises(Stopped):
        trainer(stop_at=6).run()
    file = trainer().folder / "metrics.jsonl"
    with file.open("a") as metrics:
        metrics.write('{"kind": "train", "epoch": 1, "step": 8}\n{"kind": "tra')
    trainer().run()
    steps = [line["step"] for line in lines(file)]
    assert all(later - earlier == 2 for earlier, later in pairwise(steps))
    assert steps[-1] == 12


def test_a_finished_training_writes_its_weights_again_and_no_step(trainer):
    first = trainer()
    first.run()
    expected = weights(first)
    (first.folder / "weights.safetensors").unlink()
    before = (first.folder / "metrics.jsonl").read_text()

    again = trainer(method=Toy())
    again.run()

    for name, value in weights(again).items():
        assert torch.equal(value, expected[name])
    assert (first.folder / "metrics.jsonl").read_text() == before
    assert json.loads(before.splitlines()[-1])["step"] == 12


def test_every_micro_batch_and_step_is_told_its_moment(trainer):
    told = []

    class Told(Toy):
        def forward(self, batch, at):
            told.append(at)
            return super().forward(batch, at)

        def after_step(self, at):
            told.append(at)
            super().after_step(at)

    trainer(method=Told(), epochs=2, accumulate=2).run()

    assert told == [Moment(step // 4, 2, step, 4) for step in range(8) for _ in range(3)]
