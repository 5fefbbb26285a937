"""Which table each stage learns from: its store, its rows and where it lies."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fastssd.config import TrainingConfig
from fastssd.core import counter_rng
from fastssd.data.draws import Draws
from fastssd.data.plans import Plan
from fastssd.data.sharding import contiguous_share
from fastssd.errors import ConfigError
from fastssd.models.networks import BalancedNetwork, FrozenNetwork
from fastssd.runtime.context import Context, Stream
from fastssd.tables.asking import answers, batch_share
from fastssd.tables.manifest import found_manifest
from fastssd.tables.rows import DistinctDraws, EveryView, Rows
from fastssd.tables.stores import FeaturesStore, LogitsStore, Store, TopStore, k_of_bytes

TABLE = "table"
"""The folder of a stage's table in the stage's folder."""

_MASS_ROWS = 2048
"""Random rows on which the logits to keep are counted."""


@dataclass(frozen=True)
class WantedTable:
    """A table as a stage wants it.

    Attributes:
        directory: Where it is, or is made.
        store: The network and what is kept of its answers.
        rows: Its draws.
        stream: Of their views.
    """

    directory: Path
    store: Store
    rows: Rows
    stream: Stream


def num_shared_views(context: Context) -> int:
    """Return K, the views of each image that the teacher and stage III share."""
    return context.config.frozen.views or context.config.distill.epochs


def shared_rows(context: Context) -> EveryView:
    """Return the rows that stages II and III share: K views of every sample."""
    return EveryView(len(context.train), num_shared_views(context))


def plan_rows(plan: Plan, training: TrainingConfig) -> DistinctDraws:
    """Return a row for each draw of all full batches of all epochs."""
    used = len(plan.index) // training.batch_size * training.batch_size
    epochs = [plan.epoch(epoch)[:used] for epoch in range(training.epochs)]
    return DistinctDraws(
        Draws(
            np.concatenate([draws.samples for draws in epochs]),
            np.concatenate([draws.views for draws in epochs]),
        )
    )


def shares_table(context: Context) -> bool:
    """Return whether stage II learns from the table that stage III reads."""
    return context.config.frozen.store != "topk"


def frozen_store(frozen: FrozenNetwork, context: Context) -> Store:
    """Return a store that scales can be learned from.

    Where the teacher's is `topk`, from which they can't be, it is the smaller of the two others.
    """
    config, num_classes = context.config.frozen, context.num_classes
    kind = config.store
    if kind == "topk":
        kind = "features" if frozen.backbone.width < num_classes else "logits"
    if kind == "features":
        return FeaturesStore(frozen, config.dtype)
    return LogitsStore(frozen, num_classes, config.dtype)


def teacher_store(teacher: BalancedNetwork, directory: Path, context: Context) -> TopStore:
    """Return the `topk` store of stage III's teacher.

    Args:
        teacher: The balanced network of stage II.
        directory: Of its table, which is followed in how many logits are kept.
        context: The run.
    """
    config = context.config.frozen
    by_mass = not (config.topk or config.table_bytes)
    found, _ = found_manifest(directory)
    # All processes decide alike: none writes before all have read, and chosen.
    if by_mass and found is not None and found["store"] == TopStore.kind:
        k = int(found["k"])
    else:
        k = _choose_k(teacher, shared_rows(context), context)
    return TopStore(
        teacher,
        context.num_classes,
        k=k,
        temperature=context.config.distill.temperature,
        dtype=config.dtype,
        wanted_mass=config.kept_mass if by_mass else None,
    )


def _choose_k(teacher: BalancedNetwork, rows: Rows, context: Context) -> int:
    config, num_classes = context.config.frozen, context.num_classes
    if config.topk:
        if config.topk > num_classes:
            raise ConfigError(
                f"frozen.topk={config.topk} is more than the dataset's {num_classes} classes"
            )
        return config.topk
    if config.table_bytes:
        k = k_of_bytes(
            config.table_bytes, num_rows=len(rows), num_classes=num_classes, dtype=config.dtype
        )
        if k < 1:
            raise ConfigError(
                f"frozen.table_bytes={config.table_bytes} is not one logit for each of "
                f"{len(rows)} rows"
            )
        return k
    kept = _kept_mass(teacher, rows, context)
    # Rounding leaves the mass of all classes a little under 1.
    enough = kept >= min(config.kept_mass, kept[-1])
    return int(enough.argmax()) + 1


def _kept_mass(teacher: BalancedNetwork, rows: Rows, context: Context) -> np.ndarray:
    """Return (C,) the mean mass of the k largest soft labels, for every k, over random rows."""
    temperature = context.config.distill.temperature
    generator = counter_rng.generator(context.config.seed, "kept mass")
    chosen = np.sort(generator.choice(len(rows), min(_MASS_ROWS, len(rows)), replace=False))
    workers = context.workers
    mine = chosen[
        contiguous_share(len(chosen), rank=workers.rank, num_processes=workers.num_processes)
    ]
    size = batch_share(context)
    batches = (rows.draws(mine[start : start + size]) for start in range(0, len(mine), size))
    total = torch.zeros(context.num_classes, device=workers.device)
    for _, logits in answers(
        teacher, lambda images: teacher(images, None), batches, stream="distill", context=context
    ):
        soft = torch.softmax(logits.float() / temperature, dim=1)
        total += soft.sort(dim=1, descending=True).values.cumsum(dim=1).sum(dim=0)
    mean: np.ndarray = context.reduce(total).cpu().double().numpy() / len(chosen)
    return mean
