r"""Measure what a sampler costs: end to end against instance-balanced, and at 10 million images.

The first part reads photographs of a long tail through fastssd's loader in the order of each plan,
the making of the plan included. Balanced plans repeat images of small classes: where files do not
stay in the page cache they would read less, so a run here stands for one whose files do.

    python benchmarks/samplers.py [--data FOLDER] [--json FILE]
"""

import gc
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Benchmark, Case, Row, Target, interleaved, judged, num_cores, rows_of
from our_loader import OurLoader, random_resized_crops
from photographs import photographs, summary
from resident import forget_peak, peak_bytes, resident_bytes
from store import make_store
from torch.utils.data import WeightedRandomSampler

from fastssd.data.class_index import ClassIndex
from fastssd.data.dataset import Split
from fastssd.data.decode.decoders import AUTO
from fastssd.data.draws import Draws
from fastssd.data.images import PIXELS
from fastssd.data.longtail import class_counts
from fastssd.data.plans import Plan

LOADED, PLANNED, PLAN_MEMORY = "end to end", "plan of an epoch", "memory of a plan"
INSTANCE = "fastssd instance"
PERMUTATION, WEIGHTED = "torch RandomSampler", "torch WeightedRandomSampler"
SAMPLERS = ["class_balanced", "square_root", "progressive", "class_aware"]
IMBALANCE = 100
_NUM_CLASSES, _LARGEST = 10, 8_000
NUM_EPOCHS = 90


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both parts."""
    benchmark = Benchmark("samplers", "Samplers: whole loaders by plan, and plans of many images")
    parser = benchmark.parser(repeats=7)
    parser.add_argument("--threads", type=int, default=num_cores(), help="of the loader")
    parser.add_argument("--images", type=int, default=10_000_000, help="of the large plan")
    parser.add_argument("--classes", type=int, default=10_000, help="of the large plan")
    options = parser.parse_args(arguments)
    if options.quick:
        options.images, options.classes = 20_000, 50
    count, batch_size, num_draws = (8, 8, 16) if options.quick else (1000, 64, 3072)
    found = photographs(options.data, count=count if options.data else min(count, 48))
    with tempfile.TemporaryDirectory(prefix="fastssd-samplers-") as folder:
        split = make_store(Path(folder), found).split
        loader = OurLoader(split, AUTO, random_resized_crops(), batch_size, options.threads)
        rows = _loaded(loader, split, num_draws, options.repeats)
    rows += _planned(options.images, options.classes, min(3, options.repeats))
    size = f"{options.images:,} images of {options.classes:,} classes"
    sections = {
        LOADED: f"Images a second through the loader, {num_draws} draws of a long tail (imbalance "
        f"{IMBALANCE}), the plan included; the target is within 2 % of instance.",
        PLANNED: f"Seconds for the draws of one epoch, {size}, the grouping of labels included. "
        "PyTorch's samplers as tensors: what they draw, without the Python numbers that they give "
        "one by one. They draw samples alone, no views.",
        PLAN_MEMORY: f"Peak memory of that beyond the labels, {size}.",
    }
    return benchmark.finish(
        rows,
        options,
        sections,
        source="synthetic" if options.data is None else "a folder of photographs",
        threads=options.threads,
        **summary(found),
    )


def _loaded(loader: OurLoader, split: Split, num_draws: int, repeats: int) -> list[Row]:
    """Return images a second by sampler, through the whole loader."""
    # Image i is photograph i modulo their number, so that even the smallest class has most
    # photographs: what a plan's photographs cost to decode is then alike.
    counts = class_counts(_NUM_CLASSES, _LARGEST, IMBALANCE)
    index = ClassIndex(np.repeat(np.arange(_NUM_CLASSES), counts), _NUM_CLASSES)
    cases = []
    for name in ["instance", *SAMPLERS]:
        plan = _plan(index, name)
        cases.append(Case(f"fastssd {name}", _rate(loader, plan, len(split), num_draws)))
    values = interleaved(cases, repeats=repeats)
    rows = rows_of(values, unit="images/s", against=INSTANCE, section=LOADED)
    targets = [
        Target(f"fastssd {name}", INSTANCE, at_least=0.98, section=LOADED) for name in SAMPLERS[:3]
    ]
    return judged(rows, targets)


def _rate(
    loader: OurLoader, plan: Plan, num_photographs: int, num_draws: int
) -> Callable[[], float]:
    """Return a repeat: images a second of the first draws of the next epoch.

    An epoch's plan is made at once, so these draws bear their share of it.
    """
    epoch = iter(range(NUM_EPOCHS))

    def run() -> float:
        started, count = time.perf_counter(), 0
        draws = plan.epoch(next(epoch))
        planned = time.perf_counter()
        started = planned - (planned - started) * num_draws / len(draws)
        draws = draws[:num_draws]
        for _, batch in loader.host_batches(Draws(draws.samples % num_photographs, draws.views)):
            count += batch[PIXELS].shape[1]
        return count / (time.perf_counter() - started)

    return run


def _planned(num_images: int, num_classes: int, repeats: int) -> list[Row]:
    """Return seconds and peak memory of the plan of an epoch, by sampler."""
    labels = long_tail(num_images, num_classes)
    memory: dict[str, list[float]] = {}

    def case(name: str) -> Case:
        def run() -> float:
            gc.collect()
            forget_peak()
            before = resident_bytes()
            started = time.perf_counter()
            draws = _plan(ClassIndex(labels, num_classes), name).epoch(1)
            seconds = time.perf_counter() - started
            memory.setdefault(f"fastssd {name}", []).append((peak_bytes() - before) / 1e6)
            _check(draws, labels, name)
            return seconds

        return Case(f"fastssd {name}", run)

    peers = [
        Case(PERMUTATION, _seconds(lambda: torch.randperm(num_images))),
        Case(WEIGHTED, _seconds(lambda: _weighted(labels, num_classes))),
    ]
    cases = [case(name) for name in ["instance", *SAMPLERS]]
    values = interleaved([*cases, *peers], repeats=repeats)
    common: dict[str, Any] = {"section": PLANNED, "higher_is_better": False}
    permuted = {name: values.pop(name) for name in (INSTANCE, PERMUTATION)}
    rows = rows_of(permuted, unit="s", against=PERMUTATION, **common)
    rows += rows_of(values, unit="s", against=WEIGHTED, **common)
    rows += rows_of(memory, unit="MB", section=PLAN_MEMORY, higher_is_better=False)
    targets = [
        Target("fastssd class_balanced", at_most=2.0, section=PLANNED),
        Target("fastssd class_balanced", at_most=1000, section=PLAN_MEMORY),
    ]
    return judged(rows, targets)


def _weighted(labels: np.ndarray, num_classes: int) -> torch.Tensor:
    """Return what WeightedRandomSampler draws with classes balanced."""
    weights = 1 / np.bincount(labels, minlength=num_classes)
    sampler = WeightedRandomSampler(weights[labels], len(labels))  # type: ignore[arg-type]
    return torch.multinomial(sampler.weights, sampler.num_samples, sampler.replacement)


def _seconds(job: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        started = time.perf_counter()
        job()
        return time.perf_counter() - started

    return run


def long_tail(num_images: int, num_classes: int) -> np.ndarray:
    """Return shuffled labels whose classes fall off as their rank ** -0.8, each with an image."""
    shares = np.arange(1, num_classes + 1) ** -0.8
    counts = np.maximum(1, (shares / shares.sum() * num_images).astype(np.int64))
    counts[0] += num_images - counts.sum()
    return np.random.default_rng(0).permutation(np.repeat(np.arange(num_classes), counts))


def _plan(index: ClassIndex, sampler: str) -> Plan:
    return Plan(index=index, sampler=sampler, seed=0, stream="features", num_epochs=NUM_EPOCHS)


def _check(draws: Draws, labels: np.ndarray, name: str) -> None:
    """Refuse a plan of the wrong length, or one of equal classes whose classes are not equal.

    Raises:
        SystemExit: If it is wrong.
    """
    if len(draws) != len(labels):
        raise SystemExit(f"{name}: {len(draws)} draws for {len(labels)} images")
    counts = np.bincount(labels[draws.samples])
    fair = len(labels) / len(counts)
    if name in ("class_balanced", "class_aware") and np.abs(counts / fair - 1).max() > 0.5:
        raise SystemExit(f"{name}: classes are drawn {counts.min()} to {counts.max()} times")


if __name__ == "__main__":
    sys.exit(main())
