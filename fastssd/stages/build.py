"""From a job to a stage with its feed: a new kind of stage is a builder and a line in KINDS."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from torch import nn

from fastssd.checkpoints import WEIGHTS, load_weights, save_weights
from fastssd.config import TrainingConfig
from fastssd.data.draws import Draws
from fastssd.data.plans import Plan
from fastssd.models.backbone import Backbone
from fastssd.models.frozen import recalibrate
from fastssd.stages import ranks
from fastssd.stages.balance import BalanceStage
from fastssd.stages.context import Context, Stream
from fastssd.stages.distill import DistillStage
from fastssd.stages.features import build_feature_stage
from fastssd.stages.feeds import Feed
from fastssd.stages.jobs import Job, jobs_of
from fastssd.stages.networks import BalancedNetwork, FrozenNetwork
from fastssd.stages.stage import Stage
from fastssd.stages.table import DistinctDraws, EveryView, Table
from fastssd.stages.tabulate import tabulated

RECALIBRATED, TABLE = "recalibrated.safetensors", "table"
FEATURES_PART = "features"
"""Stage I and the CE baseline start from the same weights and see images in the same order: what
is left between them is the self-supervised task."""


@dataclass(kw_only=True)
class Prepared:
    """A stage ready to be trained.

    Attributes:
        stage: With its initial weights.
        feed: Its batches.
        training: Its budget.
        seconds: What preparing took, by part.
    """

    stage: Stage
    feed: Feed
    training: TrainingConfig
    seconds: dict[str, float] = field(default_factory=dict)


def prepare(job: Job, context: Context) -> Prepared:
    """Return a job's stage and feed; tables that it needs are made."""
    return KINDS[job.kind](job, context)


def num_shared_views(context: Context) -> int:
    """Return K, the views of each image that the teacher and stage III share."""
    return context.config.frozen.views or context.config.distill.epochs


def trained_stage(folder: str, context: Context) -> Stage:
    """Return a finished job's stage with its final weights, on the device."""
    job = next(job for job in jobs_of(context.config) if job.folder == folder)
    stage = build_stage(job, context)
    load_weights(context.output / folder / WEIGHTS["last"], stage)
    return context.on_device(stage)


def _prepare_features(job: Job, context: Context) -> Prepared:
    training = context.config.features
    augmentation = context.augmentation(
        "features", key=job.task == "instance", rotate=job.task == "rotation"
    )
    plan = context.plan(training, stream="features", part=FEATURES_PART)
    return Prepared(
        stage=build_stage(job, context),
        feed=context.feed(training, plan, augmentation),
        training=training,
    )


def _prepare_balance(job: Job, context: Context) -> Prepared:
    training = context.config.balance
    stage = context.on_device(build_stage(job, context))
    assert isinstance(stage, BalanceStage)
    assert stage.network.frozen is not None
    frozen = stage.network.frozen
    seconds: dict[str, float] = {}
    folder = context.output / job.folder
    if context.config.frozen.batchnorm == "recalibrated":
        with _timed(seconds, "recalibrate"):
            _recalibrate(frozen, folder, context)
    stream: Stream = "distill" if job.shares_views else "balance"
    num_views = num_shared_views(context) if job.shares_views else None
    plan = context.plan(training, stream=stream, part=job.folder, num_views=num_views)
    if training.source == "images":
        feed = context.feed(training, plan, context.augmentation(stream))
        return Prepared(stage=stage, feed=feed, training=training, seconds=seconds)
    with _timed(seconds, "table"):
        if job.shares_views:
            table = _shared_table(job.folder, frozen, context)
        else:
            rows = DistinctDraws(_draws_used(plan, training))
            table = tabulated(folder / TABLE, frozen, rows, stream=stream, context=context)
    feed = context.feed(training, plan, None, table)
    return Prepared(stage=stage, feed=feed, training=training, seconds=seconds)


