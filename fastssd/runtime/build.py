"""From nodes of a graph to modules and batches: networks with their sources, tables, draws."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from fastssd.core import collectives
from fastssd.data.dataset import Split
from fastssd.data.decode.decoders import FFCV
from fastssd.data.draws import Draws
from fastssd.data.loader import Fetch
from fastssd.data.plans import Plan
from fastssd.data.workers import Source, together
from fastssd.evaluation.results import RECALIBRATED
from fastssd.methods.method import Method, Parts
from fastssd.methods.posthoc.features import FeatureSet
from fastssd.methods.registry import METHODS
from fastssd.models.frozen import recalibrate
from fastssd.models.networks import BalancedNetwork
from fastssd.runtime.context import Context
from fastssd.runtime.graph import PlanOfTable, Stage, Table
from fastssd.tables.fetch import TableFetch
from fastssd.tables.kept import choose_k
from fastssd.tables.manifest import Manifest, found_manifest
from fastssd.tables.reader import Reader
from fastssd.tables.rows import DistinctDraws, EveryView, Rows
from fastssd.tables.stores import FeaturesStore, LogitsStore, Store, TopStore
from fastssd.tables.table import Table as OpenTable
from fastssd.tables.tabulate import tabulated
from fastssd.training.batches import Batches
from fastssd.training.checkpoints import WEIGHTS, load_weights, save_weights
from fastssd.training.counting import every_image, in_order

TEST = "test"
_RECALIBRATION = "recalibrate"


@dataclass(kw_only=True)
class Prepared:
    """A stage ready to be trained.

    Attributes:
        method: With its initial weights.
        batches: What it is trained on.
        seconds: What preparing took, by part.
    """

    method: Method
    batches: Batches
    seconds: dict[str, float] = field(default_factory=dict)


def prepare(stage: Stage, context: Context) -> Prepared:
    """Return a stage's method and batches; a table that it reads is made."""
    assert stage.budget is not None
    seconds: dict[str, float] = {}
    with _timed(seconds, "recalibrate", only=stage.batchnorm == "recalibrated"):
        method = build(stage, context)
    table = None
    if stage.table is not None:
        with _timed(seconds, "table"):
            table = made(stage.table, context)
    augmentation = None
    if stage.table is None or stage.options.SEES_IMAGES:
        augmentation = context.augmentation(
            stage.stream,
            seed=stage.seed,
            key="key" in stage.options.slots,
            rotate=method.wants_rotated,
        )
    fetches: list[Fetch] = []
    if table is not None:
        fetches.append(TableFetch(table, context.index))
    if augmentation is not None and context.config.data.decoder != FFCV:
        fetches.append(context.fetch(context.train, augmentation, context.damage))
    if fetches:
        source = context.workers.source(fetches[0] if len(fetches) == 1 else together(*fetches))
    else:
        assert augmentation is not None
        source = Source(prepare=context.ffcv_images(augmentation).batches)
    batches = Batches(
        plan=plan_of(stage, context),
        source=source,
        augmentation=augmentation,
        budget=stage.budget,
        workers=context.workers,
    )
    return Prepared(method=method, batches=batches, seconds=seconds)


def build(stage: Stage, context: Context, *, untrained_sources: bool = False) -> Method:
    """Return a stage's method with its initial weights, on the CPU: random ones, or frozen ones.

    Args:
        stage: The node.
        context: The run.
        untrained_sources: Whether it stands on random weights, to be measured or described.

    Raises:
        DataError: If weights that it stands on are missing or damaged.
    """
    sources = {}
    for role, source in stage.sources.items():
        if untrained_sources:
            sources[role] = untrained(source, context)
            continue
        sources[role] = trained(source, context, weights=stage.weights)
        if stage.batchnorm == "recalibrated" and role == "source":
            head = stage.options.head
            network = sources[role].balanced(head, batchnorm=stage.batchnorm)
            _recalibrate(network, source, stage.weights, context)
    parts = Parts(
        seed=stage.seed,
        order=stage.order,
        num_classes=context.num_classes,
        counts=context.train.counts,
        model=stage.model,
        sources=sources,
        batchnorm=stage.batchnorm,
        reads="images" if stage.table is None else stage.table.holds.store,
    )
    method: Method = METHODS[stage.kind](stage.options, parts)
    return method


def trained(stage: Stage, context: Context, *, weights: str = "last") -> Method:
    """Return a finished stage's method with its weights, on the CPU."""
    method = build(stage, context)
    load_weights(context.output / stage.folder / WEIGHTS[weights], method)
    return method


def untrained(stage: Stage, context: Context) -> Method:
    """Return a stage's method with random weights, also where it stands on others."""
    return build(stage, context, untrained_sources=True)


def plan_of(stage: Stage, context: Context) -> Plan:
    """Return a stage's draws."""
    assert stage.budget is not None
    return context.plan(
        stage.sampler,
        stream=stage.stream,
        order=stage.order,
        seed=stage.seed,
        epochs=stage.budget.epochs,
        num_views=stage.num_views,
    )


def made(table: Table, context: Context) -> OpenTable:
    """Return a table, made or finished first where it is not there."""
    wanted = wanted_table(table, context)
    return tabulated(
        context.output / table.folder,
        wanted.store,
        wanted.rows,
        reader=wanted.reader,
        about=wanted.about,
    )


@dataclass(frozen=True, kw_only=True)
class WantedTable:
    """A table as a run wants it.

    Attributes:
        store: The network and what is kept of its answers.
        rows: Its draws.
        reader: Of their images.
        about: What else its rows depend on.
    """

    store: Store
    rows: Rows
    reader: Reader
    about: Manifest


