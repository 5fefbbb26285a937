"""Measure a trained run, or one file of its weights, without training; or make its report again.

python -m fastssd.evaluation RUN_OR_CHECKPOINT DATASET
python -m fastssd.evaluation RUN --report
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from fastssd.core import streams
from fastssd.core.files import write_atomically
from fastssd.core.places import usable
from fastssd.core.untrusted import error_for_terminal
from fastssd.data.class_names import read_class_map
from fastssd.errors import ConfigError, FastssdError
from fastssd.recipe_file import load_config, load_recipe

CONFIG = "config.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says, and return the exit code of the contract."""
    streams.prepare()
    options = _parser().parse_args(arguments)
    try:
        usable(options.trained, "RUN_OR_CHECKPOINT ")
        if options.report:
            _report(options)
            return 0
        rows = _evaluate(options)
        if options.json:
            write_atomically(options.json, json.dumps(rows, indent=2) + "\n")
    except FastssdError as error:
        streams.tell(f"fastssd: {error_for_terminal(error)}")
        return error.exit_code
    return 0


def _report(options: argparse.Namespace) -> None:
    """Make a run's report again from what its stages left."""
    run: Path = options.trained
    if not (run / CONFIG).is_file():
        raise ConfigError(f"{run} is not a run directory: {run / CONFIG} is not there")
    overrides = [] if options.dataset is None else [f"data.path={options.dataset}"]
    config = load_config(run / CONFIG, overrides)

    from fastssd.data.dataset import open_dataset
    from fastssd.runtime.console import Console
    from fastssd.runtime.run_report import make_report

    with Console(enabled=True) as console:
        make_report(run, config=config, dataset=open_dataset(config.data.path), console=console)


def _evaluate(options: argparse.Namespace) -> dict[str, object]:
    if options.dataset is None:
        raise ConfigError("name the dataset directory to measure on, or --report")
    path: Path = options.trained
    only = None if path.is_dir() else path.resolve()
    run = path if only is None else only.parent.parent
    if not (run / CONFIG).is_file():
        raise ConfigError(
            f"{path} is neither a run directory nor a file of weights in a stage's folder of one: "
            f"{run / CONFIG} is not there"
        )
    class_map = read_class_map(options.class_map) if options.class_map else None
    overrides = [f"data.path={options.dataset}", f"output={run}", f"data.decoder={options.decoder}"]
    if options.split:
        overrides.append(f"data.test={options.split}")
    recipe = load_recipe(run / CONFIG, overrides)

    from fastssd.runtime.session import Session
    from fastssd.runtime.watchdog import Watchdog

    with (
        Watchdog(recipe.config.watchdog, tell=lambda message: None) as watchdog,
        Session(recipe, requested_signal=lambda: 0, watchdog=watchdog) as session,
    ):
        return session.evaluate(only=only, class_map=class_map)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastssd.evaluation", description="Measure trained stages without training."
    )
    parser.add_argument(
        "trained",
        type=Path,
        metavar="RUN_OR_CHECKPOINT",
        help="a run directory, or STAGE/weights.safetensors or STAGE/best.safetensors in one",
    )
    parser.add_argument(
        "dataset",
        type=Path,
        nargs="?",
        metavar="DATASET",
        help="a dataset directory; with --report, where the run's is now (default: its data.path)",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="measure nothing: make report.json, report.md and the figures of RUN again",
    )
    parser.add_argument("--split", help="the split to measure on (default: the run's data.test)")
    parser.add_argument(
        "--class-map",
        type=Path,
        metavar="FILE",
        help="the run's names for classes that DATASET calls otherwise: JSON, {DATASET'S: RUN'S}, "
        "or a CSV file of two such columns without a header",
    )
    parser.add_argument("--decoder", default="auto", help="as data.decoder (default: auto)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    return parser


if __name__ == "__main__":
    sys.exit(streams.finish(main()))
