"""From a job to a stage with its feed: a new kind of stage is a builder and a line in KINDS."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from fastssd.checkpoints import WEIGHTS, load_weights, save_weights
from fastssd.config import TrainingConfig
from fastssd.data.plans import Plan
from fastssd.models.backbone import Backbone
from fastssd.models.frozen import recalibrate
from fastssd.stages import ranks
from fastssd.stages.balance import BalanceStage
from fastssd.stages.batch import Batch
from fastssd.stages.context import Context, Stream
from fastssd.stages.distill import DistillStage
from fastssd.stages.features import build_feature_stage
from fastssd.stages.feeds import Feed
from fastssd.stages.jobs import Job, jobs_of
from fastssd.stages.networks import BalancedNetwork, FrozenNetwork
from fastssd.stages.stage import Stage
from fastssd.stages.table import Table
from fastssd.stages.table_rows import Rows
from fastssd.stages.tables import (
    TABLE,
    WantedTable,
    frozen_store,
    num_shared_views,
    plan_rows,
    shared_rows,
    shares_table,
    teacher_store,
)
from fastssd.stages.tabulate import tabulated

RECALIBRATED = "recalibrated.safetensors"
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
    stream, plan = _balance_plan(job, context)
    if training.source == "images":
        feed = context.feed(training, plan, context.augmentation(stream))
        return Prepared(stage=stage, feed=feed, training=training, seconds=seconds)
    with _timed(seconds, "table"):
        table = made(_balance_table(job, frozen, context), context)
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
        if stage.teacher.head is not None:
            stage.teacher.head.load_state_dict(teacher.network.frozen.head.state_dict())
        with _timed(seconds, "table"):
            table = made(_teacher_table(job, teacher.network, context), context)
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
    backbone = context.backbone(job.folder)
    if config.distill.teacher == "online":
        balanced = trained_stage(job.source, context)
        assert isinstance(balanced, BalanceStage)
        teacher = balanced.network
    else:
        reads_features = config.frozen.store == "features"
        head = context.head(backbone.width, f"{job.folder}/teacher") if reads_features else None
        teacher = BalancedNetwork(None, context.num_classes, head=head)
    return DistillStage(
        backbone,
        context.head(backbone.width, f"{job.folder}/hard"),
        context.head(backbone.width, f"{job.folder}/soft"),
        teacher=teacher,
        config=config.distill,
    )


def wanted_table(folder: str, context: Context) -> WantedTable:
    """Return the table of a stage whose networks are trained, as the stage would make it.

    Args:
        folder: Of a `balance` job, or of stage III with a `topk` table.
        context: The run.
    """
    job = next(job for job in jobs_of(context.config) if job.folder == folder)
    if job.kind == "distill":
        assert job.source is not None
        teacher = trained_stage(job.source, context)
        assert isinstance(teacher, BalanceStage)
        return _teacher_table(job, teacher.network, context)
    stage = context.on_device(build_stage(job, context))
    assert isinstance(stage, BalanceStage)
    assert stage.network.frozen is not None
    if context.config.frozen.batchnorm == "recalibrated":
        load_weights(context.output / folder / RECALIBRATED, stage.network.frozen)
    return _balance_table(job, stage.network.frozen, context)


def _balance_plan(job: Job, context: Context) -> tuple[Stream, Plan]:
    stream: Stream = "distill" if job.shares_views else "balance"
    num_views = num_shared_views(context) if job.shares_views else None
    training = context.config.balance
    return stream, context.plan(training, stream=stream, part=job.folder, num_views=num_views)


def _balance_table(job: Job, frozen: FrozenNetwork, context: Context) -> WantedTable:
    """Return the table that scales are learned from: of K views of every sample, or of the plan."""
    stream, plan = _balance_plan(job, context)
    rows: Rows
    if job.shares_views and shares_table(context):
        rows = shared_rows(context)
    else:
        rows = plan_rows(plan, context.config.balance)
    directory = context.output / job.folder / TABLE
    return WantedTable(directory, frozen_store(frozen, context), rows, stream)


def _teacher_table(job: Job, teacher: BalancedNetwork, context: Context) -> WantedTable:
    """Return the table that stage III reads: that of stage II, or one of the teacher's own."""
    assert job.source is not None
    assert teacher.frozen is not None
    rows = shared_rows(context)
    if shares_table(context):
        directory = context.output / job.source / TABLE
        return WantedTable(directory, frozen_store(teacher.frozen, context), rows, "distill")
    directory = context.output / job.folder / TABLE
    return WantedTable(directory, teacher_store(teacher, directory, context), rows, "distill")


def made(table: WantedTable, context: Context) -> Table:
    """Return the table, made or finished first where it is not there."""
    return tabulated(table.directory, table.store, table.rows, stream=table.stream, context=context)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Note the seconds that the block takes."""
    started = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - started


def _images(batches: Iterable[Batch], context: Context) -> Iterator[Tensor]:
    """Yield the images of batches, up to a signal; the watchdog hears of each."""
    for batch in batches:
        yield batch.query
        if context.interrupted():
            return


def _recalibrate(frozen: FrozenNetwork, folder: Path, context: Context) -> None:
    """Refresh BatchNorm's statistics by one class-balanced pass; done once, then read back."""
    path = folder / RECALIBRATED
    # One for all: a slow process would find the file of a fast one, and not take part.
    if not context.main_says(path.exists()):
        training = context.config.balance
        plan = context.plan(training, stream="recalibrate", part=folder.name)
        feed = context.feed(training, plan, context.augmentation("recalibrate"))
        with closing(feed.batches(0, feed.steps_per_epoch)) as batches, context.autocast():
            recalibrate(frozen, _images(batches, context))
        context.stop_if_asked()
        ranks.average_batchnorm(frozen)
        if context.is_main:
            save_weights(path, frozen)
        context.barrier()
    load_weights(path, frozen)
