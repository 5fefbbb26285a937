"""What a run would do, before it does it: stages, what is shared, steps, disk, memory and time."""

import resource
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from fastssd.data.sharding import steps_per_epoch
from fastssd.losses.distillation import TopLogits
from fastssd.methods.batch import Batch, Moment
from fastssd.methods.method import Method
from fastssd.runtime.build import build, plan_of, untrained
from fastssd.runtime.context import Context
from fastssd.runtime.graph import Graph, Stage, Table
from fastssd.tables.stores import ids_dtype
from fastssd.training.batches import Batches
from fastssd.training.optimizer import Optimizer

_TRIAL_STEPS = 4
_BYTES = {"float16": 2, "float32": 4, "uint16": 2, "int32": 4}
_GUESSED_TOPK = 0.1
"""Share of the classes that a `topk` table is reckoned to keep where its mass decides."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one stage would take.

    Attributes:
        stage: The node.
        asked_by: Who else asks for it, as `method.stage`.
        steps: Of the optimizer, over all epochs.
        images: That training consumes.
        table_bytes: Of the table that it is the first to read.
        seconds: Of training and of that table, on this machine.
        finished: Whether it is there already.
    """

    stage: Stage
    asked_by: Sequence[str]
    steps: int
    images: int
    table_bytes: int
    seconds: float
    finished: bool


def estimates(graph: Graph, context: Context, *, finished: Sequence[str]) -> list[Estimate]:
    """Return what each stage of a graph would take, from a few steps of every kind.

    Args:
        graph: Of the run.
        context: Its surroundings; nothing is written.
        finished: Folders of stages that are there already.
    """
    step_seconds: dict[str, float] = {}
    known_tables: set[str] = set()
    result = []
    for stage in graph.stages:
        asked_by = sorted(
            f"{method}.{name}" for (method, name, _), node in graph.asked.items() if node is stage
        )
        kind = f"{stage.kind} {stage.options!r} {stage.model!r} {stage.table is None}"
        steps = images = 0
        if stage.budget is not None:
            per_epoch = steps_per_epoch(len(context.train), stage.budget.batch_size)
            steps = stage.budget.epochs * per_epoch
            images = steps * stage.budget.batch_size
            if kind not in step_seconds:
                step_seconds[kind] = _seconds_a_step(stage, context)
        seconds = steps * step_seconds.get(kind, 0.0)
        table_bytes = 0
        if stage.table is not None and stage.table.folder not in known_tables:
            known_tables.add(stage.table.folder)
            rows = num_rows(stage.table, context)
            table_bytes = rows * row_bytes(stage.table, context)
            seconds += rows * _seconds_an_answer(stage.table, context)
        result.append(
            Estimate(
                stage=stage,
                asked_by=asked_by,
                steps=steps,
                images=images,
                table_bytes=table_bytes,
                seconds=seconds,
                finished=stage.folder in finished,
            )
        )
    return result


