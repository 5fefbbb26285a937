"""The part of the loader's benchmark about memory and a cold page cache: a process a loader."""

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from harness import Row, Target, judged, rows_of
from our_loader import OurLoader, random_resized_crops
from peers.peer import Int64, Pixels, is_measured
from resident import forget_peak, peak_bytes, resident_bytes
from store import Store

from fastssd.data.dataset import open_dataset
from fastssd.data.decode.decoders import AUTO

MEMORY, COLD = "memory at batch 256", "cold page cache"
SECTIONS = {
    MEMORY: "Peak resident memory above the process that has already run a small loader.",
    COLD: "Each stored photograph once, its file evicted from the page cache or not. FFCV maps its "
    "file and compiles for seconds before it reads, so it has no row here.",
}
OURS, FFCV = "fastssd", "FFCV Loader"
_LOADERS = {OURS: "fastssd", FFCV: "ffcv"}
_BATCH_SIZE, _QUICK_BATCH_SIZE, _SMALL_BATCH_SIZE = 256, 32, 8
_BATCHES = 10


def memory_rows(store: Store, options: argparse.Namespace) -> tuple[list[Row], dict[str, str]]:
    """Return the rows of both sections and their texts.

    Args:
        store: The photographs.
        options: Of the benchmark: `threads`, `quick`, `alone`. There is one repeat: peaks repeat
            to a megabyte, and FFCV compiles for a minute in each process.
    """
    memory: dict[str, list[float]] = {}
    cold: dict[str, list[float]] = {}
    names = [OURS, FFCV] if is_measured("ffcv", options) else [OURS]
    for name in names:
        found = _measured(_LOADERS[name], store, options)
        memory[name] = [found["peak"] / 1e6]
        if name == OURS:
            cold = {"fastssd, evicted": [found["cold"]], "fastssd, cached": [found["warm"]]}
    against = FFCV if FFCV in names else None
    rows = rows_of(memory, unit="MB", against=against, higher_is_better=False, section=MEMORY)
    target = Target(OURS, FFCV, at_most=0.5, section=MEMORY)
    rows = judged(rows, [target])
    rows += rows_of(cold, unit="images/s", against="fastssd, cached", section=COLD)
    return rows, SECTIONS


def _measured(loader: str, store: Store, options: argparse.Namespace) -> dict[str, float]:
    """Run one loader in a process of its own, on a copy that nothing else has mapped."""
    dataset = store.beton.parent
    copy = dataset.with_name("cold")
    shutil.copytree(dataset, copy)
    try:
        command = [sys.executable, __file__, loader, str(copy), "--threads", str(options.threads)]
        command += ["--quick"] if options.quick else []
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    finally:
        shutil.rmtree(copy)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one loader: the process that `memory_rows` starts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("loader", choices=list(_LOADERS.values()))
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    batch_size = _QUICK_BATCH_SIZE if options.quick else _BATCH_SIZE

    # Imports, compiling and the first touch of the file are no part of a loader's memory.
    found = {"warm": _epoch(options, _SMALL_BATCH_SIZE, repeats=1)}
    if options.loader == "fastssd":
        _evict(options.dataset / "train.beton")
        found["cold"] = _epoch(options, _SMALL_BATCH_SIZE, repeats=1)
        found["warm"] = _epoch(options, _SMALL_BATCH_SIZE, repeats=1)
    gc.collect()
    forget_peak()
    idle = resident_bytes()
    _epoch(options, batch_size, repeats=_BATCHES)
    print(json.dumps(found | {"peak": peak_bytes() - idle}))
    return 0


def _epoch(options: argparse.Namespace, batch_size: int, *, repeats: int) -> float:
    """Run at least so many batches, or every sample once, and return images a second."""
    split = open_dataset(options.dataset).split("train")
    num_samples = len(split) if repeats == 1 else max(len(split), repeats * batch_size)
    samples = np.resize(np.arange(len(split)), num_samples)
    batches = _batches(options, batch_size, samples)
    started, count = time.perf_counter(), 0
    for pixels, _ in batches:
        count += len(pixels)
    return count / (time.perf_counter() - started)


def _batches(
    options: argparse.Namespace, batch_size: int, samples: Int64
) -> Iterator[tuple[Pixels, Int64]]:
    if options.loader == "ffcv":
        from peers.ffcv_loader import FfcvLoader

        beton = options.dataset / "train.beton"
        ffcv = FfcvLoader(beton, batch_size=batch_size, threads=options.threads)
        return ffcv.batches(samples)
    split = open_dataset(options.dataset).split("train")
    ours = OurLoader(split, AUTO, random_resized_crops(), batch_size, options.threads)
    return ours.batches(samples)


def _evict(path: Path) -> None:
    """Drop a file's pages from the cache; they must not be mapped."""
    gc.collect()
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    sys.exit(main())
