"""A run's stages in order: each trained, evaluated on the test split and noted, or skipped."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from fastssd.agreement import Agreement
from fastssd.checkpoints import WEIGHTS
from fastssd.console import Console
from fastssd.errors import DataError
from fastssd.evaluation.metrics import accuracies
from fastssd.evaluation.results import RESULT, damaged_files, read_stage
from fastssd.files import seal, sha256_of, write_atomically, writing
from fastssd.models.compiling import compile_backbones
from fastssd.resume import CHECKPOINT, METRICS
from fastssd.stages import ranks
from fastssd.stages.build import Prepared, prepare
from fastssd.stages.context import Context
from fastssd.stages.jobs import Job, jobs_of
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
        DataError: If weights of a finished stage are damaged and can't be had again.
    """
    for job in jobs_of(context.config):
        if _is_finished(context.output / job.folder, context, console):
            console.message(f"{job.folder}: finished before")
            continue
        on_stage(job.folder)
        context.barrier()  # Noted before any process can fail in it and say so.
        context.stop_if_asked()  # Before what a stage prepares, which may take long.
        _run_stage(job, context, accelerator, console, agreement)


def _is_finished(folder: Path, context: Context, console: Console) -> bool:
    """Return whether a stage is done and its files are those that it left; the same on all."""
    return bool(context.main_says(context.is_main and _is_whole(folder, console)))


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
    context: Context,
    accelerator: Accelerator,
    console: Console,
    agreement: Agreement,
) -> None:
    folder = context.output / job.folder
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
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
    if context.is_main:
        result = _result(job, prepared, trainer, rows, context)
        write_atomically(folder / RESULT, seal(result))
    context.barrier()
    accelerator.free_memory()


def _result(
    job: Job,
    prepared: Prepared,
    trainer: Trainer,
    rows: list[dict[str, Any]],
    context: Context,
) -> dict[str, Any]:
    progress = trainer.progress
    return {
        "folder": job.folder,
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
