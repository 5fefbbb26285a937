"""A run's stages in order: each trained, evaluated on the test split and noted, or skipped."""

import json
import time
from collections.abc import Callable
from typing import Any

from accelerate import Accelerator

from fastssd.console import Console
from fastssd.evaluation.metrics import accuracies
from fastssd.evaluation.results import RESULT
from fastssd.files import write_atomically
from fastssd.stages import ranks
from fastssd.stages.build import Prepared, prepare
from fastssd.stages.check import check_run
from fastssd.stages.context import Context
from fastssd.stages.jobs import Job, jobs_of
from fastssd.stages.rows import measured_rows
from fastssd.trainer import HeadAccuracies, Supervision, Trainer, Validation


def run_stages(
    context: Context,
    *,
    accelerator: Accelerator,
    console: Console,
    requested_signal: Callable[[], int],
    on_stage: Callable[[str], None],
) -> None:
    """Train and evaluate every stage that the config asks for and that is not finished.

    Args:
        context: Config, data and processes.
        accelerator: Device and precision.
        console: Told what happens.
        requested_signal: Returns the number of a signal that asks to stop, or 0.
        on_stage: Told the folder of each stage that begins.

    Raises:
        ConfigError: Before anything is trained, if any stage can't run.
    """
    jobs = jobs_of(context.config)
    check_run(jobs, context)
    for job in jobs:
        if (context.output / job.folder / RESULT).exists():
            console.message(f"{job.folder}: finished before")
            continue
        on_stage(job.folder)
        context.barrier()  # Noted before any process can fail in it and say so.
        _run_stage(job, context, accelerator, console, requested_signal)


def _run_stage(
    job: Job,
    context: Context,
    accelerator: Accelerator,
    console: Console,
    requested_signal: Callable[[], int],
) -> None:
    folder = context.output / job.folder
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
            requested_signal=requested_signal,
        ),
        synchronise=ranks.average_batchnorm,
    )
    trainer.run()
    started = time.perf_counter()
    rows = measured_rows(job, trainer.stage, context)
    prepared.seconds |= {
        "train": trainer.progress.seconds,
        "evaluate": time.perf_counter() - started,
    }
    if context.is_main:
        result = _result(job, prepared, trainer, rows, context)
        write_atomically(folder / RESULT, json.dumps(result) + "\n")
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
    }
