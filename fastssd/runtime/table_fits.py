"""Whether a table that a stage names holds answers of the network that the stage stands on."""

from dataclasses import dataclass

from fastssd.runtime.graph import Stage, Table


@dataclass(frozen=True)
class _Asked:
    """A frozen network as a stage stands on it, with the options that change its answers."""

    stage: Stage
    head: str
    weights: str
    batchnorm: str

    def __str__(self) -> str:
        return (
            f"{self.stage.label}, {self.head} ({self.weights} weights, batchnorm={self.batchnorm})"
        )


def misfit(stage: Stage, table: Table) -> tuple[str, str] | None:
    """Return the key that a table does not fit and why; None if it holds what the stage needs.

    Args:
        stage: With its sources.
        table: That it names.
    """
    wanted = _wanted(stage, table)
    found = _Asked(table.source, table.head, table.weights, table.batchnorm)
    if (wanted.stage.digest, wanted.head, wanted.weights, wanted.batchnorm) != (
        found.stage.digest,
        found.head,
        found.weights,
        found.batchnorm,
    ):
        return "reads", f"that table is of {found}, and this stage stands on {wanted}"
    if stage.options.SEES_IMAGES and (table.stream, table.transform) != (stage.stream, "train"):
        return "draws", (
            f"that table is of the crops {table.stream} ({table.transform}), and {stage.label}, "
            f"which reads it, sees {stage.stream} (train)"
        )
    if table.holds.store == "topk" and table.temperature != stage.options.temperature:
        return "reads", (
            f"that table is for temperature={table.temperature}, and this stage has "
            f"{stage.options.temperature}"
        )
    return None


def _wanted(stage: Stage, table: Table) -> _Asked:
    """Return the network whose answers a stage needs of a table."""
    if "source" in stage.sources:
        source = stage.sources["source"]
        return _Asked(source, stage.options.head, stage.weights, stage.batchnorm)
    teacher = stage.sources["teacher"]
    if teacher.options.REBALANCES and table.holds.store != "topk":
        # What the teacher learned is put on the answers where they are read.
        source = teacher.sources["source"]
        return _Asked(source, teacher.options.head, teacher.weights, teacher.batchnorm)
    return _Asked(teacher, teacher.options.heads[0], stage.weights, stage.batchnorm)
