r"""Measure two crops of each photograph in one visit against two visits, and against FFCV.

MoCo's query and key, or two views of a self-supervised task, are two crops of one image. One visit
reads the file once and decodes once what both crops share; two visits are two epochs' worth of
draws. FFCV makes two crops by two pipelines over one field, each of which decodes the file.

    python benchmarks/views.py [--data FOLDER] [--json FILE]
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from crop_check import (
    difference_from_pillow,
    require_close,
    require_plausible,
    samples_to_look_at,
)
from harness import Benchmark, Case, Target, interleaved, judged, num_cores, rows_of
from our_loader import OurLoader, random_resized_crops, shuffled
from peers.peer import add_loader_options, is_measured
from photographs import batch_size_for, photographs, summary, too_large_for_ffcv
from steady import Span
from store import Store, make_store

from fastssd.data.decode.decoders import AUTO, build_decoder
from fastssd.data.draws import Draws
from fastssd.data.images import PIXELS

ONE_VISIT, TWO_VISITS = "fastssd, two crops a visit", "fastssd, two visits"
FFCV = "FFCV Loader, two pipelines"
TARGETS = [
    Target(ONE_VISIT, TWO_VISITS, at_most=0.85),
    Target(ONE_VISIT, FFCV, at_least=3),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure seconds of 1,000 photographs, two crops each."""
    benchmark = Benchmark(
        "views", "Two random resized crops of each photograph: s for 1,000 of them"
    )
    parser = benchmark.parser()
    add_loader_options(parser)
    options = parser.parse_args(arguments)
    count, batch_size, counted = (8, 8, 1) if options.quick else (1000, 64, 12)
    found = photographs(options.data, count=count if options.data else min(count, 48))
    batch_size = batch_size_for(found, batch_size)
    with tempfile.TemporaryDirectory(prefix="fastssd-views-") as folder:
        store = make_store(Path(folder), found)
        cases, levels = _cases(store, batch_size, counted, options)
        torch.set_num_threads(num_cores())  # importing FFCV sets them to 1
        values = interleaved(cases, repeats=options.repeats)
    note = f"crops differ from Pillow's by {levels:.2f} of 256 levels on average"
    rows = rows_of(
        values,
        unit="s",
        against=FFCV if FFCV in values else TWO_VISITS,
        higher_is_better=False,
        notes={ONE_VISIT: note},
    )
    return benchmark.finish(
        judged(rows, TARGETS),
        options,
        source="synthetic" if options.data is None else "a folder of photographs",
        threads=options.threads,
        batch_size=batch_size,
        decoder=build_decoder(AUTO).name,
        **summary(found),
    )


def _cases(
    store: Store, batch_size: int, counted: int, options: argparse.Namespace
) -> tuple[list[Case], float]:
    """Return what is measured, and how far our crops are from Pillow's, in grey levels."""
    span = Span.of(options.threads, counted=counted)
    samples = np.resize(store.samples(), span.total * batch_size)
    both, one = (
        OurLoader(store.split, AUTO, random_resized_crops(views=views), batch_size, options.threads)
        for views in (2, 1)
    )
    once = shuffled(samples)
    # Two visits draw each batch twice, as different views.
    halves = [once[start : start + batch_size] for start in range(0, len(once), batch_size)]
    twice = Draws(
        np.concatenate([half.samples for half in halves for _ in range(2)]),
        np.concatenate([half.views + number for half in halves for number in range(2)]),
    )
    draws, batch = next(both.host_batches(once))
    pixels = batch[PIXELS].numpy()[:, :8]
    levels = difference_from_pillow(pixels, draws[:8], store.photographs, both.augmentation)
    require_close(ONE_VISIT, levels)
    cases = [
        Case(ONE_VISIT, _seconds(lambda: both.host_batches(once), span, batch_size)),
        Case(
            TWO_VISITS,
            _seconds(lambda: one.host_batches(twice), span.of_parts(2), batch_size / 2),
        ),
    ]
    problem = too_large_for_ffcv(store.photographs, 2 * batch_size)
    if problem:
        print(problem, flush=True)
    elif is_measured("ffcv", options):
        from peers.ffcv_loader import FfcvLoader

        ffcv = FfcvLoader(
            store.beton, batch_size=batch_size, threads=options.threads, num_pipelines=2
        )
        seen = samples_to_look_at(store.photographs, batch_size)
        for crop in range(2):
            found = ((crops[crop], rows) for crops, rows in ffcv.crops(seen))
            require_plausible(FFCV, found, store.photographs)
        cases.append(Case(FFCV, _seconds(lambda: ffcv.crops(samples), span, batch_size)))
    return cases, levels


def _seconds(
    batches: Callable[[], Iterable[object]], span: Span, photographs_a_batch: float
) -> Callable[[], float]:
    """Return a repeat: seconds for two crops of 1,000 photographs."""
    return lambda: 1000 * span.seconds_per_batch(batches()) / photographs_a_batch


if __name__ == "__main__":
    sys.exit(main())
