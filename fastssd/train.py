"""Train a recipe's stages: accelerate launch fastssd/train.py CONFIG.yaml [key=value ...]."""

import sys
from pathlib import Path

if __spec__ is None:
    # Run as a script, Python puts fastssd/ itself first on the path, where our file names would
    # hide other packages'. Put the folder that holds the package there instead.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import os
import signal
from collections.abc import Sequence
from types import FrameType

from fastssd.config import Config
from fastssd.errors import ConfigError, FastssdError
from fastssd.files import write_atomically
from fastssd.recipe_file import differences, load_config, to_yaml

_MAY_CHANGE = ("data.threads", "data.prefetch", "compute_threads", "log.every", "output")
"""Keys that a resumed run may have otherwise: they change no result."""


class Signals:
    """Remembers the first SIGINT or SIGTERM; a second one ends the process at once."""

    def __init__(self) -> None:
        self.number = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            os._exit(128 + number)
        self.number = number


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
    output = Path(config.output)
    status = Status(output / "status.json", enabled=is_main_process())
    try:
        _claim(output, config, write=is_main_process())
        with Session(config) as session:
            session.run(requested_signal=lambda: signals.number, on_stage=status.running)
    except Stopped as stopped:
        status.write("stopped", error=str(stopped))
        print(f"{stopped}; the same command goes on from here", file=sys.stderr)  # noqa: T201
        return 128 + stopped.signal_number
    except FastssdError as error:
        status.write("failed", error=str(error))
        return _say(error)
    except BaseException as error:
        status.write("failed", error=f"{type(error).__name__}: {error}")
        raise
    status.write("done")
    return 0


class Status:
    """Writes status.json: what a run is doing, and what ended it.

    Args:
        path: The file; nothing is written while its directory does not exist.
        enabled: Whether this process writes.
    """

    def __init__(self, path: Path, *, enabled: bool) -> None:
        self._path = path
        self._enabled = enabled
        self._stage: str | None = None

    def running(self, stage: str) -> None:
        """Note the stage that begins."""
        self._stage = stage
        self.write("running")

    def write(self, state: str, *, error: str | None = None) -> None:
        """Note a state: `running`, `done`, `stopped` or `failed`."""
        if self._enabled and self._path.parent.is_dir():
            content = {"state": state, "stage": self._stage, "error": error}
            write_atomically(self._path, json.dumps(content, indent=2) + "\n")


def _claim(output: Path, config: Config, *, write: bool) -> None:
    """Make the run directory, or check that the run in it is this one.

    Raises:
        ConfigError: If it holds a run with other settings, naming them.
    """
    path = output / "config.yaml"
    if path.exists():
        differing = [
            line for key, line in differences(load_config(path), config) if key not in _MAY_CHANGE
        ]
        if differing:
            raise ConfigError(
                f"output={output} holds a run with other settings: {'; '.join(differing)}; "
                "choose another output, or delete the old run"
            )
    elif write:
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_yaml(config))


def _say(error: FastssdError) -> int:
    print(f"fastssd: {error}", file=sys.stderr)  # noqa: T201
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
