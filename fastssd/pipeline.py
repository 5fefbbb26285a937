"""A run's stages in order: each trained, evaluated on the test split and noted, or skipped."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from fastssd.agreement import Agreement
from fastssd.checkpoints import WEIGHTS, weights_made_by
from fastssd.console import Console
from fastssd.errors import ConfigError, DataError
from fastssd.evaluation.metrics import accuracies
from fastssd.evaluation.results import RESULT, damaged_files, read_stage
from fastssd.files import seal, sha256_of, write_atomically, writing
from fastssd.models.compiling import compile_backbones
from fastssd.resume import CHECKPOINT, METRICS
from fastssd.stages import ranks
from fastssd.stages.build import Prepared, prepare
from fastssd.stages.context import Context
from fastssd.stages.deciding import decided_by_main
from fastssd.stages.jobs import Job, jobs_of
from fastssd.stages.record import StageRecord, read_record, standing_record, write_record
from fastssd.stages.rows import measured_rows
from fastssd.trainer import HeadAccuracies, Supervision, Trainer, Validation


def run_stages(
    context: Context,
    *,
    accelerator: Accelerator,
    console: Console,
    agreement: Agreement,
    on_stage: Callable[[str], None],
) -> None:
    """Train and evaluate every stage that the config asks for and that is not finished.

    Args:
        context: Config, data and processes.
        accelerator: Device and precision.
        console: Told what happens.
        agreement: When to stop.
        on_stage: Told the folder of each stage that begins.

    Raises:
        ConfigError: If a stage stands on weights that are no longer there.
        DataError: If weights of a finished stage are damaged and can't be had again.
    """
    for job in jobs_of(context.config):
        # Only the main process compares, and saves what is compared.
        record = standing_record(job, context) if context.is_main else None
        if _is_finished(context.output / job.folder, record, context, console):
            console.message(f"{job.folder}: finished before")
            continue
        on_stage(job.folder)
        context.barrier()  # Noted before any process can fail in it and say so.
        context.stop_if_asked()  # Before what a stage prepares, which may take long.
        _run_stage(job, record, context, accelerator, console, agreement)


def _is_finished(
    folder: Path, record: StageRecord | None, context: Context, console: Console
) -> bool:
    """Return whether a stage is done and its files are those that it left; the same on all."""

    def look() -> bool:
        assert record is not None
        _check_source(folder, record)
        finished = _is_whole(folder, record, console)
        if not finished:
            _check_best(folder, record)
        return finished

    return decided_by_main(look, context)


def _check_source(folder: Path, record: StageRecord) -> None:
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
    if not (folder / CHECKPOINT).exists():
        raise DataError(
            f"{folder}: {names} is missing or was altered, and there is no {CHECKPOINT} to have it "
            "from: delete the folder to train the stage again"
        )
    console.warning(f"{folder}: {names} is missing or was altered: made from {CHECKPOINT} again")
    with writing(path):
        path.replace(folder / f"{RESULT}.damaged")
    return False


def _run_stage(
    job: Job,
    record: StageRecord | None,
    context: Context,
    accelerator: Accelerator,
    console: Console,
    agreement: Agreement,
) -> None:
    folder = context.output / job.folder
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if record is not None:
        write_record(folder, record)
    prepared = prepare(job, context)

    def measure(split: str) -> HeadAccuracies:
        return {
            head: accuracies(counter.correct, counter.total, context.train.counts)
            for head, counter in context.count(trainer.stage, split).items()
        }

    validation = None
    if split := context.config.data.validation:
        validation = Validation(
            split=split,
            every=context.config.evaluation.every,
            measure=lambda: measure(split),
        )
    if context.config.compile:
        compile_backbones(prepared.stage)
    trainer = Trainer(
        prepared.stage,
        prepared.feed,
        prepared.training,
        accelerator=accelerator,
        folder=folder,
        train_counts=context.train.counts,
        seed=context.config.seed,
        recipe="" if record is None else record.digest,
        supervision=Supervision(
            console=console,
            log=context.config.log,
            validation=validation,
            agreement=agreement,
        ),
        synchronise=ranks.average_batchnorm,
    )
    trainer.run()
    started = time.perf_counter()
    rows = measured_rows(job, trainer.stage, context)
    context.stop_if_asked()
    prepared.seconds |= {
        "train": trainer.progress.seconds,
        "evaluate": time.perf_counter() - started,
    }
    if record is not None:
        result = _result(job, record, prepared, trainer, rows, context)
        write_atomically(folder / RESULT, seal(result))
    context.barrier()
    accelerator.free_memory()


def _result(
    job: Job,
    record: StageRecord,
    prepared: Prepared,
    trainer: Trainer,
    rows: list[dict[str, Any]],
    context: Context,
) -> dict[str, Any]:
    progress = trainer.progress
    return {
        "folder": job.folder,
        "made_by": record.digest,
        "dataset": record.dataset.digest,
        "rows": rows,
        "seconds": prepared.seconds,
        "images": progress.images,
        "images_per_second": progress.images / progress.seconds,
        "data_wait_percent": 100 * progress.wait_seconds / progress.seconds,
        "epochs": prepared.training.epochs,
        "train_counts": context.train.counts.tolist(),
        "files": {
            name: sha256_of(trainer.folder / name)
            for name in (*WEIGHTS.values(), METRICS)
            if (trainer.folder / name).exists()
        },
    }
