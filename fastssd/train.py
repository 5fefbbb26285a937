"""Train a recipe's stages: accelerate launch fastssd/train.py CONFIG.yaml [key=value ...]."""

import sys
from pathlib import Path

if __spec__ is None:
    # Run as a script, Python puts fastssd/ itself first on the path, where our file names would
    # hide other packages'. Put the folder that holds the package there instead.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import os

if "OMP_WAIT_POLICY" not in os.environ:
    # A thread of the networks that waits soon sleeps: decode threads share its cores. The default
    # of GNU OpenMP, which reads this when PyTorch is imported, spins for a millisecond.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")

import argparse
from collections.abc import Callable, Sequence

from fastssd.core import streams
from fastssd.core.untrusted import error_for_terminal
from fastssd.errors import ConfigError, DataError, FastssdError
from fastssd.recipe_file import Recipe, load_recipe
from fastssd.runtime.launchers import follow_launcher, launch
from fastssd.runtime.make_graph import make_graph
from fastssd.runtime.run_directory import Status, claimed
from fastssd.runtime.signals import Signals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says, and return the exit code of the contract."""
    streams.prepare()
    # First of all: what follows takes seconds, and one signal must not end in a traceback.
    signals = Signals(loud=os.environ.get("RANK", "0") == "0")
    options = _parser().parse_intermixed_args(arguments)
    try:
        recipe = load_recipe(options.config, options.overrides)
        make_graph(recipe)  # what does not fit together is said before anything is opened
    except ConfigError as error:
        return _say(error)
    if options.print_config:
        return _print_config(recipe)
    return _dry_run(recipe, signals) if options.dry_run else _run(recipe, signals)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastssd.train",
        description="Train the stages of a recipe, going on where an earlier run stopped.",
        epilog="exit codes: 0 done; 1 a failure of ours; 2 config or arguments; 3 data or files; "
        "130/143 stopped by a signal, after a checkpoint",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as budgets.scratch.epochs=10"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say which stages would be trained and what they would take, measure a few steps, "
        "write nothing",
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print the recipe and its methods as they come to be, and stop",
    )
    return parser


def _print_config(recipe: Recipe) -> int:
    """Print what recipe, methods and command line come to, once it is known to fit together."""
    from fastssd.runtime.describe import described

    try:
        text = described(recipe)
    except ConfigError as error:
        return _say(error)
    print(text, end="")  # noqa: T201
    return 0


def _dry_run(recipe: Recipe, signals: Signals) -> int:
    """Say what a run would do."""
    from fastssd.core.processes import Stopped
    from fastssd.runtime.session import Session
    from fastssd.runtime.watchdog import Watchdog

    follow_launcher()
    try:
        with (
            Watchdog(recipe.config.watchdog, tell=lambda message: None) as watchdog,
            Session(recipe, requested_signal=lambda: signals.number, watchdog=watchdog) as session,
        ):
            session.dry_run()
    except Stopped as stopped:
        return 128 + stopped.signal_number
    except FastssdError as error:
        return _say(error)
    return 0


def _run(recipe: Recipe, signals: Signals) -> int:
    """Run a recipe's stages in this process."""
    follow_launcher()
    output = Path(recipe.config.output)
    try:
        is_main = launch().rank == 0
        status = Status(output / "status.json", is_main=is_main)
        with claimed(output, recipe, write=is_main) as note_config:
            return _run_claimed(recipe, signals, status, note_config)
    except FastssdError as error:
        return _say(error)  # And leave the status of the run that is there as it is.


def _run_claimed(
    recipe: Recipe, signals: Signals, status: Status, note_config: Callable[[], None]
) -> int:
    """Run a config's stages in a run directory that is this run's, and keep its status."""
    from fastssd.core.processes import Stopped
    from fastssd.runtime.session import Session
    from fastssd.runtime.watchdog import Watchdog, lost_peer

    def hung(message: str) -> None:
        status.ended("failed", exit_code=1, error=message)

    try:
        status.running(None)
        with (
            Watchdog(recipe.config.watchdog, tell=hung) as watchdog,
            Session(recipe, requested_signal=lambda: signals.number, watchdog=watchdog) as session,
        ):
            session.run(on_checked=note_config, on_stage=status.running)
    except Stopped as stopped:
        return _stopped(stopped.signal_number, status)
    except FastssdError as error:
        status.ended("failed", exit_code=error.exit_code, error=str(error))
        return _say(error)
    except BaseException as error:
        known: FastssdError | None = None
        if lost := lost_peer(error):
            if signals.number:  # The others, asked to stop as well, have left before us.
                return _stopped(signals.number, status)
            known = FastssdError(lost)
        elif isinstance(error, OSError) and error.filename is not None:
            known = DataError(f"{error.filename}: {error.strerror}")
        if known is None:
            status.ended("failed", exit_code=1, error=f"{type(error).__name__}: {error}")
            raise
        status.ended("failed", exit_code=known.exit_code, error=str(known))
        return _say(known)
    status.ended("done", exit_code=0)
    return 0


def _stopped(signal_number: int, status: Status) -> int:
    exit_code = 128 + signal_number
    text = f"stopped by signal {signal_number}"
    status.ended("stopped", exit_code=exit_code, error=text)
    streams.tell(f"{text}; the same command goes on from here")
    return exit_code


def _say(error: FastssdError) -> int:
    streams.tell(f"fastssd: {error_for_terminal(error)}")
    return error.exit_code


if __name__ == "__main__":
    sys.exit(streams.finish(main()))
