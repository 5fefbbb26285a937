"""The report's rows of a trained stage: its checkpoints measured on the test split."""

from pathlib import Path
from typing import Any

from fastssd.methods.method import Stage
from fastssd.runtime.context import Context
from fastssd.runtime.jobs import Job
from fastssd.training.checkpoints import WEIGHTS, load_weights


def measured_rows(
    job: Job, stage: Stage, context: Context, *, only: Path | None = None
) -> list[dict[str, Any]]:
    """Return a row for each head of the last weights, and of the best where there are any.

    Args:
        job: What the stage is.
        stage: On its device; it is left with the weights that were measured last.
        context: The run.
        only: Measure this file of weights alone.

    Returns:
        Rows as a stage's `result.json` has them.

    Raises:
        DataError: If weights are damaged or of another network.
    """
    rows = []
    for checkpoint, name in WEIGHTS.items():
        file = context.output / job.folder / name
        if not file.exists() or (only is not None and file != only):
            continue
        load_weights(file, stage)
        for head, counter in context.count(stage, context.config.data.test).items():
            rows.append(
                {
                    "name": job.rows[head],
                    "stage": job.stage,
                    "head": head,
                    "checkpoint": checkpoint,
                    "split": context.config.data.test,
                    "correct": counter.correct.tolist(),
                    "total": counter.total.tolist(),
                }
            )
    return rows
