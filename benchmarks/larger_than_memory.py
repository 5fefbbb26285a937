r"""Measure loaders on a dataset that is larger than the memory they may use.

Photographs are stored again and again until there are enough bytes; every loader reads them in a
random order, in a process of its own, whose memory a control group limits (Linux, root; on a
desktop start it in `systemd-run --scope -p MemoryMax=4G` with --limits none). The file has left the
page cache before. Only the photographs' *places* are different, which is what a disk sees.

    python benchmarks/larger_than_memory.py [--data DIR] [--folder /scratch] [--gigabytes 8]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from control_group import ControlGroup
from harness import Benchmark, Case, Row, interleaved, num_cores, rows_of
from our_loader import OurLoader, random_resized_crops
from peers.ffcv_loader import FfcvLoader
from peers.peer import Pixels, is_measured
from photographs import photographs, summary
from store import make_dataset

from fastssd.data.dataset import open_dataset
from fastssd.data.decode.decoders import AUTO

BATCH_SIZE = 128
_WARM_UP_BATCHES = 8
_QUICK_BYTES, _QUICK_BATCHES = 2_000_000, 4
OURS, FFCV, FFCV_PAGES = "fastssd", "FFCV Loader, os_cache", "FFCV Loader, its own page cache"
_FFCV_NEEDS = 3.5  # GB: its page cache ends it with less, at 128 images a batch
_SECTION = "The file leaves the page cache before each run; images are read in a random order"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or be the process that is measured."""
    benchmark = Benchmark("larger_than_memory", "Datasets larger than memory")
    parser = benchmark.parser(repeats=3)
    add = parser.add_argument
    add("--folder", type=Path, metavar="DIR", help="where there is room (the system's)")
    add("--gigabytes", type=float, default=8.0, metavar="N", help="of the dataset (8)")
    add("--limits", nargs="+", default=["none", "4", "1.25"], metavar="GB", help="none 4 1.25")
    add("--batches", type=int, default=100, metavar="N", help="that are timed (100)")
    add("--threads", type=int, default=num_cores(), metavar="N", help="of each loader (cores)")
    add("--alone", action="store_true", help="leave the peers out")
    add("--loader", help=argparse.SUPPRESS)
    add("--dataset", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.loader:
        print(images_a_second(options))
        return 0
    if options.quick:
        options.limits, options.batches = ["none"], _QUICK_BATCHES
    wanted = _QUICK_BYTES if options.quick else options.gigabytes * 1e9
    found = photographs(options.data, count=8 if options.quick else 1000)
    count = -(-int(wanted) // (sum(len(each.content) for each in found) // len(found)))
    stored = [found[number % len(found)] for number in range(count)]
    with tempfile.TemporaryDirectory(prefix="fastssd-larger-", dir=options.folder) as name:
        dataset = Path(name) / "dataset"
        print(f"{len(stored):,} photographs are stored in {dataset}", flush=True)
        make_dataset(dataset, stored)
        gigabytes = (dataset / "train.beton").stat().st_size / 1e9
        rows: list[Row] = []
        sections = {}
        for limit in options.limits:
            limited = "no limit" if limit == "none" else f"{limit} GB of memory"
            section = f"{gigabytes:.1f} GB of photographs, {limited}"
            sections[section] = f"{_SECTION}, {options.batches} batches."
            rows += _rows(dataset, limit, section, options)
    of_photographs = summary(found) | {"photographs": len(stored), "different": len(found)}
    return benchmark.finish(
        rows, options, sections, batch_size=BATCH_SIZE, threads=options.threads, **of_photographs
    )


def _rows(dataset: Path, limit: str, section: str, options: argparse.Namespace) -> list[Row]:
    """Return the rows of one limit, "none" or gigabytes."""
    names = [OURS]
    if is_measured("ffcv", options) and (limit == "none" or float(limit) >= _FFCV_NEEDS):
        names += [FFCV, FFCV_PAGES]
    cases = [Case(name, _run(name, dataset, limit, options)) for name in names]
    values = interleaved(cases, repeats=options.repeats, warmup=0)
    against = FFCV_PAGES if FFCV_PAGES in names else None
    return rows_of(values, unit="images/s", section=section, against=against)


def _run(name: str, dataset: Path, limit: str, options: argparse.Namespace) -> Callable[[], float]:
    """Return what runs a loader in a process of its own, and gives its images a second."""
    command = [sys.executable, __file__, "--loader", name, "--dataset", str(dataset)]
    command += ["--batches", str(options.batches), "--threads", str(options.threads)]
    command += ["--quick"] if options.quick else []

    def run() -> float:
        _evict(dataset / "train.beton")
        with ControlGroup(None if limit == "none" else float(limit) * 1e9) as group:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, preexec_fn=group.enter
            )
        if done.returncode:
            raise SystemExit(f"{name} with {limit} GB ended with {done.returncode}: {done.stderr}")
        rate = float(done.stdout.splitlines()[-1])
        print(f"{name}, limit {limit}: {rate:.0f} images/s", flush=True)
        return rate

    return run


def images_a_second(options: argparse.Namespace) -> float:
    """Return the rate of one loader behind its first batches."""
    batches = _batches(options)
    warm_up = 1 if options.quick else _WARM_UP_BATCHES
    for _ in islice(batches, warm_up):
        pass
    started, count = time.perf_counter(), 0
    for pixels in islice(batches, options.batches):
        count += len(pixels)
    return count / (time.perf_counter() - started)


def _batches(options: argparse.Namespace) -> Iterator[Pixels]:
    size = 4 if options.quick else BATCH_SIZE
    if options.loader == OURS:
        split = open_dataset(options.dataset).split("train")
        ours = OurLoader(split, AUTO, random_resized_crops(), size, options.threads)
        return (pixels for pixels, _ in ours.batches(np.arange(len(split))))
    ffcv = FfcvLoader(
        options.dataset / "train.beton",
        batch_size=size,
        threads=options.threads,
        os_cache=options.loader == FFCV,
    )
    return (pixels for pixels, _ in ffcv.whole_epoch())


def _evict(path: Path) -> None:
    """Drop a file's pages from the cache; no process may have it mapped."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    sys.exit(main())
