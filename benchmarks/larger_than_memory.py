r"""Measure reading a dataset that does not fit in memory, in a control group with little of it.

Photographs are stored again and again until the `.beton` has the wanted size. An epoch in random
order, one random resized crop of each, is then read by processes that may hold only a part of it
in the page cache, with and without announcing reads by plan; and by one that holds it all.

    sudo python benchmarks/larger_than_memory.py [--data FOLDER] [--json FILE]

Linux alone, as root: the limit is a memory control group's (version 1 or 2).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from harness import Benchmark, Case, interleaved, num_cores, rows_of
from memory_section import evict
from our_loader import OurLoader, random_resized_crops, shuffled
from photographs import photographs, summary
from store import make_dataset

from fastssd.data.dataset import open_dataset
from fastssd.data.decode.decoders import AUTO

GROUPS = Path("/sys/fs/cgroup")
LIMITED, PLANNED = "fastssd, not announced", "fastssd, reads announced by plan"
CACHED = "fastssd, all in memory"
SECTION = "larger than memory"
SECTIONS = {
    SECTION: "An epoch in random order; the process and what it has in the page cache may take so "
    "much memory. The last row has all of the file in the page cache."
}
_BATCH_SIZE = 64
_PROCESS_BYTES = 700 << 20
"""What Python, PyTorch and the loader take themselves, and some cache beside it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the epochs in turns."""
    benchmark = Benchmark("larger_than_memory", "Reading a dataset that memory does not hold")
    parser = benchmark.parser(repeats=3)
    parser.add_argument("--threads", type=int, default=num_cores(), help="of the loader")
    parser.add_argument("--megabytes", type=int, default=4000, help="of the dataset (4000)")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--read-ahead", type=int, default=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        print(json.dumps(epoch(options.child, options.read_ahead, options.threads)))
        return 0
    found = photographs(options.data, count=8 if options.quick else 1000)
    size = 20 << 20 if options.quick else options.megabytes * 1_000_000
    copies = max(1, size // sum(len(each.content) for each in found))
    with tempfile.TemporaryDirectory(prefix="fastssd-large-") as name, limited() as group:
        dataset = Path(name) / "dataset"
        make_dataset(dataset, list(found) * copies)
        beton = dataset / "train.beton"
        num_bytes = beton.stat().st_size

        def run(read_ahead: int, into: Path | None) -> Callable[[], float]:
            def images_a_second() -> float:
                if into is not None:
                    evict(beton)
                return _in_group(dataset, into, read_ahead, options)

            return images_a_second

        cases = [Case(LIMITED, run(0, group)), Case(PLANNED, run(4, group))]
        values = interleaved(cases, repeats=options.repeats, warmup=0)
        values |= interleaved([Case(CACHED, run(4, None))], repeats=options.repeats)
    note = f"{_PROCESS_BYTES / 1e6:.0f} MB for the process and a file of {num_bytes / 1e6:.0f} MB"
    notes = {LIMITED: note, PLANNED: note}
    rows = rows_of(values, unit="images/s", against=CACHED, section=SECTION, notes=notes)
    return benchmark.finish(
        rows,
        options,
        SECTIONS,
        source="synthetic" if options.data is None else "a folder of photographs",
        threads=options.threads,
        batch_size=_BATCH_SIZE,
        file_bytes=num_bytes,
        limit_bytes=_PROCESS_BYTES,
        **summary(found),
    )


def epoch(dataset: Path, read_ahead: int, threads: int) -> float:
    """Return the images a second of an epoch in random order, the first batch's wait included."""
    split = open_dataset(dataset).split("train")
    crops = random_resized_crops()
    loader = OurLoader(split, AUTO, crops, _BATCH_SIZE, threads, read_ahead)
    draws = shuffled(np.arange(len(split)))
    started = time.perf_counter()
    count = sum(len(part) for part, _ in loader.host_batches(draws))
    return count / (time.perf_counter() - started)


@contextmanager
def limited() -> Iterator[Path]:
    """Make a control group that may take `_PROCESS_BYTES`; yield the file that takes processes.

    Raises:
        SystemExit: If that is not possible here.
    """
    version_1 = (GROUPS / "memory").is_dir()
    group = GROUPS / ("memory" if version_1 else "") / f"fastssd-{os.getpid()}"
    limit = "memory.limit_in_bytes" if version_1 else "memory.max"
    try:
        group.mkdir()
        (group / limit).write_text(str(_PROCESS_BYTES))
    except OSError as error:
        raise SystemExit(f"{group}: no control group can be made: {error.strerror}") from error
    try:
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def _in_group(
    dataset: Path, group: Path | None, read_ahead: int, options: argparse.Namespace
) -> float:
    """Return what a process measures, in a control group or in none."""
    command = [sys.executable, __file__, "--child", str(dataset)]
    command += ["--read-ahead", str(read_ahead), "--threads", str(options.threads)]
    if group is not None:
        command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group), *command]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    value: float = json.loads(done.stdout.splitlines()[-1])
    return value


if __name__ == "__main__":
    sys.exit(main())
