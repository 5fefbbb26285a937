"""A run's stages in order: each trained or made, measured on the test split, or skipped."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from fastssd.core import collectives
from fastssd.core.files import seal, sha256_of, write_atomically, writing
from fastssd.errors import ConfigError, DataError
from fastssd.evaluation.metrics import accuracies
from fastssd.evaluation.results import RESULT, damaged_files, read_stage
from fastssd.methods.method import Method
from fastssd.methods.posthoc.stage import PosthocStage
from fastssd.models.compiling import compile_backbones
from fastssd.runtime.build import Prepared, build, features_in, features_of, made, prepare
from fastssd.runtime.console import Console
from fastssd.runtime.context import Context
from fastssd.runtime.deciding import decided_by_main
from fastssd.runtime.graph import Graph, Stage
from fastssd.runtime.record import StageRecord, read_record, standing_record, write_record
from fastssd.runtime.rows import measured_rows
from fastssd.runtime.stop_signal import StopSignal
from fastssd.training.checkpoints import WEIGHTS, save_weights, weights_made_by
from fastssd.training.resume import CHECKPOINT, METRICS
from fastssd.training.trainer import HeadAccuracies, Supervision, Trainer, Validation


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Trains and measures the stages of a graph that are not finished.

    Attributes:
        context: Recipe, data and processes.
        accelerator: Device and precision.
        console: Told what happens.
        stop_signal: When to stop.
        on_stage: Told the folder of each stage that begins.
    """

    context: Context
    accelerator: Accelerator
    console: Console
    stop_signal: StopSignal
    on_stage: Callable[[str], None]

    def run(self, graph: Graph) -> None:
        """Run every stage.

        Raises:
            ConfigError: If a folder holds a stage that was made by other settings.
            DataError: If weights of a finished stage are damaged and can't be had again.
        """
        processes = self.context.processes
        for stage in graph.stages:
            # Only the main process compares, and saves what is compared.
            record = standing_record(stage, self.context) if processes.is_main else None
            if self._is_finished(stage, record):
                self.console.message(f"{stage.folder}: finished before")
                continue
            self.on_stage(stage.folder)
            processes.barrier()  # Noted before any process can fail in it and say so.
            processes.stop_if_asked()  # Before what a stage prepares, which may take long.
            self._run(stage, record)

    def _is_finished(self, stage: Stage, record: StageRecord | None) -> bool:
        """Return whether a stage is done and its files are those that it left; the same on all."""
        folder = self.context.output / stage.folder

        def look() -> bool:
            assert record is not None
            _check_sources(folder, record)
            finished = _is_whole(folder, record, self.console)
            if not finished:
                _check_best(folder, record)
            return finished

        return decided_by_main(look, self.context)

    def _run(self, stage: Stage, record: StageRecord | None) -> None:
        context = self.context
        folder = context.output / stage.folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        digest = ""
        if record is not None:
            write_record(folder, record)
            digest = record.digest
        make = self._made if stage.budget is None else self._trained
        result = make(stage, digest)
        if context.is_main:
            write_atomically(folder / RESULT, seal(result))
        context.processes.barrier()
        self.accelerator.free_memory()

    def _made(self, stage: Stage, digest: str) -> dict[str, Any]:
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
            path = context.output / stage.folder / WEIGHTS["last"]
            save_weights(path, method, made_by=digest)
        context.processes.barrier()
        seconds["fit"] = time.perf_counter() - started - sum(seconds.values())
        return {**self._measured(stage, digest, method, seconds), "sweep": sweep}

    def _trained(self, stage: Stage, digest: str) -> dict[str, Any]:
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
            digest=digest,
            supervision=Supervision(
                console=self.console,
                log=context.config.log,
                validation=self._validation(prepared),
                stop_signal=self.stop_signal,
            ),
            synchronise=collectives.average_batchnorm,
            title=stage.folder,
        )
        trainer.run()
        progress = trainer.progress
        prepared.seconds["train"] = progress.seconds
        result = self._measured(stage, digest, trainer.stage, prepared.seconds)
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

    def _measured(
        self, stage: Stage, digest: str, method: Method, seconds: dict[str, float]
    ) -> dict[str, Any]:
        """Measure a stage's weights on the test split; return what every result has."""
        context = self.context
        started = time.perf_counter()
        rows = measured_rows(stage, method, context)
        context.processes.stop_if_asked()
        seconds["evaluate"] = time.perf_counter() - started
        folder = context.output / stage.folder
        return {
            "folder": stage.folder,
            "method": stage.method,
            "stage": stage.name,
            "seed": stage.seed,
            "made_by": digest,
            "dataset": context.dataset.identity.digest,
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


def _check_sources(folder: Path, record: StageRecord) -> None:
    """Raise ConfigError if a stage was trained on other weights of its source than are there."""
    found = read_record(folder)
    if found is not None and found.weights != record.weights:
        source = ", ".join(record.weights)
        raise ConfigError(
            f"{folder} was trained on other weights of {source} than those that are there now, "
            f"which was trained again or replaced since: delete {folder} to train it again too, "
            f"or put {source} back"
        )


def _check_best(folder: Path, record: StageRecord) -> None:
    """Raise DataError if the best weights of a stage that goes on are another's, or damaged."""
    path = folder / WEIGHTS["best"]
    if path.exists() and weights_made_by(path) != record.digest:
        raise DataError(f"{path} was trained by another run: delete {folder} to train it again")


def _is_whole(folder: Path, record: StageRecord, console: Console) -> bool:
    """Return whether a stage has a result that stands; one that does not is moved out of the way.

    Raises:
        DataError: If the stage is finished and its weights are neither whole nor to be had again.
    """
    path = folder / RESULT
    if not path.exists():
        return False
    try:
        result = read_stage(path)
        damaged = damaged_files(path, result)
        if result.made_by != record.digest:
            console.warning(f"{path} is of another run; the stage is measured again")
            damaged.append(RESULT)
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
    with writing(path):
        path.replace(folder / f"{RESULT}.damaged")
    return False


def _is_made(folder: Path) -> bool:
    """Return whether a stage has no training whose checkpoint could be missing."""
    return not (folder / METRICS).exists()
