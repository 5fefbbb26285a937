r"""Measure training steps by the trainer itself: each stage against cross-entropy, and the host.

Real batches come from JPEG photographs through the loader; a ready batch lies on the device, is
augmented, and is given again and again. On a GPU the network is a ResNet-50 at 224 pixels in
bfloat16, on a CPU a small one; weights are random. The first steps of each run are not counted:
with real batches as many as may have been prepared before the first.

    python benchmarks/step.py [--data FOLDER] [--json FILE] [--compile]
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from harness import Benchmark, Case, Row, Target, interleaved, judged, num_cores, rows_of
from photographs import photographs, summary
from step_runs import PREFETCH, Ready, Runs, Setting
from store import make_store
from torch import Tensor, nn

from fastssd.data.draws import Draws
from fastssd.methods.batch import Batch, Moment, Output

HOST, STAGES, DATA = "host time", "ready batches", "real batches"
SECTIONS = {
    HOST: "A model with one weight and nothing to compute, batch 128 on the device: all that the "
    "trainer does at a step, log lines included. The loop is forward, backward and SGD, no more.",
    STAGES: "The same network under each stage's losses.",
    DATA: "Decoding, loading and augmentation included, against the same step on a ready batch. On "
    "a CPU all of it takes the cores that the network works on; on a GPU it should cost nothing.",
}
CE, ROTATION, INSTANCE = "fastssd CE", "fastssd stage I, rotation", "fastssd stage I, instance"
ONLINE, TABLE = "fastssd stage III, online teacher", "fastssd stage III, table"
STAGE_OF = {
    CE: ("ce.model",),
    ROTATION: ("ssd.I", "ssd.I.task.kind=rotation"),
    INSTANCE: ("ssd.I", "ssd.I.task={kind: instance, queue: 65536}"),
    ONLINE: ("ssd.III", "ssd.III.reads=images"),
    TABLE: ("ssd.III", "ssd.III.reads=T"),
}
"""A stage, and what the command line says of it."""
TRAINER, LOOP = "fastssd trainer", "plain loop"
TARGETS = [
    Target(TRAINER, at_most=300.0, section=HOST),
    Target(TABLE, CE, at_most=1.05, section=STAGES),
]
_HOST_BATCH, _NUM_CLASSES = 128, 10


class Idle(nn.Module):
    """A method that computes next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch, at: Moment) -> Output:
        return Output(
            losses={"classification": self.weight * 1},
            correct={"classification": batch.labels == 0},
        )

    def after_step(self, at: Moment) -> None:
        """Nothing follows a step."""


def host_rows(runs: Runs, repeats: int, *, steps: int) -> list[Row]:
    """Return the microseconds of a step that does nothing, by our trainer and by a plain loop."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    samples = np.arange(_HOST_BATCH)
    labels = torch.from_numpy(samples % _NUM_CLASSES).to(device)
    batch = Batch(draws=Draws(samples, 0 * samples), labels=labels)
    trained = runs.timed(Idle(), Ready(batch), steps=steps, warm_up=steps // 5)
    cases = [
        Case(TRAINER, lambda: 1000 * trained()),
        Case(LOOP, lambda: _plain_loop(batch, device, steps)),
    ]
    values = interleaved(cases, repeats=repeats)
    return rows_of(values, unit="us", against=LOOP, higher_is_better=False, section=HOST)


def _plain_loop(batch: Batch, device: torch.device, steps: int) -> float:
    """Return the microseconds of a step written out."""
    method = Idle().to(device)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9, fused=True)
    losses: dict[str, Tensor]
    for step in range(steps):
        if step == steps // 5:
            _synchronize()
            started = time.perf_counter()
        losses, _ = method(batch, Moment(epoch=0, epochs=1, step=step, steps_per_epoch=steps))
        losses["classification"].backward()
        optimizer.step()
        optimizer.zero_grad()
    _synchronize()
    return 1e6 * (time.perf_counter() - started) / (steps - steps // 5)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def stage_rows(runs: Runs, repeats: int, *, steps: int, threads: int) -> list[Row]:
    """Return the milliseconds of every stage's step on ready batches, and of two on real ones."""
    ahead = threads + PREFETCH + 2  # batches in flight
    ready: dict[str, Callable[[], float]] = {}
    real: dict[str, Callable[[], float]] = {}
    for name, asked in STAGE_OF.items():
        prepared = runs.stage(*asked)
        ready[name] = runs.timed(
            prepared.method, runs.ready(prepared), steps=steps, warm_up=max(1, steps // 4)
        )
        if name in (CE, TABLE):
            real[f"{name}, real"] = runs.timed(
                prepared.method, prepared.batches, steps=max(steps, 3 * ahead), warm_up=ahead
            )
    # Together, so that both sections are of the same minutes.
    values = interleaved([Case(*case) for case in (ready | real).items()], repeats=repeats)
    common = {"unit": "ms", "higher_is_better": False}
    of_stages = {name: values[name] for name in ready}
    rows = rows_of(of_stages, against=CE, section=STAGES, **common)
    for name in real:
        synthetic = name.removesuffix(", real")
        pair = {name: values[name], synthetic: values[synthetic]}
        rows += rows_of(pair, against=synthetic, section=DATA, **common)
    return rows


def with_rate(row: Row, batch_size: int) -> Row:
    """Return a row of milliseconds with its images a second."""
    if row.unit != "ms":
        return row
    rate = 1000 * batch_size / row.value
    extra = {**row.extra, "images_per_second": rate}
    return replace(row, note=f"{rate:,.0f} images/s", extra=extra)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and return its exit code."""
    benchmark = Benchmark("step", "Milliseconds of a training step, stage by stage.")
    on_gpu = torch.cuda.is_available()
    parser = benchmark.parser(repeats=5)
    add = parser.add_argument
    add("--backbone", default="torchvision/resnet50" if on_gpu else "resnet20")
    add("--size", type=int, default=224 if on_gpu else 32, help="side of the images, in pixels")
    add("--batch-size", type=int, default=256 if on_gpu else 64)
    add("--precision", choices=["no", "bf16"], default="bf16" if on_gpu else "no")
    add("--compile", action="store_true", help="the backbones, with torch.compile")
    add("--threads", type=int, default=num_cores(), help="of the loader")
    add("--steps", type=int, default=40 if on_gpu else 8, help="of a repeat, of which 1/4 warm up")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        return _measure(benchmark, options, Path(folder))


def _measure(benchmark: Benchmark, options: argparse.Namespace, folder: Path) -> int:
    if options.quick:
        options.backbone, options.batch_size, options.steps = "resnet8", 16, 4
    taken = photographs(options.data, count=8 if options.quick else 96)
    copies = -(-2 * options.batch_size // len(taken))
    store = make_store(folder / "store", taken * copies)
    runs = Runs(
        Setting(
            dataset=store.beton.parent,
            output=folder,
            backbone=options.backbone,
            size=options.size,
            batch_size=options.batch_size,
            precision=options.precision,
            compile=options.compile,
            threads=options.threads,
        )
    )
    rows = host_rows(runs, options.repeats, steps=50 if options.quick else 500)
    rows += stage_rows(runs, options.repeats, steps=options.steps, threads=options.threads)
    rows = [with_rate(row, options.batch_size) for row in rows]
    return benchmark.finish(
        judged(rows, TARGETS),
        options,
        SECTIONS,
        **summary(taken),
        copies=copies,
        backbone=options.backbone,
        size=options.size,
        batch_size=options.batch_size,
        precision=options.precision,
        compiled=options.compile,
        threads=options.threads,
    )


if __name__ == "__main__":
    sys.exit(main())
