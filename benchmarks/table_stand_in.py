"""A run of iNaturalist 2018's shape without its images: a process that makes a table of it.

The stand-in teacher is a ResNet-50 (with random weights) on photographs, whose features, of which
an image has a mixture of two, go through a random classifier of low rank: answers as long and as
peaked as those of a trained network, at the cost of a few numbers. All else, from the draws to the
files, is what training does.

    python benchmarks/table_stand_in.py FOLDER STORE SAMPLES CLASSES BYTES
"""

import json
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

if __spec__ is None:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from torch import Tensor, nn

from fastssd.augment.augmentation import Augmentation, AugmentedViews
from fastssd.config import TableConfig
from fastssd.core.processes import Processes
from fastssd.data.dataset import Split
from fastssd.data.draws import Draws
from fastssd.data.images import LABELS, PIXELS
from fastssd.data.loader import HostBatch
from fastssd.data.workers import Workers
from fastssd.models.backbone import Backbone
from fastssd.models.heads import ClassScale
from fastssd.models.networks import BalancedNetwork, FrozenNetwork
from fastssd.tables.kept import choose_k
from fastssd.tables.reader import Reader
from fastssd.tables.rows import EveryView
from fastssd.tables.stores import FeaturesStore, Store, TopStore
from fastssd.tables.table import Table
from fastssd.tables.tabulate import tabulated

WIDTH = 2048
_RANK = 32
_LOGIT_SCALE = 4.0
_TEMPERATURE = 2.0
_SEED = 0


class MixedFeatures(Backbone):
    """Features of an image's number: a mixture of two of a pool's."""

    width = WIDTH

    def __init__(self, pool: Tensor) -> None:
        super().__init__()
        self.register_buffer("pool", pool)

    def forward(self, images: Tensor) -> Tensor:
        pool = cast(Tensor, self.pool)
        first, second = images * 7919 % len(pool), images * 104_729 % (len(pool) - 1)
        share = ((images * 31_337 % 1000).float() / 1000)[:, None]
        return share * pool[first] + (1 - share) * pool[second]


class LowRankHead(nn.Module):
    """Logits of a random classifier of low rank."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.inner = nn.Parameter(torch.randn(_RANK, WIDTH, generator=generator) / WIDTH**0.5)
        self.outer = nn.Parameter(torch.randn(num_classes, _RANK, generator=generator))

    def forward(self, features: Tensor) -> Tensor:
        return features @ self.inner.T @ self.outer.T * (_LOGIT_SCALE / _RANK**0.5)


def reader() -> Reader:
    """Return what reads images that are their own numbers."""

    def apply(pixels: Tensor, parameters: object) -> AugmentedViews:
        return AugmentedViews(query=pixels)

    def fetch(draws: Draws) -> HostBatch:
        return {
            PIXELS: torch.from_numpy(draws.samples),
            LABELS: torch.zeros(len(draws), dtype=torch.int64),
        }

    return Reader(
        split=cast(Split, None),  # nobody asks for it
        augmentation=cast(Augmentation, SimpleNamespace(apply=apply)),
        fetch=fetch,
        workers=Workers(rank=0, num_processes=1, threads=1, prefetch=1, device=torch.device("cpu")),
        processes=Processes(),
        batch_size=512,
    )


def teacher_of(folder: Path, num_classes: int) -> BalancedNetwork:
    """Return the stand-in for the balanced teacher, from the pool of features in a folder."""
    pool = torch.from_numpy(np.load(folder / "pool.npy", allow_pickle=False))
    frozen = FrozenNetwork(MixedFeatures(pool), LowRankHead(num_classes), batchnorm="frozen")
    scale = ClassScale(num_classes).requires_grad_(False)
    scale.scale.copy_(torch.linspace(0.8, 1.2, num_classes))
    return BalancedNetwork(frozen, scale=scale).eval()


def table_of(folder: Path, kind: str, num_samples: int, num_classes: int, num_bytes: int) -> Table:
    """Return the table of a store in a folder, made or finished first.

    Args:
        folder: Holds the pool of features; the table is in a folder of its kind's name in it.
        kind: `topk` or `features`.
        num_samples: Images, of each of which there is one view.
        num_classes: C.
        num_bytes: Of a `topk` table at most.
    """
    teacher, rows = teacher_of(folder, num_classes), EveryView(num_samples, 1)
    asked = reader()
    store: Store
    if kind == "topk":
        k = choose_k(
            teacher,
            rows,
            TableConfig(store="topk", bytes=num_bytes),
            num_classes=num_classes,
            temperature=_TEMPERATURE,
            reader=asked,
            seed=_SEED,
        )
        store = TopStore(teacher, num_classes, k=k, temperature=_TEMPERATURE, dtype="float16")
    else:
        assert teacher.frozen is not None
        store = FeaturesStore(teacher.frozen, "float16")
    about = {"classes": num_classes, "seed": _SEED, "decoder": "torchvision"}
    return tabulated(folder / kind, store, rows, reader=asked, about=about)


def main(arguments: list[str]) -> None:
    """Make one table, read of it at random, and print what that took."""
    folder, kind = Path(arguments[0]), arguments[1]
    num_samples, num_classes, num_bytes = map(int, arguments[2:])
    started = time.perf_counter()
    table = table_of(folder, kind, num_samples, num_classes, num_bytes)
    seconds = time.perf_counter() - started
    generator = np.random.default_rng(0)
    rates = []
    for _ in range(5):
        batches = [generator.integers(0, num_samples, 256) for _ in range(200)]
        started = time.perf_counter()
        for samples in batches:
            table.read(Draws(samples, np.zeros_like(samples)))
        rates.append(256 * len(batches) / (time.perf_counter() - started))
    print(
        json.dumps(
            {
                "seconds": seconds,
                "bytes": table.num_bytes,
                "rows_per_second": rates,
                "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
