"""A stage's checkpoints and logs: what is gone on from after kills, damage and full disks."""

import json
import os
import resource
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from pretend_processes import together
from torch import nn

from fastssd.errors import DataError
from fastssd.training.meter import Meter
from fastssd.training.resume import CHECKPOINT, METRICS, TRACE, Progress, Resume

PREVIOUS, NEXT = "checkpoint.previous.safetensors", "checkpoint.next.safetensors"


def alone():
    return together(1, lambda process: process)[0]


class Stage(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, images):
        return self.norm(self.first(images))


class Run:
    """A stage that is trained by hand, a log line a step."""

    def __init__(self, folder, *, recipe="a recipe", process=None):
        process = process or alone()
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.warnings = []
        self.stage = Stage()
        self.optimizer = torch.optim.SGD(self.stage.parameters(), lr=0.1, momentum=0.9)
        self.resume = Resume(
            folder,
            recipe=recipe,
            accelerator=process,
            exchange=process.exchange,
            warn=self.warnings.append,
        )
        self.progress, self.window = self.resume.load(stage=self.stage, optimizer=self.optimizer)

    def train(self, to):
        for step in range(self.progress.step, to):
            images = torch.from_numpy(np.random.default_rng(step).random((5, 3), np.float32))
            self.optimizer.zero_grad()
            self.stage(images).pow(2).sum().backward()
            self.optimizer.step()
            for name in (METRICS, TRACE):
                with (self.folder / name).open("a") as file:
                    file.write(json.dumps({"step": step}) + "\n")
            self.progress.step = step + 1
        return self

    def save(self, window=None):
        window = window or {"loss": torch.tensor(float(self.progress.step))}
        self.resume.save(self.progress, stage=self.stage, optimizer=self.optimizer, window=window)
        return self

    def steps(self, name=METRICS):
        return [json.loads(line)["step"] for line in (self.folder / name).read_text().splitlines()]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "ssd-I"


@pytest.fixture
def trained(folder):
    """Three checkpoints were written, at steps 2, 4 and 6; two of them are kept."""
    run = Run(folder)
    for step in (2, 4, 6):
        run.train(step).save()
    return run


@pytest.fixture
def straight(tmp_path):
    return Run(tmp_path / "straight").train(10)


def assert_ends_like(run, straight):
    run.train(10)
    for name, value in run.stage.state_dict().items():
        assert torch.equal(value, straight.stage.state_dict()[name]), name
    assert run.steps() == run.steps(TRACE) == list(range(10))


