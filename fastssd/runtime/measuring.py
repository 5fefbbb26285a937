"""What a finished run needs to be measured again, maybe on another dataset."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastssd.data.class_names import match_classes
from fastssd.errors import ConfigError, DataError
from fastssd.evaluation.results import RESULT, StageResult, damaged_files, read_stage
from fastssd.runtime.context import Context
from fastssd.runtime.graph import Graph, Stage
from fastssd.runtime.record import STAGE_FILE, StageRecord, read_record


@dataclass(frozen=True)
class TrainedStage:
    """A finished stage whose files are whole.

    Attributes:
        stage: Its node.
        result: What was measured after its training.
        record: What it was trained by; None in a run of an early version.
    """

    stage: Stage
    result: StageResult
    record: StageRecord | None


def trained_stages(graph: Graph, context: Context, *, only: Path | None) -> list[TrainedStage]:
    """Return the finished stages of a run directory, each after those that it stands on.

    Args:
        graph: Of the run.
        context: The run.
        only: A file of weights: the stage that it is of alone.

    Raises:
        DataError: If a stage's files are damaged or of different stages.
    """
    found = []
    for stage in graph.stages:
        folder = context.output / stage.folder
        path = folder / RESULT
        if not path.exists() or (only is not None and only.parent != folder):
            continue
        result, record = read_stage(path), read_record(folder)
        if damaged := damaged_files(path, result):
            raise DataError(
                f"{folder}: {', '.join(damaged)} is missing or not what the training left there: "
                "run the training again, which mends it where it can"
            )
        if record is not None and record.digest != result.made_by:
            raise DataError(
                f"{path} is not of the training that {STAGE_FILE} beside it tells of: run the "
                "training again, which mends it where it can"
            )
        found.append(TrainedStage(stage, result, record))
    return found


def measuring_context(
    context: Context,
    stages: Sequence[TrainedStage],
    class_map: Mapping[str, str],
    *,
    say: Callable[[str], None],
) -> Context:
    """Return the context to measure stages in: its labels are those of the stages' classes.

    Args:
        context: Of the dataset to measure on.
        stages: Of one run.
        class_map: The stages' name for classes that the dataset calls otherwise.
        say: Told how the classes were matched, and whether the stages know the dataset.

    Raises:
        ConfigError: If the dataset's classes are not the stages'.
        DataError: If the stages were trained on different datasets.
    """
    config, dataset = context.config, context.dataset
    if config.data.validation not in dataset.splits:  # nothing is measured on it here
        data = dataclasses.replace(config.data, validation=None)
        context = dataclasses.replace(context, config=dataclasses.replace(config, data=data))
    trained = [stage.record.dataset for stage in stages if stage.record is not None]
    if any(other.digest != trained[0].digest for other in trained):
        raise DataError(
            f"{context.output}: its stages were trained on different datasets: measure each in a "
            "run directory of its own"
        )
    if not trained:
        _check_number(context, stages)
        say(
            f"{context.output} does not say which classes it was trained on, as runs of earlier "
            "versions: they are taken to be the dataset's, in the same order"
        )
    else:
        match = match_classes(dataset.classes, trained[0].classes, class_map)
        dataset = dataset.with_classes(trained[0].classes, match.labels)
        if differences := trained[0].differences(dataset.identity):
            say(f"not the dataset that the run was trained on: {'; '.join(differences)}")
        if match.note:
            say(match.note)
    return dataclasses.replace(context, dataset=dataset).with_images_on_device()[0]


def _check_number(context: Context, stages: Sequence[TrainedStage]) -> None:
    for stage in stages:
        if len(stage.result.train_counts) != context.num_classes:
            raise ConfigError(
                f"{context.dataset.path} has {context.num_classes} classes, but "
                f"{stage.stage.folder} was trained on {len(stage.result.train_counts)}"
            )
