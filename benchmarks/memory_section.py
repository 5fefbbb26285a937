"""The part of the loader's benchmark about memory, a process a loader, and a cold page cache."""

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from harness import Case, Row, Target, interleaved, judged, rows_of
from our_loader import OurLoader, random_resized_crops
from peers.peer import Loader, is_measured
from photographs import too_large_for_ffcv
from resident import forget_peak, peak_bytes, resident_bytes
from store import Store, make_large_dataset

from fastssd.data.dataset import Split, open_dataset
from fastssd.data.decode.decoders import AUTO

MEMORY, COLD = "memory at batch 256", "cold page cache"
SECTIONS = {
    MEMORY: "Peak resident memory of an epoch above what the process has after an epoch before it: "
    "what is imported and compiled, and the file, are no part of it.",
    COLD: "Every stored photograph once, their file evicted from the page cache or not. FFCV keeps "
    "its file mapped, so that it cannot be evicted, and has no row here.",
}
OURS, FFCV = "fastssd", "FFCV Loader"
EVICTED, CACHED = "fastssd, evicted", "fastssd, cached"
_LOADERS = {OURS: "fastssd", FFCV: "ffcv"}
_BATCH_SIZE, _QUICK_BATCH_SIZE = 256, 32
_BATCHES, _LEAST_BATCHES, _PIXELS = 10, 5, 1e9  # of an epoch; fewer where images are large
_COLD_BATCH_SIZE, _COLD_SECONDS, _COLD_BYTES = 16, 0.5, 1e9


def memory_rows(store: Store, options: argparse.Namespace) -> tuple[list[Row], dict[str, str]]:
    """Return the rows of both sections and their texts.

    Args:
        store: The photographs.
        options: Of the benchmark: `threads`, `repeats`, `quick`, `alone`. Memory has one repeat:
            peaks repeat to a megabyte, and FFCV compiles for a minute in each process.
    """
    names, notes = [OURS], {}
    if is_measured("ffcv", options):
        problem = too_large_for_ffcv(store.photographs, _batch_size(options))
        names += [] if problem else [FFCV]
        notes[OURS] = problem
    memory = {name: [_peak(name, store, options) / 1e6] for name in names}
    against = FFCV if FFCV in names else None
    of_memory = {"unit": "MB", "higher_is_better": False, "section": MEMORY}
    rows = rows_of(memory, against=against, notes=notes, **of_memory)
    rows = judged(rows, [Target(OURS, FFCV, at_most=0.5, section=MEMORY)])
    return rows + _cold_rows(store, options), SECTIONS


def _peak(name: str, store: Store, options: argparse.Namespace) -> float:
    """Run one loader in a process of its own, on a copy that nothing else has mapped."""
    dataset = store.beton.parent
    copy = dataset.with_name("alone")
    shutil.copytree(dataset, copy)
    command = [sys.executable, __file__, _LOADERS[name], str(copy)]
    command += ["--threads", str(options.threads), *(["--quick"] if options.quick else [])]
    try:
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    finally:
        shutil.rmtree(copy)
    if done.returncode:
        raise SystemExit(
            f"{name}: what measures its memory ended with {done.returncode}; see above"
        )
    return float(json.loads(done.stdout.splitlines()[-1]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one loader: the process that `memory_rows` starts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("loader", choices=list(_LOADERS.values()))
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    batch_size = _batch_size(options)
    split = open_dataset(options.dataset).split("train")
    # The same loader twice: imports, what is compiled and the first touch of the file are no part
    # of its memory. What it allocates for an epoch it frees in the end.
    loader = _loader(split, batch_size, options)
    pixels = batch_size * split.sizes.prod(axis=1, dtype=np.int64).mean()
    batches = int(np.clip(_PIXELS / pixels, _LEAST_BATCHES, _BATCHES))
    num_samples = max(len(split), batches * batch_size)
    _images_a_second(loader, len(split), num_samples)
    gc.collect()
    forget_peak()
    idle = resident_bytes()
    _images_a_second(loader, len(split), num_samples)
    print(json.dumps(peak_bytes() - idle))
    return 0


def _batch_size(options: argparse.Namespace) -> int:
    return _QUICK_BATCH_SIZE if options.quick else _BATCH_SIZE


def _loader(split: Split, batch_size: int, options: argparse.Namespace) -> Loader:
    if options.loader == "ffcv":
        from peers.ffcv_loader import FfcvLoader

        beton = options.dataset / "train.beton"
        return FfcvLoader(beton, batch_size=batch_size, threads=options.threads)
    return OurLoader(split, AUTO, random_resized_crops(), batch_size, options.threads)


def _images_a_second(loader: Loader, num_photographs: int, num_samples: int) -> float:
    """Run batches of so many samples, the photographs in turns, and return their rate."""
    samples = np.resize(np.arange(num_photographs), num_samples)
    started, count = time.perf_counter(), 0
    for pixels, _ in loader.batches(samples):
        count += len(pixels)
    return count / (time.perf_counter() - started)


def _cold_rows(store: Store, options: argparse.Namespace) -> list[Row]:
    """Measure reading from a file that is in the page cache, or not, in turns."""
    folder = store.beton.parent.with_name("cold")

    def rate_of(split: Split, num_samples: int) -> float:
        crops = random_resized_crops()
        loader = OurLoader(split, AUTO, crops, _COLD_BATCH_SIZE, options.threads)
        return _images_a_second(loader, len(split), num_samples)

    def cached() -> float:
        return rate_of(open_dataset(folder).split("train"), count)

    def evicted() -> float:
        _evict(folder / "train.beton")
        return cached()

    # So many photographs that a run takes long enough, whatever they and the machine are.
    count = 2 * _COLD_BATCH_SIZE
    seconds = 0 if options.quick else _COLD_SECONDS
    most = _COLD_BYTES / (store.beton.stat().st_size / len(store.split))
    while count < most and count / rate_of(store.split, count) < seconds:
        count *= 2
    make_large_dataset(folder, store.photographs, count)
    # Each turn begins with an evicted file, which then is in the cache.
    values = interleaved([Case(EVICTED, evicted), Case(CACHED, cached)], repeats=options.repeats)
    shutil.rmtree(folder)
    different = min(count, len(store.photographs))
    notes = {EVICTED: f"{count:,} photographs, {different:,} of them different"}
    return rows_of(values, unit="images/s", against=CACHED, section=COLD, notes=notes)


def _evict(path: Path) -> None:
    """Drop a file's pages from the cache; they must not be mapped."""
    gc.collect()
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    sys.exit(main())
