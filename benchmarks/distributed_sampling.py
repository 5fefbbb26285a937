r"""Show what class-aware sampling loses where it is cut for several processes the usual ways.

Three ways to draw an epoch of CIFAR100-LT (imbalance 100) on W ranks, simulated without images:

    fastssd         one global class-aware sequence, of which every rank takes its part of a batch
    SSD's split     every rank balances within its own random W-th of the images
                    (SSD_LT/loader.py, DistributedClassAwareSampler)
    OLTR's copies   OLTR's and Kang et al.'s ClassAwareSampler, which knows no ranks, on each rank
                    with a seed of its own

    python benchmarks/distributed_sampling.py [--data FOLDER_OF_CLASSES] [--json FILE]
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastssd.data.class_index import ClassIndex
from fastssd.data.longtail import class_counts
from fastssd.data.plans import Plan
from fastssd.data.sharding import micro_batches, steps_per_epoch

Int64 = NDArray[np.int64]
Epoch = list[Int64]
"""The samples that each rank draws, in order."""

PER_CLASS = 2
"""Images a class visit, as in SSD's code."""


def fastssd_epoch(index: ClassIndex, num_ranks: int, epoch: int) -> Epoch:
    """Return what the ranks draw by this project's plan, batch after batch."""
    text = f"class_aware:per_class={PER_CLASS}"
    plan = Plan(index=index, sampler=text, seed=0, stream="balance", num_epochs=epoch + 1)
    batch_size = PER_CLASS * num_ranks
    steps = range(steps_per_epoch(len(index), batch_size))
    draws = plan.epoch(epoch)
    return [
        np.concatenate(
            [
                part.samples
                for part in micro_batches(
                    draws,
                    steps,
                    batch_size=batch_size,
                    accumulate=1,
                    rank=rank,
                    num_processes=num_ranks,
                )
            ]
        )
        for rank in range(num_ranks)
    ]


