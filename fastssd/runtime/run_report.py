"""The report of a run directory, made at the end of training or again later, and told of.

A report that fails costs nothing: the stages are finished before it, and stay so.
"""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastssd.config import Config
from fastssd.data.dataset import Dataset
from fastssd.errors import DataError, FastssdError
from fastssd.evaluation.report import write_report
from fastssd.evaluation.results import read_run
from fastssd.evaluation.tables import lacking
from fastssd.runtime.console import Console


def make_report(output: Path, *, config: Config, dataset: Dataset, console: Console) -> None:
    """Write the report of a run directory's finished stages, and show its table.

    Raises:
        FastssdError: If any part of it could not be made: what could be is there, and the message
            says how to make the report again. Its exit code is 3 where a damaged file is the
            reason, else 1.
    """
    with _saying_how_to_go_on(output):
        _check_dataset(output, config, dataset)
        report, problems = write_report(
            output,
            class_names=dataset.classes,
            split_counts=_evaluated(config, dataset),
            published=config.published,
        )
        console.table(report["rows"])
        if num_damaged := len(report["damaged_images"]):
            console.warning(
                f"{num_damaged} damaged training images were replaced; report.json lists them"
            )
        console.message(f"report: {output / 'report.md'}")
        if problems:
            error = problems[0]
            error.args = tuple(message for each in problems for message in each.args)
            raise error


def warn_of_absent_classes(config: Config, dataset: Dataset, console: Console) -> None:
    """Say which classes the splits that a run is measured on have no images of."""
    for split, counts in _evaluated(config, dataset).items():
        if sentence := lacking(split, counts, dataset.classes):
            console.warning(sentence)


def _check_dataset(output: Path, config: Config, dataset: Dataset) -> None:
    """Refuse a dataset that the run was not trained on: its names would be those of others.

    Raises:
        DataError: If it is another.
    """
    run = read_run(output)
    # Stages of early versions say only how many images the classes had.
    same = run.stages[0].dataset in ("", dataset.identity.digest)
    counts = dataset.meta["splits"].get(config.data.train, {}).get("per_class")
    if not same or counts != run.train_counts.tolist():
        raise DataError(
            f"{dataset.path} is another dataset than the run in {output} was trained on: name the "
            "dataset of the run"
        )


def _evaluated(config: Config, dataset: Dataset) -> dict[str, list[int]]:
    """Return the images of each class of the splits that a run is measured on."""
    names = (config.data.validation, config.data.test)
    return {
        name: dataset.meta["splits"][name]["per_class"] for name in names if name in dataset.splits
    }


@contextmanager
def _saying_how_to_go_on(output: Path) -> Iterator[None]:
    again = (
        "finished stages stay as they are; to make the report again: "
        f"python -m fastssd.evaluation {shlex.quote(str(output))} --report"
    )
    try:
        yield
    except FastssdError as error:
        error.args = (*error.args, again)
        raise
    except Exception as error:
        # After days of training not even a fault of ours is worth a traceback in place of that.
        what = f"the report could not be made ({type(error).__name__}: {error})"
        raise FastssdError(what, again) from error