def num_rows(table: Table, context: Context) -> int:
    """Return the rows of a table; at most, of a plan that draws with replacement."""
    num_images = len(context.train)
    if isinstance(table.draws, int):
        return num_images * table.draws
    return table.draws.epochs * (num_images // table.draws.batch_size * table.draws.batch_size)


def row_bytes(table: Table, context: Context) -> int:
    """Return the bytes of a row of a table."""
    holds, num_classes = table.holds, context.num_classes
    if holds.store == "features":
        return _width(table, context) * _BYTES[holds.dtype]
    if holds.store == "topk":
        kept = holds.topk or max(1, int(_GUESSED_TOPK * num_classes))
        return kept * (_BYTES[holds.dtype] + _BYTES[ids_dtype(num_classes)]) + 4
    return num_classes * _BYTES[holds.dtype]


def lines(found: Sequence[Estimate]) -> list[str]:
    """Return the estimates as lines for a person."""
    header = ("stage", "method", "epochs", "steps", "images", "table", "time", "")
    rows = [header]
    for each in found:
        stage, budget = each.stage, each.stage.budget
        others = [name for name in each.asked_by if name != stage.label]
        notes = [f"also {', '.join(others)}"] if others else []
        notes += ["finished"] if each.finished else []
        rows.append(
            (
                stage.folder,
                stage.kind,
                str(budget.epochs) if budget else "-",
                f"{each.steps:,}" if budget else "-",
                f"{each.images:,}" if budget else "-",
                _size(each.table_bytes) if each.table_bytes else "-",
                "-" if each.finished else _duration(each.seconds),
                "; ".join(notes),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    left = [each for each in found if not each.finished]
    total = sum(each.seconds for each in left)
    disk = sum(each.table_bytes for each in left)
    text.append(
        f"{len(found)} stages, {len(left)} to do: about {_duration(total)} of training and tables "
        f"on this machine, without evaluation; tables of {_size(disk)}; {_memory()}"
    )
    return text


def _seconds_a_step(stage: Stage, context: Context) -> float:
    """Return the seconds of a training step, loader included, from a few of them."""
    assert stage.budget is not None
    method = context.on_device(build(stage, context, untrained_sources=True)).train()
    optimizer = Optimizer(method, stage.budget, device=context.workers.device)
    batches = _trial_batches(stage, method, context)
    at = Moment(epoch=0, epochs=stage.budget.epochs, step=0, steps_per_epoch=1)
    seconds: list[float] = []
    with closing(batches):
        before = time.perf_counter()
        for batch in batches:
            with context.processes.autocast():
                losses, _ = method(batch, at)
            optimizer.backward(losses)
            optimizer.step(stage.budget.lr)
            if context.workers.device.type == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            seconds.append(now - before)
            before = now
    return min(seconds[1:] or seconds) * stage.budget.accumulate


def _trial_batches(stage: Stage, method: Method, context: Context) -> Generator[Batch, None, None]:
    """Yield a few batches of a stage: real images, and made-up rows of a table."""
    assert stage.budget is not None
    plan = plan_of(stage, context)
    if stage.table is not None and not stage.options.SEES_IMAGES:
        share = stage.budget.batch_size // (context.workers.num_processes * stage.budget.accumulate)
        labels = torch.randint(context.num_classes, (share,), device=context.workers.device)
        for _ in range(_TRIAL_STEPS):
            yield _with_rows(Batch(draws=plan.epoch(0)[:share], labels=labels), stage, context)
        return
    augmentation = context.augmentation(
        stage.stream,
        seed=stage.seed,
        key="key" in stage.options.slots,
        rotate=method.wants_rotated,
    )
    batches = Batches(
        plan=plan,
        source=context.workers.source(context.fetch(context.train, augmentation, context.damage)),
        augmentation=augmentation,
        budget=stage.budget,
        workers=context.workers,
    )
    with closing(batches.batches(0, min(_TRIAL_STEPS, batches.steps_per_epoch))) as drawn:
        for batch in drawn:
            yield batch if stage.table is None else _with_rows(batch, stage, context)


def _with_rows(batch: Batch, stage: Stage, context: Context) -> Batch:
    """Return a batch with rows as its table would hold them, of numbers that mean nothing."""
    assert stage.table is not None
    holds, rows = stage.table.holds, len(batch.labels)
    logits = torch.zeros((rows, context.num_classes), device=context.workers.device)
    if holds.store == "features":
        features = torch.zeros((rows, _width(stage.table, context)), device=logits.device)
        return replace(batch, frozen_features=features)
    if holds.store == "topk":
        kept = holds.topk or max(1, int(_GUESSED_TOPK * context.num_classes))
        ids = torch.arange(kept, device=logits.device).expand(rows, kept).to(torch.int32)
        return replace(batch, soft_labels=TopLogits(ids, logits[:, :kept], logits[:, 0]))
    return replace(batch, frozen_logits=logits)


def _width(table: Table, context: Context) -> int:
    """Return the width of the features that a table's network has."""
    network = untrained(table.source, context).balanced(table.head, batchnorm="frozen")
    return network.folded().backbone.width


def _seconds_an_answer(table: Table, context: Context) -> float:
    """Return the seconds that a network takes for an image, loader included."""
    source = untrained(table.source, context)
    network = context.on_device(source.balanced(table.head, batchnorm="frozen").folded())
    augmentation = context.augmentation(table.stream, seed=table.seed, transform=table.transform)
    reader = context.reader(context.train, augmentation)
    size = min(reader.batch_share, len(context.train))
    plan = context.plan("instance", stream=table.stream, order="trial", seed=table.seed, epochs=1)
    draws = plan.epoch(0)
    batches = [draws[start : start + size] for start in range(0, 3 * size, size)]
    before, best = time.perf_counter(), float("inf")
    for answered, _ in reader.answers(network, network.features, iter(batches)):
        now = time.perf_counter()
        if len(answered):
            best = min(best, (now - before) / len(answered))
        before = now
    return best if best < float("inf") else 0.0


def _memory() -> str:
    if torch.cuda.is_available():
        return f"{_size(torch.cuda.max_memory_allocated())} of GPU memory in the trial steps"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return f"{_size(peak)} of memory in the trial steps"


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if seconds < 3 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