def split_epoch(index: ClassIndex, num_ranks: int, epoch: int) -> Epoch:
    """Return what the ranks draw if each balances within a random part of the images."""
    random = np.random.default_rng([epoch, num_ranks])
    length = -(-len(index) // num_ranks)
    order = np.resize(random.permutation(len(index)), length * num_ranks)
    return [_balanced(index, order[rank::num_ranks], length, random) for rank in range(num_ranks)]


def copies_epoch(index: ClassIndex, num_ranks: int, epoch: int) -> Epoch:
    """Return what the ranks draw if each balances over all images on its own."""
    everything = np.arange(len(index))
    length = len(index) // num_ranks
    return [
        _balanced(index, everything, length, np.random.default_rng([epoch, num_ranks, rank]))
        for rank in range(num_ranks)
    ]


UNITS = {
    "reach": "% of ranks that see a smallest class",
    "share": "% of an equal share, a smallest class",
    "range": "% of an equal share, most less least drawn",
}
OURS, PEER = "fastssd", "SSD's split"
WAYS: dict[str, Callable[[ClassIndex, int, int], Epoch]] = {
    OURS: fastssd_epoch,
    PEER: split_epoch,
    "OLTR's copies": copies_epoch,
}


def measure(index: ClassIndex, epoch: Epoch) -> dict[str, float]:
    """Return what an epoch does to the smallest classes and to the balance of all.

    Returns:
        `reach`: percent of the ranks on which a smallest class occurs; `share`: percent of an
        equal share of all draws that a smallest class has; `range`: draws of the class drawn most
        less those of the class drawn least, in percent of an equal share.
    """
    counts = np.stack([np.bincount(index.labels[s], minlength=index.num_classes) for s in epoch])
    smallest = index.counts == index.counts[index.present].min()
    by_class = counts.sum(axis=0)
    fair = by_class.sum() / len(index.present)
    return {
        "reach": 100 * float((counts[:, smallest] > 0).mean()),
        "share": 100 * float(by_class[smallest].mean() / fair),
        "range": 100 * float(np.ptp(by_class[index.present]) / fair),
    }


def _balanced(index: ClassIndex, rows: Int64, length: int, random: np.random.Generator) -> Int64:
    """Return draws of classes in shuffled cycles, each visit the class's next images."""
    images = [rows[index.labels[rows] == label] for label in range(index.num_classes)]
    present = [label for label in range(index.num_classes) if len(images[label])]
    visits = -(-length // PER_CLASS)
    turns = np.concatenate(
        [random.permutation(present) for _ in range(-(-visits // len(present)))]
    )[:visits]
    draws = np.empty((visits, PER_CLASS), np.int64)
    for label in present:
        at = np.flatnonzero(turns == label)
        needed = len(at) * PER_CLASS
        cycles = [
            random.permutation(images[label]) for _ in range(-(-needed // len(images[label])))
        ]
        if cycles:
            draws[at] = np.concatenate(cycles)[:needed].reshape(-1, PER_CLASS)
    return draws.ravel()[:length]


def rows_of(index: ClassIndex, ranks: list[int], num_epochs: int) -> list[dict[str, Any]]:
    """Return a row of the report for every number of ranks, measure and way."""
    rows = []
    for num_ranks in ranks:
        found = {
            way: [measure(index, epoch_of(index, num_ranks, e)) for e in range(num_epochs)]
            for way, epoch_of in WAYS.items()
        }
        for key, unit in UNITS.items():
            medians = {way: np.median([each[key] for each in found[way]]) for way in WAYS}
            for way in WAYS:
                values = [each[key] for each in found[way]]
                against = PEER if way == OURS else OURS
                better = _times_better(medians[way], medians[against], lower=key == "range")
                rows.append(
                    {
                        "name": f"{way}, {num_ranks} ranks, {key}",
                        "value": round(float(medians[way]), 2),
                        "unit": unit,
                        "spread": np.percentile(values, [25, 75]).round(2).tolist(),
                        "ratio": better,
                        "against": f"{against}, {num_ranks} ranks, {key}",
                        "mean": round(float(np.mean(values)), 2),
                    }
                )
    return rows


def files_of(root: Path) -> list[int]:
    """Return the number of files in each folder of a folder; none where it is no folder."""
    folders = sorted(path for path in root.glob("*/") if path.is_dir())
    return [sum(path.is_file() for path in folder.iterdir()) for folder in folders]


def _times_better(value: float, other: float, *, lower: bool) -> float | None:
    good, bad = (other, value) if lower else (value, other)
    return round(float(good / bad), 3) if bad else None


def main(arguments: list[str] | None = None) -> int:
    """Run the simulation, print its rows, write the JSON."""
    options = _parser().parse_args(arguments)
    counts = files_of(options.data) if options.data else class_counts(100, 500, 100).tolist()
    least = PER_CLASS * max(options.ranks)
    if sum(counts) < least:
        raise SystemExit(
            f"{options.data}: {len(counts)} folders with {sum(counts)} files; wanted is a folder "
            f"of each class, and at least {least} images for {max(options.ranks)} ranks"
        )
    index = ClassIndex(np.repeat(np.arange(len(counts)), counts), len(counts))
    rows = rows_of(index, options.ranks, options.epochs)
    for row in rows:
        low, high = row["spread"]
        spread = f"({low:.1f} to {high:.1f}, mean {row['mean']:.1f})"
        print(f"{row['name']:30} {row['value']:6.1f} {spread:34} {row['unit']}")
    if options.json:
        environment = {"python": platform.python_version(), "numpy": np.__version__}
        environment |= {"images": len(index), "classes": len(counts), "epochs": options.epochs}
        text = json.dumps({"environment": environment, "rows": rows}, indent=2)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="count the files of this folder's folders")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 4, 8], metavar="W")
    parser.add_argument("--epochs", type=int, default=50, metavar="N", help="that are simulated")
    return parser


if __name__ == "__main__":
    sys.exit(main())
