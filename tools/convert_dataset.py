"""The command line of the conversion: python tools/convert_dataset.py SOURCE OUT [options]."""

import argparse
import gc
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO, cast

if __spec__ is None:
    # Run as a script, Python puts tools/ first on the path. Put the project there instead.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.bar import Bar
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from fastssd.core import streams
from fastssd.core.untrusted import error_for_terminal, for_terminal
from fastssd.data.convert_arguments import parse_arguments
from fastssd.data.sources.source import SourceOptions
from fastssd.data.sources.sources import open_source
from fastssd.data.sources.summary import lacking, lines
from fastssd.errors import DataError, FastssdError
from fastssd.evaluation.shots import LIMITS, shot_groups

_INTERRUPTED, _TERMINATED = 130, 143
_MAX_BARS = 24
_BAR_WIDTH = 40
_WIDTH_WHERE_THERE_IS_NO_TERMINAL = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    streams.prepare()
    options = parse_arguments(arguments)
    errors = Console(file=streams.lasting(sys.stderr), highlight=False, soft_wrap=True, emoji=False)
    shown = streams.Lasting(sys.stdout)
    output = Console(file=cast(TextIO, shown), highlight=False, emoji=False)
    if not output.is_terminal:
        output.width = _WIDTH_WHERE_THERE_IS_NO_TERMINAL
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        _run(options, output)
        if shown.problem:
            errors.print(
                f"{_shown(options.out)} is written; standard output took nothing "
                f"({_shown(shown.problem)}), so that its summary is lost"
            )
    except FastssdError as error:
        errors.print(f"[bold red]error:[/] {escape(error_for_terminal(error))}")
        return error.exit_code
    except OSError as error:
        errors.print(
            f"[bold red]error:[/] {_shown(options.out)}: cannot be written: "
            f"{_shown(error)}; nothing was left of it"
        )
        return DataError.exit_code
    except (KeyboardInterrupt, SystemExit) as stop:
        errors.print(f"stopped; nothing was written to {_shown(options.out)}")
        return _INTERRUPTED if isinstance(stop, KeyboardInterrupt) else _TERMINATED
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _run(options: argparse.Namespace, output: Console) -> None:
    def say(line: str) -> None:
        output.print(f"[yellow]note:[/] {_shown(line)}", soft_wrap=True)

    started = time.perf_counter()
    if options.merge is not None:
        from fastssd.data.merge import merge

        with _progress(output, "copied") as progress:
            meta = merge(
                options.out,
                options.merge,
                overwrite=options.overwrite,
                progress=progress,
                say=say,
            )
        _print_summary(meta, options.out, output, time.perf_counter() - started)
        return
    choice = dict(vars(options))
    del choice["merge"]
    named = {field.name: choice.pop(field.name) for field in fields(SourceOptions)}
    source = open_source(
        choice.pop("source"), kind=choice.pop("kind"), options=SourceOptions(**named)
    )
    for line in lines(source):
        output.print(_shown(line), soft_wrap=True)
    for note in source.notes:
        say(note)
    # Imports PyTorch, which takes seconds: not before the arguments are known to be good.
    from fastssd.data.convert import convert

    gc.freeze()  # PyTorch's modules stay: not to be walked through again and again
    started = time.perf_counter()
    with _progress(output, "read") as progress:
        meta = convert(source, choice.pop("out"), progress=progress, say=say, **choice)
    seconds = time.perf_counter() - started
    if options.shard is None:
        _print_summary(meta, options.out, output, seconds)
    else:
        _print_shard(meta, options.shard.path(options.out), output, seconds)


class _Rate(TextColumn):
    """Images a second."""

    def __init__(self) -> None:
        super().__init__("{task.speed:,.0f} images/s")

    def render(self, task: Any) -> Any:  # noqa: ANN401 - rich's own types are private
        return super().render(task) if task.speed else ""


