"""A run's stages in order: each trained or made, measured on the test split, or skipped."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from fastssd.core import collectives
from fastssd.core.files import seal, sha256_of, write_atomically
from fastssd.errors import ConfigError, DataError
from fastssd.evaluation.metrics import accuracies
from fastssd.evaluation.results import RESULT, damaged_files, read_stage
from fastssd.methods.posthoc.stage import PosthocStage
from fastssd.models.compiling import compile_backbones
from fastssd.runtime.build import Prepared, build, features_in, features_of, made, prepare
from fastssd.runtime.console import Console
from fastssd.runtime.context import Context
from fastssd.runtime.graph import Graph, Stage, differences
from fastssd.runtime.rows import measured_rows
from fastssd.runtime.stop_signal import Agreement, Stopped
from fastssd.training.checkpoints import WEIGHTS, save_weights
from fastssd.training.resume import CHECKPOINT, METRICS
from fastssd.training.trainer import HeadAccuracies, Supervision, Trainer, Validation

STAGE_FILE = "stage.json"
"""What a stage's weights follow from, readable, written before anything of it is made."""


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Trains and measures the stages of a graph that are not finished.

    Attributes:
        context: Recipe, data and processes.
        accelerator: Device and precision.
        console: Told what happens.
        agreement: When to stop.
        on_stage: Told the folder of each stage that begins.
    """

    context: Context
    accelerator: Accelerator
    console: Console
    agreement: Agreement
    on_stage: Callable[[str], None]

    def run(self, graph: Graph) -> None:
        """Run every stage.

        Raises:
            ConfigError: If a folder holds a stage that was made by other settings.
            DataError: If weights of a finished stage are damaged and can't be had again.
        """
        for stage in graph.stages:
            if self._is_finished(stage):
                self.console.message(f"{stage.folder}: finished before")
                continue
            self.on_stage(stage.folder)
            self.context.processes.barrier()  # Noted before any process can fail in it and say so.
            self._run(stage)

    def _is_finished(self, stage: Stage) -> bool:
        """Return whether a stage is done and its files are those that it left; the same on all."""
        context = self.context
        finished = context.is_main and _is_whole(context.output / stage.folder, self.console)
        flag = torch.tensor([int(finished)], device=context.workers.device)
        return bool(context.processes.reduce(flag))

    def _run(self, stage: Stage) -> None:
        context = self.context
        folder = context.output / stage.folder
        folder.mkdir(parents=True, exist_ok=True)
        if context.is_main:
            text = json.dumps(stage.identity, indent=1, sort_keys=True)
            write_atomically(folder / STAGE_FILE, text + "\n")
        result = self._made(stage) if stage.budget is None else self._trained(stage)
        if context.is_main:
            write_atomically(folder / RESULT, seal(result))
        context.processes.barrier()
        self.accelerator.free_memory()

    def _made(self, stage: Stage) -> dict[str, Any]:
        """Make a classifier without training, and return the stage's result."""
        context = self.context
        started = time.perf_counter()
        seconds: dict[str, float] = {}
        method = context.on_device(build(stage, context))
        assert isinstance(method, PosthocStage)
        train = validation = None
        if stage.table is not None:
            train = features_in(made(stage.table, context), context.train.labels)
            seconds["table"] = time.perf_counter() - started
        name = context.config.data.validation
        if method.maker.wants_validation and name is not None:
            split = context.dataset.split(name)
            validation = features_of(split, method, stage.options.head, context)
        sweep = method.fit(train, validation)
        if "message" in sweep:
            self.console.message(f"{stage.folder}: {sweep['message']}")
        context.on_device(method)
        if context.is_main:
            save_weights(context.output / stage.folder / WEIGHTS["last"], method)
        context.processes.barrier()
        seconds["fit"] = time.perf_counter() - started - sum(seconds.values())
        return {**self._measured(stage, method, seconds), "sweep": sweep}

    def _trained(self, stage: Stage) -> dict[str, Any]:
        """Train a stage from where its checkpoint is, and return its result."""
        context, accelerator = self.context, self.accelerator
        assert stage.budget is not None
        prepared = prepare(stage, context)
        if context.config.compile:
            compile_backbones(prepared.method)
        trainer = Trainer(
            prepared.method,
            prepared.batches,
            stage.budget,
            accelerator=accelerator,
            folder=context.output / stage.folder,
            train_counts=context.train.counts,
            seed=stage.seed,
            order=stage.order,
            digest=stage.digest,
            supervision=Supervision(
                console=self.console,
                log=context.config.log,
                validation=self._validation(prepared),
                agreement=self.agreement,
            ),
            synchronise=collectives.average_batchnorm,
        )
        trainer.run()
        progress = trainer.progress
        prepared.seconds["train"] = progress.seconds
        result = self._measured(stage, trainer.stage, prepared.seconds)
        return {
            **result,
            "images": progress.images,
            "images_per_second": progress.images / progress.seconds,
            "data_wait_percent": 100 * progress.wait_seconds / progress.seconds,
            "epochs": stage.budget.epochs,
        }

    def _validation(self, prepared: Prepared) -> Validation | None:
        context = self.context
        split = context.config.data.validation
        if split is None:
            return None

        def measure() -> HeadAccuracies:
            return {
                head: accuracies(counter.correct, counter.total, context.train.counts)
                for head, counter in context.count(prepared.method, split).items()
            }

        return Validation(split=split, every=context.config.evaluation.every, measure=measure)

    def _measured(self, stage: Stage, method: Any, seconds: dict[str, float]) -> dict[str, Any]:  # noqa: ANN401
        """Measure a stage's weights on the test split; return what every result has."""
        context = self.context
        started = time.perf_counter()
        rows = measured_rows(stage, method, context)
        if signal_number := self.agreement.now():
            raise Stopped(signal_number)
        seconds["evaluate"] = time.perf_counter() - started
        folder = context.output / stage.folder
        return {
            "folder": stage.folder,
            "method": stage.method,
            "stage": stage.name,
            "seed": stage.seed,
            "digest": stage.digest,
            "parameters": sum(weight.numel() for weight in method.parameters()),
            "rows": rows,
            "seconds": seconds,
            "images": 0,
            "images_per_second": None,
            "data_wait_percent": None,
            "epochs": 0,
            "train_counts": context.train.counts.tolist(),
            "files": {
                name: sha256_of(folder / name)
                for name in (*WEIGHTS.values(), METRICS)
                if (folder / name).exists()
            },
        }


