"""The command line of the conversion: python tools/convert_dataset.py SOURCE OUT [options]."""

import argparse
import io
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

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

from fastssd.data.longtail import EXPONENTIAL, KINDS
from fastssd.data.shards import Shard, parse_shard
from fastssd.data.sources.source import SourceOptions
from fastssd.data.sources.sources import NAMES, SOURCES, open_source
from fastssd.data.storage.formats import STORAGES
from fastssd.errors import DataError, FastssdError
from fastssd.evaluation.shots import LIMITS, shot_groups

_INTERRUPTED, _TERMINATED = 130, 143
_MAX_BARS = 24
_BAR_WIDTH = 40
_WIDTH_WHERE_THERE_IS_NO_TERMINAL = 100

_EXAMPLES = """examples:
  python tools/convert_dataset.py digits data/digits --imbalance 16 --val-per-class 10
  python tools/convert_dataset.py cifar100_lt_100 data/cifar100-lt --root ~/downloads
  python tools/convert_dataset.py imagenet_lt data/imagenet-lt --root ~/imagenet --format ffcv
  python tools/convert_dataset.py ~/photos data/photos --format ffcv --on-error skip
  python tools/convert_dataset.py lists/a_train.txt data/a --root ~/images --test lists/a_test.txt
  python tools/convert_dataset.py ~/photos data/photos --shard 1/2   (and 2/2 elsewhere, and then:)
  python tools/convert_dataset.py data/photos --merge
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="convert_dataset.py",
        description="Convert images to a fastssd dataset directory, whole or not at all.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "source", metavar="SOURCE", nargs="?", help="a name, or a path: see below; not for --merge"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the dataset directory to make")
    _add_source_options(parser.add_argument_group("what SOURCE is"))
    storing = parser.add_argument_group("storing")
    storing.add_argument("--format", choices=list(STORAGES), default="memory", help="see below")
    storing.add_argument("--name", help="the dataset's name (default: the source's)")
    storing.add_argument(
        "--orientation",
        choices=["apply", "ignore"],
        default="apply",
        help="turn images as their Exif data say, or leave them as torchvision does "
        "(default: apply)",
    )
    storing.add_argument(
        "--short-side",
        type=_count,
        metavar="N",
        help="shrink images whose shorter side is longer than N pixels; a JPEG is encoded again "
        "where the format keeps it (default: keep all sizes)",
    )
    storing.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    storing.add_argument(
        "--on-error",
        choices=["fail", "skip"],
        default="fail",
        help="stop at the first damaged image, or leave such images out and list them "
        "(default: fail)",
    )
    storing.add_argument(
        "--threads", type=_count, metavar="N", help="reading and decoding (default: one per core)"
    )
    sharing = parser.add_argument_group("several machines, or one step by step")
    sharing.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="convert part I of N (from 1) to OUT.shard-I-of-N; all else as without",
    )
    sharing.add_argument(
        "--merge",
        nargs="*",
        type=Path,
        metavar="DIR",
        help="join all N parts, beside OUT or in these folders, to OUT; needs no SOURCE",
    )
    choosing = parser.add_argument_group("choosing images")
    choosing.add_argument(
        "--imbalance",
        type=float,
        metavar="R",
        help="make a long tail: the largest class has R times the images of the smallest "
        "(default: keep all images)",
    )
    choosing.add_argument(
        "--imbalance-type",
        choices=KINDS,
        default=EXPONENTIAL,
        help="exponential decay over the classes, or one step half-way (default: exp)",
    )
    choosing.add_argument(
        "--max-per-class",
        type=_count,
        metavar="N",
        help="images of the largest class (default with --imbalance: images / classes)",
    )
    for name in ("val", "test"):
        choosing.add_argument(
            f"--{name}-per-class",
            type=_count,
            default=0,
            metavar="N",
            help=f"hold N training images of each class out, as the {name} split",
        )
    choosing.add_argument("--seed", type=int, default=0, help="of the choice (default: 0)")
    return parser


def _add_source_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--kind", choices=list(SOURCES), help="where it cannot be told; see below")
    group.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="where the paths of a list start, or a name's files",
    )
    group.add_argument(
        "--lists", type=Path, metavar="DIR", help="a name's lists, if they are not in --root"
    )
    group.add_argument("--val", metavar="PATH", help="the validation part, if it is another file")
    group.add_argument("--test", metavar="PATH", help="the test part, if it is another file")
    group.add_argument(
        "--classes", type=Path, metavar="TXT", help="the classes' names, one a line, by label"
    )
    group.add_argument("--image-column", metavar="NAME", help="of CSV, hf; extension in shards")
    group.add_argument("--label-column", metavar="NAME", help="of CSV, hf, beton; key in .json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parse(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names in any script, or in none, must not stop a message from being printed.
            stream.reconfigure(errors="backslashreplace")
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    output = Console(highlight=False)
    if not output.is_terminal:
        output.width = _WIDTH_WHERE_THERE_IS_NO_TERMINAL
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        _run(options, output)
    except FastssdError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}")
        return error.exit_code
    except OSError as error:
        errors.print(
            f"[bold red]error:[/] {escape(str(options.out))}: cannot be written: "
            f"{escape(str(error))}; nothing was left of it"
        )
        return DataError.exit_code
    except (KeyboardInterrupt, SystemExit) as stop:
        errors.print(f"stopped; nothing was written to {escape(str(options.out))}")
        return _INTERRUPTED if isinstance(stop, KeyboardInterrupt) else _TERMINATED
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser()
    # Positional arguments after all others, or --merge would leave none for OUT.
    options = parser.parse_intermixed_args(arguments)
    if options.merge is None:
        if options.source is None:
            parser.error("SOURCE and OUT are both required, but for --merge")
        return options
    given = [
        key
        for key, value in vars(options).items()
        if key not in ("out", "merge", "overwrite") and value != parser.get_default(key)
    ]
    if given:
        named = "SOURCE" if given[0] == "source" else "--" + given[0].replace("_", "-")
        parser.error(f"{named}: not for --merge, which takes all of that from the shards")
    return options


def _run(options: argparse.Namespace, output: Console) -> None:
    def say(line: str) -> None:
        output.print(f"[yellow]note:[/] {escape(line)}", soft_wrap=True)

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
    for note in source.notes:
        say(note)
    # Imports PyTorch, which takes seconds: not before the arguments are known to be good.
    from fastssd.data.convert import convert

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
        output.print(f"{name}: {split['images']:,} images")
    _print_rejected(meta, out, output)
    output.print(
        f"wrote {escape(str(out))} ({meta['format']}, {num_bytes / 1e6:,.1f} MB) "
        f"in {seconds:.1f} s, {images / seconds:,.0f} images/s"
    )


def _print_shard(meta: dict[str, Any], path: Path, output: Console, seconds: float) -> None:
    counts = ", ".join(f"{split['images']:,} {name}" for name, split in meta["splits"].items())
    shard = meta["shard"]
    output.print(f"shard {shard['index']} of {shard['count']}: {counts} images in {seconds:.1f} s")
    _print_rejected(meta, path, output)
    output.print(
        f"it is {escape(str(path))}; when all {shard['count']} are there: OUT --merge",
        soft_wrap=True,
    )


def _print_rejected(meta: dict[str, Any], path: Path, output: Console) -> None:
    if meta["rejected"]:
        output.print(
            f"[yellow]left out: {len(meta['rejected'])} damaged images, listed in "
            f"{escape(str(path / 'rejects.jsonl'))}[/]"
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
        table.add_row(escape(name), f"{count:,.0f}", bar)
    return table


def _epilog() -> str:
    kinds = [f"  {name:<10} {entry.description}" for name, entry in SOURCES.items()]
    names = [f"  {name:<15} {description}" for name, description in NAMES.items()]
    formats = [f"  {name:<10} {entry.description}" for name, entry in STORAGES.items()]
    parts = {
        "kinds of SOURCE (told by its files, or with --kind)": kinds,
        "SOURCE by name, with --root (but digits)": names,
        "formats": formats,
    }
    lines = [line for title, part in parts.items() for line in (f"{title}:", *part, "")]
    return "\n".join([*lines, _EXAMPLES])


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def _shard(text: str) -> Shard:
    try:
        return parse_shard(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(_TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
