"""The report's rows of a trained stage: its checkpoints measured on the test split."""

from pathlib import Path
from typing import Any

from fastssd.methods.method import Method
from fastssd.runtime.context import Context
from fastssd.runtime.graph import Stage
from fastssd.training.checkpoints import WEIGHTS, load_weights


def measured_rows(
    stage: Stage, method: Method, context: Context, *, only: Path | None = None
) -> list[dict[str, Any]]:
    """Return a row for each reported head of the last weights, and of the best if there are any.

    Args:
        stage: What was trained.
        method: On its device; it is left with the weights that were measured last.
        context: The run.
        only: Measure this file of weights alone.

    Returns:
        Rows as a stage's `result.json` has them.

    Raises:
        DataError: If weights are damaged or of another network.
    """
    rows = []
    for checkpoint, name in WEIGHTS.items():
        file = context.output / stage.folder / name
        if not stage.rows or not file.exists() or (only is not None and file != only):
            continue
        load_weights(file, method)
        for head, counter in context.count(method, context.config.data.test).items():
            if head not in stage.rows:
                continue
            rows.append(
                {
                    "name": stage.rows[head],
                    "method": stage.method,
                    "stage": stage.name,
                    "head": head,
                    "checkpoint": checkpoint,
                    "split": context.config.data.test,
                    "correct": counter.correct.tolist(),
                    "total": counter.total.tolist(),
                }
            )
    return rows