def wanted_table(table: Table, context: Context) -> WantedTable:
    """Return a table whose network is trained, as a stage would have it made."""
    source = trained(table.source, context, weights=table.weights)
    network = source.balanced(table.head, batchnorm=table.batchnorm)
    if table.batchnorm == "recalibrated":
        _recalibrate(network, table.source, table.weights, context)
    context.on_device(network)
    augmentation = context.augmentation(table.stream, seed=table.seed, transform=table.transform)
    reader = context.reader(context.train, augmentation)
    rows = _rows(table, context)
    about = {
        "classes": context.num_classes,
        "train_counts": context.train.counts.tolist(),
        "seed": table.seed,
        "decoder": context.decoder.name,
        "filter": context.filter(augmentation),
        "identity": table.identity,
    }
    return WantedTable(
        store=_store(table, network, rows, reader, context), rows=rows, reader=reader, about=about
    )


def features_of(split: Split, method: Method, head: str, context: Context) -> FeatureSet:
    """Return the features of a split's images under the test augmentation, on every process."""
    network = context.on_device(method).balanced(head, batchnorm="frozen").folded()
    reader = context.reader(split, context.test_augmentation())
    width = network.backbone.width
    features = torch.zeros((len(split), width), device=context.workers.device)
    draws = in_order(every_image(len(split)), reader.batch_size, context.workers)
    for batch, answer in reader.answers(network, network.features, draws):
        features[torch.from_numpy(batch.samples).to(features.device)] = answer
        if context.processes.interrupted():
            break
    context.processes.stop_if_asked()
    whole = context.processes.reduce(features)
    return FeatureSet(whole.cpu().numpy(), split.labels)


def features_in(table: OpenTable, labels: np.ndarray) -> FeatureSet:
    """Return the features that a table of every image once holds."""
    rows = table.read(every_image(len(labels)))
    (features,) = rows.values()
    return FeatureSet(features.numpy(), labels)


def _rows(table: Table, context: Context) -> Rows:
    if isinstance(table.draws, int):
        return EveryView(len(context.train), table.draws)
    return _rows_of_plan(table, table.draws, context)


def _rows_of_plan(table: Table, draws: PlanOfTable, context: Context) -> DistinctDraws:
    """Return a row for each draw of all full batches of all epochs."""
    plan = context.plan(
        draws.sampler,
        stream=table.stream,
        order=draws.order,
        seed=table.seed,
        epochs=draws.epochs,
        num_views=draws.num_views,
    )
    used = len(plan.index) // draws.batch_size * draws.batch_size
    epochs = [plan.epoch(epoch)[:used] for epoch in range(draws.epochs)]
    return DistinctDraws(Draws.joined(epochs))


def _store(
    table: Table, network: BalancedNetwork, rows: Rows, reader: Reader, context: Context
) -> Store:
    holds, num_classes = table.holds, context.num_classes
    if holds.store == "topk":
        found, _ = found_manifest(context.output / table.folder)
        by_mass = not (holds.topk or holds.bytes)
        # All processes decide alike: none writes before all have read, and chosen.
        if by_mass and found is not None and found["store"] == TopStore.kind:
            k = int(found["k"])
        else:
            k = choose_k(
                network,
                rows,
                holds,
                num_classes=num_classes,
                temperature=table.temperature,
                reader=reader,
                seed=table.seed,
            )
        return TopStore(
            network,
            num_classes,
            k=k,
            temperature=table.temperature,
            dtype=holds.dtype,
            wanted_mass=holds.kept_mass if by_mass else None,
        )
    frozen = network.folded()
    if holds.store == "features":
        return FeaturesStore(frozen, holds.dtype)
    return LogitsStore(frozen, num_classes, holds.dtype)


def _recalibrate(network: BalancedNetwork, source: Stage, weights: str, context: Context) -> None:
    """Refresh BatchNorm's statistics by one class-balanced pass; done once, then read back."""
    frozen = network.frozen
    assert frozen is not None
    budget = context.config.budgets.get("classifier") or source.budget
    assert budget is not None
    name = hashlib.sha256(f"{source.digest} {weights} {budget.batch_size}".encode()).hexdigest()
    path = context.output / source.folder / RECALIBRATED.format(name[:8])
    # One for all: a slow process would find the file of a fast one, and not take part.
    if not context.processes.main_says(path.exists()):
        context.on_device(network)
        plan = context.plan(
            "class_aware", stream=_RECALIBRATION, order=source.order, seed=source.seed, epochs=1
        )
        augmentation = context.augmentation(_RECALIBRATION, seed=source.seed)
        batches = Batches(
            plan=plan,
            source=context.workers.source(
                context.fetch(context.train, augmentation, context.damage)
            ),
            augmentation=augmentation,
            budget=replace(budget, epochs=1, milestones=[], schedule="constant", accumulate=1),
            workers=context.workers,
        )
        with (
            closing(batches.batches(0, batches.steps_per_epoch)) as drawn,
            context.processes.autocast(),
        ):
            recalibrate(frozen, _images(drawn, context))
        context.processes.stop_if_asked()
        collectives.average_batchnorm(frozen)
        if context.is_main:
            save_weights(path, frozen)
        context.processes.barrier()
    load_weights(path, frozen)


def _images(batches: Any, context: Context) -> Iterator[torch.Tensor]:  # noqa: ANN401
    """Yield the images of batches, up to a signal; the watchdog hears of each."""
    for batch in batches:
        yield batch.images
        if context.processes.interrupted():
            return


@contextmanager
def _timed(seconds: dict[str, float], part: str, *, only: bool = True) -> Iterator[None]:
    """Note the seconds that the block takes."""
    started = time.perf_counter()
    yield
    if only:
        seconds[part] = time.perf_counter() - started