def _prepare_distill(job: Job, context: Context) -> Prepared:
    training = context.config.distill
    assert job.source is not None
    teacher = trained_stage(job.source, context)
    assert isinstance(teacher, BalanceStage)
    assert teacher.network.frozen is not None
    stage = build_stage(job, context)
    assert isinstance(stage, DistillStage)
    seconds: dict[str, float] = {}
    table = None
    if training.teacher == "table":
        stage.teacher.scale.load_state_dict(teacher.network.scale.state_dict())
        with _timed(seconds, "table"):
            table = _shared_table(job.source, teacher.network.frozen, context)
    else:
        stage.teacher.load_state_dict(teacher.network.state_dict())
    plan = context.plan(
        training, stream="distill", part=job.folder, num_views=num_shared_views(context)
    )
    feed = context.feed(training, plan, context.augmentation("distill"), table)
    return Prepared(stage=stage, feed=feed, training=training, seconds=seconds)


KINDS: dict[str, Callable[[Job, Context], Prepared]] = {
    "features": _prepare_features,
    "balance": _prepare_balance,
    "distill": _prepare_distill,
}


def build_stage(job: Job, context: Context) -> Stage:
    """Return a job's stage with its initial weights, on the CPU: random ones, or those it freezes.

    Raises:
        DataError: If the weights that it freezes are missing or damaged.
    """
    config = context.config
    if job.kind == "features":
        backbone = context.backbone(FEATURES_PART)
        classifier = context.head(backbone.width, FEATURES_PART)
        return build_feature_stage(
            backbone, classifier, task=job.task, config=config.features, seed=config.seed
        )
    assert job.source is not None
    if job.kind == "balance":
        source = trained_stage(job.source, context)
        frozen = FrozenNetwork(
            cast(Backbone, source.backbone),
            cast(nn.Module, getattr(source, job.head)),
            batchnorm=config.frozen.batchnorm,
        )
        return BalanceStage(BalancedNetwork(frozen, context.num_classes), head=job.head)
    teacher = BalancedNetwork(None, context.num_classes)
    if config.distill.teacher == "online":
        balanced = trained_stage(job.source, context)
        assert isinstance(balanced, BalanceStage)
        teacher = balanced.network
    backbone = context.backbone(job.folder)
    return DistillStage(
        backbone,
        context.head(backbone.width, f"{job.folder}/hard"),
        context.head(backbone.width, f"{job.folder}/soft"),
        teacher=teacher,
        config=config.distill,
    )


def _shared_table(folder: str, frozen: FrozenNetwork, context: Context) -> Table:
    """Return the table that stages II and III share: K views of every sample."""
    rows = EveryView(len(context.train), num_shared_views(context))
    directory = context.output / folder / TABLE
    return tabulated(directory, frozen, rows, stream="distill", context=context)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Note the seconds that the block takes."""
    started = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - started


def _draws_used(plan: Plan, training: TrainingConfig) -> Draws:
    """Return the draws of all full batches of all epochs."""
    epochs = [plan.epoch(epoch) for epoch in range(training.epochs)]
    used = len(plan.index) // training.batch_size * training.batch_size
    return Draws(
        np.concatenate([draws.samples[:used] for draws in epochs]),
        np.concatenate([draws.views[:used] for draws in epochs]),
    )


def _recalibrate(frozen: FrozenNetwork, folder: Path, context: Context) -> None:
    """Refresh BatchNorm's statistics by one class-balanced pass; done once, then read back."""
    path = folder / RECALIBRATED
    exists = path.exists()
    context.barrier()  # Or a slow process would find the file of a fast one, and not take part.
    if not exists:
        training = context.config.balance
        plan = context.plan(training, stream="recalibrate", part=folder.name)
        feed = context.feed(training, plan, context.augmentation("recalibrate"))
        recalibrate(frozen, (batch.query for batch in feed.epoch(0)))
        ranks.average_batchnorm(frozen)
        if context.is_main:
            save_weights(path, frozen)
        context.barrier()
    load_weights(path, frozen)
