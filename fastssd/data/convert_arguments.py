"""The command line of the conversion: its arguments, and what `--help` says of them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastssd.data.longtail import EXPONENTIAL, KINDS
from fastssd.data.shards import Shard, parse_shard
from fastssd.data.sources.source import SPLITS
from fastssd.data.sources.sources import NAMES, SOURCES
from fastssd.data.sources.split_names import parse_split_names
from fastssd.data.storage.formats import STORAGES
from fastssd.data.storage.image import MAX_PIXELS, USUAL_PIXELS

_SPLIT_NAMES = "--split-names"
_EXAMPLES = """examples:
  python tools/convert_dataset.py digits data/digits --imbalance 16 --val-per-class 10
  python tools/convert_dataset.py cifar100_lt_100 data/cifar100-lt --root ~/downloads
  python tools/convert_dataset.py imagenet_lt data/imagenet-lt --root ~/imagenet --format ffcv
  python tools/convert_dataset.py ~/photos data/photos --format ffcv --on-error skip
  python tools/convert_dataset.py ~/photos data/small --format ffcv --max-side 500 --quality 90
  python tools/convert_dataset.py ~/mri data/mri --split-names train=Training test=Testing
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
        "--jpeg",
        choices=["restart", "keep", "raw"],
        help="JPEG files: rewritten without loss to be read in parts, kept byte by byte, or "
        "decoded to pixels (default: restart where the format holds JPEG)",
    )
    storing.add_argument(
        "--short-side",
        type=_count,
        metavar="N",
        help="shrink images whose shorter side is longer than N pixels; a JPEG is encoded again "
        "where the format keeps it (default: keep all sizes)",
    )
    storing.add_argument(
        "--max-side",
        type=_count,
        metavar="N",
        help="shrink images whose longer side is longer than N pixels",
    )
    storing.add_argument(
        "--quality",
        type=_quality,
        metavar="Q",
        help="of JPEG files that are encoded again for --max-side or --short-side, 1 to 100 "
        "(default: 95)",
    )
    storing.add_argument(
        "--max-pixels",
        type=_count,
        default=USUAL_PIXELS,
        metavar="N",
        help=f"images of more pixels count as damaged (default: {USUAL_PIXELS:,}; at most "
        f"{MAX_PIXELS:,})",
    )
    storing.add_argument(
        "--verify",
        action="store_true",
        help="decode every JPEG that restart rewrote and compare its pixels (default: 1 in 64)",
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
        _SPLIT_NAMES,
        metavar="SPLIT=NAME [SPLIT=NAME ...]",
        help="which folder, shards or value of a CSV column is which split, such as "
        "train=Training test=Testing; others are left out. train=. says that all folders in "
        "SOURCE are classes",
    )
    group.add_argument(
        "--classes", type=Path, metavar="TXT", help="the classes' names, one a line, by label"
    )
    group.add_argument("--image-column", metavar="NAME", help="of CSV, hf; extension in shards")
    group.add_argument("--label-column", metavar="NAME", help="of CSV, hf, beton; key in .json")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line; exits with 2 where it contradicts itself."""
    parser = build_parser()
    # Positional arguments after all others, or --merge would leave none for OUT.
    options = parser.parse_intermixed_args(
        _joined_split_names(sys.argv[1:] if arguments is None else arguments)
    )
    if options.merge is None:
        if options.source is None:
            parser.error("SOURCE and OUT are both required, but for --merge")
        if options.split_names is not None:
            try:
                options.split_names = parse_split_names([options.split_names])
            except ValueError as error:
                parser.error(f"{_SPLIT_NAMES}: {error}")
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


def _joined_split_names(arguments: Sequence[str]) -> list[str]:
    """Join the pairs behind the option with commas: argparse would take SOURCE and OUT for some."""
    joined: list[str] = []
    takes = False
    for argument in arguments:
        is_pair = argument.partition("=")[0] in SPLITS
        if takes and is_pair and joined[-1] != _SPLIT_NAMES:
            joined[-1] += f",{argument}"
        else:
            joined.append(argument)
            takes = argument == _SPLIT_NAMES or (takes and is_pair)
    return joined


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


def _quality(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 100")
    return int(text)


def _shard(text: str) -> Shard:
    try:
        return parse_shard(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
