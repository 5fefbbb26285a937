r"""Predict an epoch: where the bottleneck is, and how many cores a GPU needs.

Measured here: images a second that a core decodes and crops while all cores do, of photographs of
ImageNet's and of iNaturalist's size. Taken from publications, or from --step: images a second that
a GPU trains. Everything else is arithmetic, and its assumptions are printed:

    python benchmarks/epoch_time.py [--data FOLDER] [--cores 96 --gpus 8] [--step 2500] [--json F]
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import Benchmark, Case, Row, interleaved, num_cores, rows_of
from our_loader import OurLoader, random_resized_crops, shuffled
from photographs import Photograph, mosaics, photographs, summary
from steady import Span
from store import Store, make_store

from fastssd.data.decode.decoders import DECODERS

DECODE, CORES, EPOCH = "decoded by a core", "cores a GPU needs", "predicted epoch"
IMAGENET, INATURALIST = "ImageNet size", "800 x 600"
PUBLISHED = {
    # ResNet-50, 224 x 224, mixed precision, images a second of one GPU in training.
    "V100": (1_200, "NVIDIA DeepLearningExamples, resnet50v1.5 README"),
    "A100": (2_470, "NVIDIA DeepLearningExamples, resnet50v1.5 README"),
    "H100": (4_500, "A100 times 1.85, the ratio of MLPerf Training 3.0 times"),
}
RESNEXT = 0.82
"""ResNeXt-50 over ResNet-50 in images a second: timm's AMP channels-last training results."""
_BATCH_SIZE = 64


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of a dataset.

    Attributes:
        name: As in the table.
        images: Draws of an epoch.
        size: Of the photographs, as measured.
        backbone: What the recipe trains.
        share: The backbone's images a second over ResNet-50's.
    """

    name: str
    images: int
    size: str
    backbone: str
    share: float


EPOCHS = [
    Epoch("iNaturalist 2018", 437_513, INATURALIST, "ResNet-50", 1.0),
    Epoch("ImageNet-LT", 115_846, IMAGENET, "ResNeXt-50", RESNEXT),
]


@dataclass(frozen=True, slots=True)
class Machine:
    """What an epoch is predicted for.

    Attributes:
        cores: Processor cores in all.
        gpus: Of one kind.
        reserved: Cores for each GPU's own process, which launches kernels.
    """

    cores: int
    gpus: int
    reserved: int = 1

    @property
    def decoding(self) -> int:
        """Cores that decode, at least one."""
        return max(1, self.cores - self.reserved * self.gpus)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the decode of a core, predict the epochs."""
    benchmark = Benchmark("epoch_time", "Predicted epochs: decode of a core, step of a GPU")
    parser = benchmark.parser()
    add = parser.add_argument
    add("--cores", type=int, default=96, help="of the machine (default: 96)")
    add("--gpus", type=int, default=8, help="of the machine (default: 8)")
    add("--crops", type=int, default=1, choices=[1, 2], help="of each image (stage I: 2)")
    add("--step", type=float, help="images/s that one GPU trains, instead of published numbers")
    add("--decode", type=float, help="images/s that one core decodes, instead of measuring")
    options = parser.parse_args(arguments)
    machine = Machine(options.cores, options.gpus)
    steps = {"your GPU": (options.step, "--step")} if options.step else PUBLISHED
    rows: list[Row] = []
    measured_on: dict[str, object] = {}
    if options.decode:
        decode = dict.fromkeys((IMAGENET, INATURALIST), options.decode)
    else:
        rows, decode, measured_on = measure(options)
    for kind, (step, _) in steps.items():
        rows += needed(kind, step, decode)
    for kind, (step, _) in steps.items():
        rows += [predicted(epoch, kind, step, decode[epoch.size], machine) for epoch in EPOCHS]
    return benchmark.finish(rows, options, texts(steps, machine, options.crops), **measured_on)