class _Bars:
    """A progress bar for each split, or a line at its end where there is no terminal."""

    def __init__(self, bars: Progress, output: Console, verb: str) -> None:
        self._bars = bars
        self._output = output
        self._verb = verb
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, split: str, done: int, total: int) -> None:
        if self._output.is_terminal:
            if split not in self._tasks:
                self._tasks[split] = self._bars.add_task(split, total=total)
            self._bars.update(self._tasks[split], completed=done)
        elif done == total:
            self._output.print(f"{split}: {total:,} images {self._verb}")


@contextmanager
def _progress(output: Console, verb: str) -> Iterator[_Bars]:
    bars = Progress(
        TextColumn("{task.description:<6}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=output,
        disable=not output.is_terminal,
    )
    with bars:
        yield _Bars(bars, output, verb)


def _print_summary(meta: dict[str, Any], out: Path, output: Console, seconds: float) -> None:
    splits = meta["splits"]
    images = sum(split["images"] for split in splits.values())
    num_bytes = sum(file.stat().st_size for file in out.iterdir())
    output.print()
    output.print(_histogram(meta["classes"], splits["train"]["per_class"]))
    counts = splits["train"]["per_class"]
    groups = shot_groups(counts)
    shots = ", ".join(
        f"{groups[group].sum()} {group} ({LIMITS[group]})" for group in ("many", "medium", "few")
    )
    output.print(f"classes: {len(counts)}: {shots} training images")
    output.print(f"largest / smallest class: {max(counts)} / {min(counts)}")
    for name, split in splits.items():
        output.print(f"{_shown(name)}: {split['images']:,} images")
        for line in lacking(name, meta["classes"], split["per_class"]):
            output.print(f"[yellow]note:[/] {_shown(line)}", soft_wrap=True)
    _print_rejected(meta, out, output)
    output.print(
        f"wrote {_shown(out)} ({meta['format']}, {num_bytes / 1e6:,.1f} MB) "
        f"in {seconds:.1f} s, {images / seconds:,.0f} images/s"
    )


def _print_shard(meta: dict[str, Any], path: Path, output: Console, seconds: float) -> None:
    counts = ", ".join(f"{split['images']:,} {name}" for name, split in meta["splits"].items())
    shard = meta["shard"]
    output.print(f"shard {shard['index']} of {shard['count']}: {counts} images in {seconds:.1f} s")
    _print_rejected(meta, path, output)
    output.print(
        f"it is {_shown(path)}; when all {shard['count']} are there: OUT --merge",
        soft_wrap=True,
    )


def _print_rejected(meta: dict[str, Any], path: Path, output: Console) -> None:
    if meta["rejected"]:
        output.print(
            f"[yellow]left out: {len(meta['rejected'])} damaged images, listed in "
            f"{_shown(path / 'rejects.jsonl')}[/]"
        )


def _histogram(classes: Sequence[str], counts: Sequence[int]) -> Table:
    """Return a bar for each class, or for each of equal ranges of classes by frequency."""
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    order = sorted(range(len(counts)), key=lambda c: -counts[c])
    if len(counts) <= _MAX_BARS:
        table.add_column("class")
        rows = [(classes[c], float(counts[c])) for c in order]
    else:
        table.add_column("classes by frequency")
        edges = [round(i * len(order) / _MAX_BARS) for i in range(_MAX_BARS + 1)]
        rows = [
            (f"{a + 1:,} to {b:,}", sum(counts[c] for c in order[a:b]) / (b - a))
            for a, b in pairwise(edges)
        ]
    table.add_column("training images", justify="right")
    table.add_column("")
    largest = max(count for _, count in rows)
    for name, count in rows:
        bar = Bar(largest, 0, count, width=_BAR_WIDTH)
        table.add_row(_shown(name), f"{count:,.0f}", bar)
    return table


def _shown(text: object) -> str:
    """Return text of the user's as Rich shows it as it stands."""
    return escape(for_terminal(text))


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(_TERMINATED)


if __name__ == "__main__":
    code = streams.finish(main())
    if code:
        os._exit(code)  # A thread may be held by the system or a decoder: Python would wait for it.
