"""The part of the loader's benchmark about small images: the `memory` format, CIFAR's recipe."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from harness import Case, Row, Target, interleaved, judged, num_cores, rows_of
from numpy.typing import NDArray
from our_loader import workers_for
from peers.peer import UInt8, is_measured
from steady import Span
from torch import Tensor

from fastssd.augment.augmentation import Augmentation
from fastssd.augment.recipes import build_recipe
from fastssd.data.convert import convert
from fastssd.data.dataset import open_dataset
from fastssd.data.decode.decoders import build_decoder
from fastssd.data.draws import Draws
from fastssd.data.images import image_fetch
from fastssd.data.plans import ClassIndex, Plan
from fastssd.data.sources.source import Content, OpenedSource
from fastssd.training.batches import finished

SECTION = "CIFAR recipe"
TEXT = (
    "Images of 32 x 32 in the memory format: padded crop, flip, normalised float32 batches of 128."
)
OURS, FFCV = "fastssd memory", "FFCV Loader"
FFCV_TORCH = "FFCV Loader, normalised by torchvision"
BATCH_SIZE, SIDE = 128, 32
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
_NUM_IMAGES, _NUM_QUICK = 51_200, 6_400


def cifar_rows(folder: Path, options: argparse.Namespace) -> tuple[list[Row], dict[str, str]]:
    """Return the rows of this section and its text.

    Args:
        folder: Where the images are stored; made here.
        options: Of the benchmark: `threads`, `repeats`, `quick`, `alone`.
    """
    folder.mkdir()
    shape = (_NUM_QUICK if options.quick else _NUM_IMAGES, SIDE, SIDE, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    source = _source(pixels)
    convert(source, folder / "memory", format="memory")
    ours = _Ours(folder / "memory", options.threads)
    _check(OURS, ours.batches(), pixels)
    # An epoch: small batches are made several at a time, so many of them are in flight.
    num_batches = len(pixels) // BATCH_SIZE
    span = Span(num_batches // 5, num_batches - 2 * (num_batches // 5))
    cases = [Case(OURS, _rate(ours.batches, span))]
    if is_measured("ffcv", options):
        from peers.ffcv_cifar import FfcvCifar

        convert(source, folder / "ffcv", format="ffcv")
        for name, by_table in ((FFCV, True), (FFCV_TORCH, False)):
            ffcv = FfcvCifar(
                folder / "ffcv" / "train.beton",
                batch_size=BATCH_SIZE,
                threads=options.threads,
                mean=[255 * value for value in MEAN],
                std=[255 * value for value in STD],
                by_table=by_table,
            )
            _check(name, ffcv.batches(), pixels)
            cases.append(Case(name, _rate(ffcv.batches, span)))
    torch.set_num_threads(num_cores())  # importing FFCV sets them to 1
    values = interleaved(cases, repeats=options.repeats)
    against = FFCV if FFCV in values else None
    rows = rows_of(values, unit="images/s", against=against, section=SECTION)
    targets = [Target(OURS, peer, at_least=5, section=SECTION) for peer in (FFCV, FFCV_TORCH)]
    return judged(rows, targets), {SECTION: TEXT}


class _Ours:
    """Batches as a stage's feed makes them: prefetched, then finished where the network is."""

    def __init__(self, dataset: Path, threads: int) -> None:
        self._split = open_dataset(dataset).split("train")
        self._augmentation = Augmentation(
            build_recipe("cifar", SIDE), mean=MEAN, std=STD, seed=0, stream="benchmark"
        )
        self._workers = workers_for(threads)
        decoder = build_decoder(threads=threads)
        buffers = self._workers.buffers()
        self._fetch = image_fetch(self._split, decoder, self._augmentation, buffers=buffers)
        index = ClassIndex(self._split.labels, len(self._split.counts))
        self._plan = Plan(index=index, sampler="instance", seed=0, stream="s", num_epochs=1)

    def batches(self) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
        draws = self._plan.epoch(0)
        starts = range(0, len(draws) - BATCH_SIZE + 1, BATCH_SIZE)
        parts: Iterator[Draws] = (draws[start : start + BATCH_SIZE] for start in starts)
        source = self._workers.source(self._fetch)
        for batch_draws, batch in self._workers.batches(parts, source):
            views = finished(batch_draws, batch, self._augmentation).views
            assert views is not None
            yield views.query, batch_draws.samples


def _rate(batches: Callable[[], Iterator[object]], span: Span) -> Callable[[], float]:
    return lambda: BATCH_SIZE / span.seconds_per_batch(batches())


def _check(name: str, batches: Iterator[tuple[Tensor, NDArray[np.int64]]], pixels: UInt8) -> None:
    """Compare a batch with the only images that it can be: moved by up to 4 pixels, or mirrored.

    Raises:
        SystemExit: If an image is none of those.
    """
    images, samples = next(batches)
    mean, std = np.array(MEAN), np.array(STD)
    found = images[:8].permute(0, 2, 3, 1).numpy() * std + mean
    found = np.rint(found * 255).astype(int)
    for image, sample in zip(found, samples, strict=False):
        padded = np.pad(pixels[sample].astype(int), [(4, 4), (4, 4), (0, 0)])
        moved = [padded[y : y + SIDE, x : x + SIDE] for y in range(9) for x in range(9)]
        if not any(np.array_equal(image, m) or np.array_equal(image, m[:, ::-1]) for m in moved):
            raise SystemExit(f"{name}: sample {sample} is none of its padded crops")


class _Pixels:
    """The split of a source of arrays."""

    def __init__(self, images: UInt8) -> None:
        self.images = images
        self.labels = np.arange(len(images))
        self.names: Sequence[str] = [f"image {number}" for number in range(len(images))]

    def read(self, row: int) -> Content:
        return self.images[row]

    def missing(self, rows: NDArray[np.int64]) -> Sequence[str]:
        return []


def _source(images: UInt8) -> OpenedSource:
    return OpenedSource(
        name="noise",
        kind="folder",
        origin="noise",
        classes=[str(number) for number in range(len(images))],
        splits={"train": _Pixels(images)},
    )