def measure(
    options: argparse.Namespace,
) -> tuple[list[Row], dict[str, float], dict[str, object]]:
    """Return the rows of what one core decodes, the best decoder's rate by size, what it was."""
    quick, data = options.quick, options.data
    count, counted = (8, 1) if quick else (48, 8)
    found = photographs(data, count=1000 if data and not quick else count)
    decoders = [name for name, entry in DECODERS.items() if entry.present and name != "dali"]
    rows: list[Row] = []
    decode: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="fastssd-epoch-") as folder:
        taken: dict[str, Sequence[Photograph]] = {
            IMAGENET: found,
            INATURALIST: mosaics(found, count=min(count, 48)),
        }
        for size, of_size in taken.items():
            store = make_store(Path(folder) / size.replace(" ", "-"), of_size)
            cases = [
                Case(f"fastssd {name}, {size}", a_core(store, name, counted, options.crops))
                for name in decoders
            ]
            values = interleaved(cases, repeats=options.repeats)
            against = cases[-1].name if len(cases) > 1 else None
            rows += rows_of(values, unit="images/s", against=against, section=DECODE)
            decode[size] = float(np.median(values[cases[0].name]))
    return rows, decode, dict(summary(found))


def a_core(store: Store, decoder: str, counted: int, crops: int) -> Callable[[], float]:
    """Return a repeat: images a second of the loader on all cores, over their number."""
    cores, augmentation = num_cores(), random_resized_crops(views=crops)
    loader = OurLoader(store.split, decoder, augmentation, _BATCH_SIZE, cores)
    span = Span.of(cores, counted=counted)
    draws = shuffled(np.resize(store.samples(), span.total * _BATCH_SIZE))
    return lambda: _BATCH_SIZE / span.seconds_per_batch(loader.host_batches(draws)) / cores


def needed(kind: str, step: float, decode: dict[str, float]) -> list[Row]:
    """Return how many cores must decode so that one GPU of a kind never waits."""
    rows = []
    for epoch in EPOCHS:
        cores = step * epoch.share / decode[epoch.size]
        name = f"fastssd, {kind}, {epoch.name} ({epoch.backbone})"
        rows.append(
            _row(name, cores, "cores", CORES, f"{step * epoch.share:,.0f} images/s trained")
        )
    return rows


def predicted(epoch: Epoch, kind: str, step: float, decode: float, machine: Machine) -> Row:
    """Return the minutes of an epoch, and what bounds it."""
    decoded, trained = machine.decoding * decode, machine.gpus * step * epoch.share
    bottleneck = "the GPUs" if decoded >= trained else "decoding"
    minutes = epoch.images / min(decoded, trained) / 60
    name = f"fastssd, {epoch.name}, {machine.gpus} x {kind}, {machine.cores} cores"
    note = (
        f"bound by {bottleneck}: {machine.decoding} cores decode {decoded:,.0f} images/s, the GPUs "
        f"train {trained:,.0f}"
    )
    return _row(name, minutes, "min", EPOCH, note)


def texts(steps: dict[str, tuple[float, str]], machine: Machine, crops: int) -> dict[str, str]:
    """Return the sections' texts, which are the assumptions."""
    sources = "; ".join(f"{kind} {step:,.0f}/s ({text})" for kind, (step, text) in steps.items())
    return {
        DECODE: f"All {num_cores()} cores at once, {crops} random resized crop(s) of 224 a "
        "photograph, restart-prepared JPEG in the page cache; the rate over the number of cores. "
        "A core of this machine, not of yours.",
        CORES: f"Training rate over the rate of one core. ResNet-50 trains: {sources}; ResNeXt-50 "
        f"is taken as {RESNEXT} of that.",
        EPOCH: f"Assumed: decoding grows with the cores; {machine.reserved} core a GPU does not "
        "decode; the files are in memory or on a disk that keeps up; one forward and backward pass "
        "an image, as stages CE, II and III from a table have; no time for evaluation.",
    }


def _row(name: str, value: float, unit: str, section: str, note: str) -> Row:
    extra = {"higher_is_better": False, "computed": True}
    return Row(
        name=f"{name}, {section}",
        value=value,
        unit=unit,
        spread=(value, value),
        section=section,
        note=note,
        extra=extra,
    )


if __name__ == "__main__":
    sys.exit(main())