@contextmanager
def files_of_at_most(num_bytes):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "torn":
        content = content[: len(content) // 2]
    elif how == "altered":
        content[-9] ^= 16
    elif how == "empty":
        content = b""
    path.write_bytes(content)


def test_without_a_checkpoint_training_begins_and_old_logs_are_emptied(folder):
    folder.mkdir()
    (folder / METRICS).write_text('{"step": 0}\n{"st')
    run = Run(folder)
    assert run.progress == Progress()
    assert (run.window, run.warnings, run.steps()) == ({}, [], [])


def test_training_goes_on_from_the_last_checkpoint(trained, folder, straight):
    trained.train(8)  # to be done again
    with (folder / METRICS).open("a") as file:
        file.write('{"st')

    run = Run(folder)

    assert (run.progress.step, run.window["loss"], run.warnings) == (6, 6.0, [])
    assert_ends_like(run, straight)


@pytest.mark.parametrize("how", ["torn", "altered", "empty"])
def test_of_a_damaged_checkpoint_the_one_before_is_used_and_the_logs_go_back_with_it(
    trained, folder, straight, how
):
    damage(folder / CHECKPOINT, how)

    run = Run(folder)

    assert run.progress.step == 4
    assert str(folder / CHECKPOINT) in run.warnings[0]
    assert_ends_like(run, straight)


def test_a_damaged_checkpoint_never_takes_the_place_of_a_good_one(trained, folder):
    damage(folder / CHECKPOINT, "altered")
    Run(folder)
    assert Run(folder).progress.step == 4  # still, if killed before the next is written
    Run(folder).train(5).save()
    damage(folder / CHECKPOINT, "altered")
    assert Run(folder).progress.step == 4


def test_where_no_checkpoint_is_whole_the_message_says_what_to_delete(trained, folder):
    damage(folder / CHECKPOINT, "altered")
    damage(folder / PREVIOUS, "torn")
    with pytest.raises(DataError, match=r"ssd-I: every checkpoint is damaged.*delete"):
        Run(folder)
    assert (folder / METRICS).stat().st_size  # nothing was cut


@pytest.mark.parametrize("name", [METRICS, TRACE])
def test_where_a_log_lacks_lines_the_checkpoint_before_brings_them_back(
    trained, folder, straight, name
):
    lines = (folder / name).read_text().splitlines(keepends=True)
    (folder / name).write_text("".join(lines[:5]))

    run = Run(folder)

    assert run.progress.step == 4
    assert str(folder / name) in run.warnings[0]
    assert_ends_like(run, straight)


def test_a_log_that_no_checkpoint_knows_is_named_and_training_goes_on(trained, folder):
    (folder / METRICS).write_text('{"step": 7}\n' * 6)
    run = Run(folder)
    assert run.progress.step == 6
    assert all(METRICS in warning for warning in run.warnings)
    assert len(run.warnings) == 2


def test_a_checkpoint_of_another_recipe_is_not_gone_on_from(trained, folder):
    with pytest.raises(DataError, match="damaged"):
        Run(folder, recipe="another")
    run = Run(folder)
    assert run.progress.step == 6


def test_a_checkpoint_copied_from_another_stage_is_not_gone_on_from(trained, folder, tmp_path):
    other = Run(tmp_path / "balanced_softmax").train(9).save()
    (folder / CHECKPOINT).write_bytes((other.folder / CHECKPOINT).read_bytes())
    run = Run(folder)
    assert run.progress.step == 4
    assert "balanced_softmax" in run.warnings[0]


class Killed(BaseException):
    pass


def test_a_kill_before_any_operation_of_a_save_leaves_a_checkpoint_to_go_on_from(
    tmp_path, monkeypatch, trained, folder, straight
):
    real = {name: getattr(os, name) for name in ("fsync", "replace", "open", "unlink")}
    number, kills = 0, 0
    left = 0

    def operation(name):
        def call(*arguments, **options):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return real[name](*arguments, **options)

        return call

    while True:
        place = tmp_path / str(number) / folder.name
        shutil.copytree(folder, place)
        run = Run(place)
        left = number
        with monkeypatch.context() as patched:
            for name in real:
                patched.setattr(os, name, operation(name))
            try:
                run.train(8)
                run.save()
            except Killed:
                kills += 1
            else:
                break
        resumed = Run(place)
        assert resumed.progress.step in (6, 8), number
        assert resumed.warnings == []
        assert_ends_like(resumed, straight)
        number += 1
    assert kills >= 8


def test_a_full_disk_names_the_file_and_leaves_both_checkpoints(trained, folder, straight):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    with files_of_at_most(1000), pytest.raises(DataError, match=r"checkpoint.*make room"):
        trained.save()

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert_ends_like(Run(folder), straight)


def test_a_process_killed_between_the_two_names_of_a_save_loses_nothing(trained, folder, straight):
    trained.train(8).save()
    (folder / CHECKPOINT).rename(folder / NEXT)  # and the one before has its name already

    run = Run(folder)

    assert run.progress.step == 8
    assert (folder / CHECKPOINT).exists()
    assert not (folder / NEXT).exists()
    assert_ends_like(run, straight)


def test_every_process_goes_on_with_its_own_statistics_and_sums(folder):
    def first(process):
        run = Run(folder, process=process).train(3)
        run.stage.norm.running_mean += 100 * process.process_index
        run.progress.step += process.process_index  # of which the window is made
        return run.save().stage.norm.running_mean.clone()

    means = together(2, first)
    runs = together(2, lambda process: Run(folder, process=process))

    for rank, run in enumerate(runs):
        assert torch.equal(run.stage.norm.running_mean, means[rank])
        assert run.window["loss"] == 3 + rank


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3), (3, 2)])
def test_with_another_number_of_processes_statistics_are_averaged_and_sums_kept(
    folder, before, after
):
    together(before, lambda process: Run(folder, process=process).train(3).save())
    runs = together(after, lambda process: Run(folder, process=process))
    assert [run.window["loss"] for run in runs] == [3 * before, *[0] * (after - 1)]
    means = [run.stage.norm.running_mean for run in runs]
    assert all(torch.equal(mean, means[0]) for mean in means)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (3, 2)])
@pytest.mark.parametrize("more", [0, 1, 70])
def test_a_stop_before_the_next_log_line_keeps_the_window_of_another_number_of_processes(
    folder, before, after, more
):
    counts = np.array([300, 50, 5])
    losses = np.random.default_rng(0).random((before, 5)).astype(np.float32)

    def meter(process):
        made = Meter(counts, device=process.device, total=process.exchange.summed)
        return made, Run(folder, process=process)

    def add(made, loss, task="task"):
        label = torch.zeros(1, dtype=torch.int64)
        made.add({"z": torch.tensor(loss), "a": torch.tensor(1.0)}, {task: label == 0}, label)

    def first(process):
        made, run = meter(process)
        for loss in losses[process.process_index]:
            add(made, loss)
        run.train(2).save(window=made.state())

    def stopped(process):
        made, run = meter(process)
        made.load_state(run.window)
        for _ in range(more):
            add(made, 0.5)
        run.train(3).save(window=made.state())

    def last(process):
        made, run = meter(process)
        made.load_state(run.window)
        add(made, 0.5)
        return made.flush()

    together(before, first)
    together(after, stopped)
    flushed = together(after, last)

    total = losses.sum(dtype=np.float64) + 0.5 * after * (more + 1)
    for means, accuracy in flushed:
        assert means["z"] == pytest.approx(total / (losses.size + after * (more + 1)), rel=1e-6)
        assert means["a"] == 1.0
        assert accuracy["task"] == {"overall": 100.0, "many": 100.0}
