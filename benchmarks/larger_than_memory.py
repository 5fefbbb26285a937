r"""Measure loaders on a dataset that is larger than the memory they may use.

Photographs are stored again and again until there are enough bytes; every loader reads them in a
random order, in a process of its own, whose memory a control group limits (Linux, root; on a
desktop start it in `systemd-run --scope -p MemoryMax=4G` with --limits none). The file has left the
page cache before. Only the photographs' *places* are different, which is what a disk sees. Under a
limit, a run draws one and a half times as many bytes as that, unless this takes too long; all takes
about 15 minutes on 2 cores.

    python benchmarks/larger_than_memory.py [--data DIR] [--folder /scratch] [--gigabytes 8]
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from control_group import ControlGroup
from harness import Benchmark, Case, Row, interleaved, num_cores, rows_of
from our_loader import OurLoader, random_resized_crops
from peers.ffcv_loader import FfcvLoader
from peers.peer import Pixels, is_measured
from photographs import Photographs, photographs, summary, too_large_for_ffcv
from store import make_large_dataset

from fastssd.data.dataset import Split, open_dataset
from fastssd.data.decode.decoders import AUTO

BATCH_SIZE, _QUICK_BATCH_SIZE = 128, 4
_WARM_UP_BATCHES = 8
_SHARE_OF_LIMIT = 1.5  # that is drawn at least, in bytes, where it does not take longer than this:
_LONGEST_SECONDS = 60
_LEAST_BATCHES, _MOST_PHOTOGRAPHS = 12, 200_000  # stored, however large they are
_QUICK_BYTES, _QUICK_BATCHES = 2_000_000, 4
OURS, FFCV, FFCV_PAGES = "fastssd", "FFCV Loader, os_cache", "FFCV Loader, its own page cache"
_FFCV_NEEDS = 3.5e9  # bytes: its page cache ends it with less, at 128 images a batch
_SECTION = "The file leaves the page cache before each run; images are read in a random order"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or be the process that is measured."""
    benchmark = Benchmark("larger_than_memory", "Datasets larger than memory")
    parser = benchmark.parser(repeats=3)
    add = parser.add_argument
    add("--folder", type=Path, metavar="DIR", help="where there is room (the system's)")
    add("--gigabytes", type=float, default=8.0, metavar="N", help="of the dataset (8)")
    add("--limits", nargs="+", default=["none", "4", "1.25"], metavar="GB", help="none 4 1.25")
    add("--batches", type=int, default=100, metavar="N", help="that are timed at least (100)")
    add("--threads", type=int, default=num_cores(), metavar="N", help="of each loader (cores)")
    add("--alone", action="store_true", help="leave the peers out")
    add("--loader", help=argparse.SUPPRESS)
    add("--dataset", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.loader:
        print(json.dumps(measured(options)))
        return 0
    if options.quick:
        options.limits, options.batches = ["none"], _QUICK_BATCHES
    wanted = _QUICK_BYTES if options.quick else options.gigabytes * 1e9
    found = photographs(options.data, count=8 if options.quick else 1000 if options.data else 48)
    count = math.ceil(wanted * len(found) / sum(len(each.content) for each in found))
    count = min(max(count, _LEAST_BATCHES * _batch_size(options)), _MOST_PHOTOGRAPHS)
    with tempfile.TemporaryDirectory(prefix="fastssd-larger-", dir=options.folder) as name:
        dataset = Path(name) / "dataset"
        print(f"{count:,} photographs are stored in {dataset}", flush=True)
        make_large_dataset(dataset, found, count)
        gigabytes = (dataset / "train.beton").stat().st_size / 1e9
        rows: list[Row] = []
        sections = {}
        for limit in options.limits:
            limited = "no limit" if limit == "none" else f"{limit} GB of memory"
            section = f"{gigabytes:.1f} GB of photographs, {limited}"
            drawn = 0.0 if limit == "none" else _SHARE_OF_LIMIT * float(limit)
            if drawn > gigabytes:
                print(f"{section}: left out, as {drawn:g} GB are wanted", flush=True)
                continue
            batches = max(
                options.batches, math.ceil(drawn / gigabytes * count / _batch_size(options))
            )
            sections[section] = f"{_SECTION}, {batches} batches or {_LONGEST_SECONDS} s of them."
            measuring = Measuring(dataset, found, gigabytes / count, limit, batches, options)
            rows += measuring.rows(section)
    if not rows:
        raise SystemExit("nothing was measured: store more --gigabytes, or set lower --limits")
    of_photographs = summary(found) | {"photographs": count, "different": len(found)}
    return benchmark.finish(
        rows, options, sections, batch_size=BATCH_SIZE, threads=options.threads, **of_photographs
    )


@dataclass(frozen=True, slots=True)
class Measuring:
    """What is measured under one limit.

    Attributes:
        dataset: The directory.
        found: The different photographs in it.
        gigabytes: Of a stored photograph, on average.
        limit: "none", or gigabytes.
        batches: That are timed at most.
        options: Of the benchmark.
    """

    dataset: Path
    found: Photographs
    gigabytes: float
    limit: str
    batches: int
    options: argparse.Namespace

    @property
    def num_bytes(self) -> float:
        """The limit in bytes."""
        return math.inf if self.limit == "none" else float(self.limit) * 1e9

    def rows(self, section: str) -> list[Row]:
        """Measure all loaders in turns, each in processes of its own."""
        names, notes = [OURS], {}
        if is_measured("ffcv", self.options) and self.num_bytes >= _FFCV_NEEDS:
            problem = too_large_for_ffcv(
                self.found, _batch_size(self.options), limit=self.num_bytes
            )
            names += [] if problem else [FFCV, FFCV_PAGES]
            notes[OURS] = problem
        cases = [Case(name, self._run(name, notes)) for name in names]
        values = interleaved(cases, repeats=self.options.repeats, warmup=0)
        against = FFCV_PAGES if FFCV_PAGES in names else None
        return rows_of(values, unit="images/s", section=section, against=against, notes=notes)

    def _run(self, name: str, notes: dict[str, str]) -> Callable[[], float]:
        """Return what runs a loader and gives its images a second; how many joins the notes."""
        command = [sys.executable, __file__, "--loader", name, "--dataset", str(self.dataset)]
        command += ["--batches", str(self.batches), "--threads", str(self.options.threads)]
        command += ["--quick"] if self.options.quick else []
        said = notes.get(name, "")

        def run() -> float:
            _evict(self.dataset / "train.beton")
            with ControlGroup(None if self.limit == "none" else self.num_bytes) as group:
                done = subprocess.run(
                    command, check=False, capture_output=True, text=True, preexec_fn=group.enter
                )
            if done.returncode:
                raise SystemExit(
                    f"{name} with {self.limit} GB ended with {done.returncode}: {done.stderr}"
                )
            rate, count = json.loads(done.stdout.splitlines()[-1])
            drawn = f"{count:,} photographs, {count * self.gigabytes:.1f} GB, were drawn"
            notes[name] = f"{drawn}; {said}" if said else drawn
            print(f"{name}, limit {self.limit}: {rate:.0f} images/s; {drawn}", flush=True)
            return float(rate)

        return run


def measured(options: argparse.Namespace) -> tuple[float, int]:
    """Return the rate of one loader behind its first batches, and the images that it made."""
    split = open_dataset(options.dataset).split("train")
    # As many as may be in flight, so that the others are made while the clock runs.
    ahead = max(_WARM_UP_BATCHES, 2 * options.threads)
    warm_up = min(ahead, len(split) // _batch_size(options) // 3)
    batches = _batches(options, split)
    skipped = sum(len(pixels) for pixels in islice(batches, warm_up))
    started, count, seconds = time.perf_counter(), 0, 0.0
    for pixels in islice(batches, options.batches):
        count += len(pixels)
        seconds = time.perf_counter() - started
        if seconds > _LONGEST_SECONDS:
            break
    return count / seconds, skipped + count


def _batches(options: argparse.Namespace, split: Split) -> Iterator[Pixels]:
    size = _batch_size(options)
    if options.loader == OURS:
        ours = OurLoader(split, AUTO, random_resized_crops(), size, options.threads)
        return (pixels for pixels, _ in ours.batches(np.arange(len(split))))
    ffcv = FfcvLoader(
        options.dataset / "train.beton",
        batch_size=size,
        threads=options.threads,
        os_cache=options.loader == FFCV,
    )
    return (pixels for pixels, _ in ffcv.whole_epoch())


def _batch_size(options: argparse.Namespace) -> int:
    return _QUICK_BATCH_SIZE if options.quick else BATCH_SIZE


def _evict(path: Path) -> None:
    """Drop a file's pages from the cache; no process may have it mapped."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    sys.exit(main())
