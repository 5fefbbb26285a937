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
import json
import signal
import time
from collections.abc import Sequence
from types import FrameType

from fastssd.config import Config
from fastssd.errors import ConfigError, FastssdError
from fastssd.files import write_atomically
from fastssd.launchers import follow_launcher
from fastssd.recipe_file import differences, load_config, to_yaml

_MAY_CHANGE = ("data.threads", "data.prefetch", "compute_threads", "log.every", "output")
"""Keys that a resumed run may have otherwise: they change results by rounding, if at all."""

_SAME_SIGNAL_SECONDS = 3.0


class Signals:
    """Remembers the first SIGINT or SIGTERM; a later one ends the process at once.

    Ctrl-C reaches a process twice within moments, from the terminal and from its launcher: that
    counts as one.
    """

    def __init__(self) -> None:
        self.number = 0
        self._first = 0.0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.number:
            self.number, self._first = number, now
        elif now - self._first > _SAME_SIGNAL_SECONDS:
            os._exit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says, and return the exit code of the contract."""
    options = _parser().parse_args(arguments)
    try:
        config = load_config(options.config, options.overrides)
    except ConfigError as error:
        return _say(error)
    return _run(config)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastssd.train",
        description="Train the stages of a recipe, going on where an earlier run stopped.",
        epilog="exit codes: 0 done; 1 a failure of ours; 2 config or arguments; 3 data or files; "
        "130/143 stopped by a signal, after a checkpoint",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as distill.epochs=10"
    )
    return parser


def _run(config: Config) -> int:
    """Run a config's stages in this process."""
    from fastssd.session import Session, is_main_process
    from fastssd.trainer import Stopped

    signals = Signals()
    follow_launcher()
    output = Path(config.output)
    try:
        _claim(output, config, write=is_main_process())
    except ConfigError as error:
        return _say(error)  # And leave the status of the run that is there as it is.
    status = Status(output / "status.json", is_main=is_main_process())
    try:
        status.running(None)
        with Session(config, requested_signal=lambda: signals.number) as session:
            session.run(on_stage=status.running)
    except Stopped as stopped:
        exit_code = 128 + stopped.signal_number
        status.ended("stopped", exit_code=exit_code, error=str(stopped))
        print(f"{stopped}; the same command goes on from here", file=sys.stderr)  # noqa: T201
        return exit_code
    except FastssdError as error:
        status.ended("failed", exit_code=error.exit_code, error=str(error))
        return _say(error)
    except BaseException as error:
        status.ended("failed", exit_code=1, error=f"{type(error).__name__}: {error}")
        raise
    status.ended("done", exit_code=0)
    return 0


class Status:
    """Writes status.json: what a run is doing, and what ended it.

    Launchers flatten exit codes to 1; this file keeps the one of the process that failed first.

    Args:
        path: The file.
        is_main: Whether this process speaks for all; any process tells of its own failure.
    """

    def __init__(self, path: Path, *, is_main: bool) -> None:
        self._path = path
        self._is_main = is_main
        self._stage: str | None = None

    def running(self, stage: str | None) -> None:
        """Note the stage that begins; None before the first."""
        self._stage = stage
        if self._is_main:
            self._write("running")

    def ended(self, state: str, *, exit_code: int, error: str | None = None) -> None:
        """Note a last state: `done`, `stopped` or `failed`."""
        # What the others fail of, once a process has failed, is only that it is gone.
        told_by_another = state == "failed" and self._state() == "failed"
        if (self._is_main or state == "failed") and not told_by_another:
            self._write(state, exit_code=exit_code, error=error)

    def _state(self) -> str | None:
        try:
            state: str | None = json.loads(self._path.read_text(encoding="utf-8"))["state"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return state

    def _write(self, state: str, *, exit_code: int | None = None, error: str | None = None) -> None:
        content = {"state": state, "stage": self._stage, "error": error, "exit_code": exit_code}
        write_atomically(self._path, json.dumps(content, indent=2) + "\n")


def _claim(output: Path, config: Config, *, write: bool) -> None:
    """Make the run directory, or check that the run in it is this one.

    Raises:
        ConfigError: If it holds a run with other settings, naming them, or can't be made. A run
            that failed before its first stage doesn't count: its settings were to be mended.
    """
    path = output / "config.yaml"
    if path.exists() and any(entry.is_dir() for entry in output.iterdir()):
        differing = [
            line for key, line in differences(load_config(path), config) if key not in _MAY_CHANGE
        ]
        if differing:
            raise ConfigError(
                f"output={output} holds a run with other settings: {'; '.join(differing)}; "
                "choose another output, or delete the old run"
            )
    elif write:
        try:
            output.mkdir(parents=True, exist_ok=True)
            write_atomically(path, to_yaml(config))
        except OSError as error:
            raise ConfigError(f"output={output} can't be written: {error.strerror}") from error


def _say(error: FastssdError) -> int:
    print(f"fastssd: {error}", file=sys.stderr)  # noqa: T201
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