def check_folders(graph: Graph, output: Path) -> None:
    """Refuse folders that hold a stage of the same name made by other settings.

    Raises:
        ConfigError: Naming every key that differs.
        DataError: If a folder's `stage.json` can't be read.
    """
    problems = []
    for stage in graph.stages:
        path = output / stage.folder / STAGE_FILE
        if not path.exists():
            if (output / stage.folder / RESULT).exists() or (
                output / stage.folder / CHECKPOINT
            ).exists():
                raise ConfigError(
                    f"{output / stage.folder} has no {STAGE_FILE}: it is of another version of "
                    "fastssd, whose stages this one can't go on with: choose another output"
                )
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path} can't be read ({error}): delete {path.parent} to train the stage again"
            ) from error
        differing = list(differences(found, json.loads(json.dumps(stage.identity))))
        if differing:
            problems.append(f"{output / stage.folder}: {'; '.join(differing)}")
    if problems:
        raise ConfigError(
            "stages of these names were trained with other settings:\n"
            + "\n".join(problems)
            + "\nChoose another output, give a variant another name, or delete the stage's folder "
            "and those that stand on it"
        )


def _is_whole(folder: Path, console: Console) -> bool:
    """Return whether a stage has a result that stands; one that does not is moved out of the way.

    Raises:
        DataError: If the stage is finished and its weights are neither whole nor to be had again.
    """
    path = folder / RESULT
    if not path.exists():
        return False
    try:
        damaged = damaged_files(path, read_stage(path))
    except DataError as error:
        console.warning(f"{error.args[0].partition(':')[0]}; the stage is measured again")
        damaged = [RESULT]
    if METRICS in damaged:
        console.warning(f"{folder / METRICS} was altered since {folder.name} was finished")
        damaged.remove(METRICS)
    if not damaged:
        return True
    names = ", ".join(damaged)
    if WEIGHTS["best"] in damaged:
        raise DataError(
            f"{folder / WEIGHTS['best']} is missing or was altered: delete {path} and that file "
            "to go on without it, or the folder to train the stage again"
        )
    if not (folder / CHECKPOINT).exists() and not _is_made(folder):
        raise DataError(
            f"{folder}: {names} is missing or was altered, and there is no {CHECKPOINT} to have it "
            "from: delete the folder to train the stage again"
        )
    console.warning(f"{folder}: {names} is missing or was altered: made from {CHECKPOINT} again")
    path.replace(folder / f"{RESULT}.damaged")
    return False


def _is_made(folder: Path) -> bool:
    """Return whether a stage has no training whose checkpoint could be missing."""
    return not (folder / METRICS).exists()
