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
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

if __spec__ is None:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from fastssd.tables.wanted import teacher_store
from torch import Tensor, nn

from fastssd.augment.augmentation import Augmentation, AugmentedViews
from fastssd.config import AugmentConfig, Config, DataConfig, DistillConfig, FrozenConfig
from fastssd.data.dataset import Dataset
from fastssd.data.decode.decoder import Decoder
from fastssd.data.draws import Draws
from fastssd.data.images import LABELS, PIXELS
from fastssd.data.loader import HostBatch
from fastssd.models.backbone import Backbone
from fastssd.models.networks import BalancedNetwork, FrozenNetwork
from fastssd.runtime.context import Context
from fastssd.tables.rows import EveryView
from fastssd.tables.stores import FeaturesStore, Store
from fastssd.tables.table import Table
from fastssd.tables.tabulate import tabulated
from fastssd.training.batches import Workers

WIDTH = 2048
_RANK = 32
_LOGIT_SCALE = 4.0


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


class StandInContext(Context):
    """A context whose images are their own numbers."""

    @cached_property
    def train(self) -> Any:  # noqa: ANN401 stands in for a split
        return self.dataset.split("train")

    def augmentation(self, *_: object, **__: object) -> Augmentation:
        def apply(pixels: Tensor, parameters: object) -> AugmentedViews:
            return AugmentedViews(query=pixels)

        return cast(Augmentation, SimpleNamespace(apply=apply))

    def filter(self, *_: object) -> str:
        return "none"

    def images(self, *_: object) -> Callable[[Draws], HostBatch]:
        return lambda draws: {
            PIXELS: torch.from_numpy(draws.samples),
            LABELS: torch.zeros(len(draws), dtype=torch.int64),
        }


class StandInSplit:
    """So many samples."""

    def __init__(self, num_samples: int, num_classes: int) -> None:
        self.num_samples = num_samples
        self.counts = np.bincount(np.arange(num_samples) % num_classes, minlength=num_classes)

    def __len__(self) -> int:
        return self.num_samples


def context_of(
    folder: Path, num_samples: int, num_classes: int, *, table_bytes: int = 0
) -> StandInContext:
    """Return the context of a run in a folder, which holds its `meta.json`."""
    split = StandInSplit(num_samples, num_classes)
    dataset = SimpleNamespace(
        path=folder, name="stand-in", classes=range(num_classes), split=lambda name: split
    )
    (folder / "meta.json").write_text("{}")
    return StandInContext(
        config=Config(
            output=str(folder),
            data=DataConfig(path=str(folder)),
            augment=AugmentConfig(size=64),
            distill=DistillConfig(epochs=1),
            frozen=FrozenConfig(store="topk", views=1, table_bytes=table_bytes),
        ),
        dataset=cast(Dataset, dataset),
        decoder=cast(Decoder, SimpleNamespace(name="torchvision", filter="none")),
        workers=Workers(rank=0, num_processes=1, threads=1, prefetch=1, device=torch.device("cpu")),
        output=folder,
        is_main=True,
        autocast=nullcontext,
        reduce=lambda values: values,
        barrier=lambda: None,
        stop_if_asked=lambda: None,
    )


def teacher_of(folder: Path, num_classes: int) -> BalancedNetwork:
    """Return the stand-in for the balanced teacher, from the pool of features in a folder."""
    pool = torch.from_numpy(np.load(folder / "pool.npy", allow_pickle=False))
    frozen = FrozenNetwork(MixedFeatures(pool), LowRankHead(num_classes), batchnorm="frozen")
    teacher = BalancedNetwork(frozen, num_classes).requires_grad_(False)
    teacher.scale.scale.copy_(torch.linspace(0.8, 1.2, num_classes))
    return teacher.eval()


def table_of(folder: Path, kind: str, context: StandInContext) -> Table:
    """Return the table of a store in a folder, made or finished first."""
    teacher = teacher_of(folder, context.num_classes)
    directory = folder / kind
    store: Store
    if kind == "topk":
        store = teacher_store(teacher, directory, context)
    else:
        assert teacher.frozen is not None
        store = FeaturesStore(teacher.frozen, "float16")
    rows = EveryView(len(context.train), 1)
    return tabulated(directory, store, rows, stream="distill", context=context)


def main(arguments: list[str]) -> None:
    """Make one table, read of it at random, and print what that took."""
    folder, kind = Path(arguments[0]), arguments[1]
    num_samples, num_classes, table_bytes = map(int, arguments[2:])
    context = context_of(folder, num_samples, num_classes, table_bytes=table_bytes)
    started = time.perf_counter()
    table = table_of(folder, kind, context)
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
