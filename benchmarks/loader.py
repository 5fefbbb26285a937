r"""Measure whole loaders side by side: images a second, one RandomResizedCrop-224 a photograph.

All read the same stored JPEG bytes, which fastssd's conversion prepared without changing a pixel
(`--jpeg restart`): fastssd and FFCV from one `.beton`, the others from files. Since those bytes are
made for fastssd, all of them read the photographs' original bytes too. Rates are steady: what a
loader has in flight before and after counts for none. Without --data the photographs are synthetic.

    python benchmarks/loader.py [--data FOLDER] [--json FILE]
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from cifar_section import cifar_rows
from crop_check import (
    difference_from_pillow,
    require_close,
    require_plausible,
    samples_to_look_at,
)
from harness import Benchmark, Case, Row, Target, interleaved, judged, num_cores, rows_of
from memory_section import memory_rows
from our_loader import OurLoader, random_resized_crops, shuffled
from peers.peer import Int64, Loader, add_loader_options, is_measured, on_host
from photographs import batch_size_for, mosaics, photographs, summary, too_large_for_ffcv
from steady import Span
from store import Store, make_store

from fastssd.data.decode.decoders import DECODERS
from fastssd.data.images import PIXELS

ALL, FULL_CHROMA, HALF_CHROMA = "all photographs", "4:4:4 photographs", "4:2:0 photographs"
MOSAICS = "800 x 600 mosaics"
FFCV, DALI, DALI_MIXED = "FFCV Loader", "DALI CPU", "DALI mixed"
TORCHVISION, PILLOW = "torchvision.io DataLoader", "ImageFolder + Pillow DataLoader"
OURS = "fastssd native"

SECTIONS = {
    ALL: "One random resized crop of 224 x 224 of each photograph; the same stored bytes for all.",
    FULL_CHROMA: "Those photographs whose chroma is stored whole.",
    HALF_CHROMA: "Those photographs whose chroma is stored at half the width and height.",
    MOSAICS: "iNaturalist's size: four photographs' native pixels each, 4:2:0, quality 90.",
}
ORIGINAL = ", original bytes"
TARGETS = [
    Target(OURS, peer + stored, at_least=bound, section=ALL)
    for peer, bound in ((FFCV, 2.5), (DALI, 1.8), (TORCHVISION, 2.2), (PILLOW, 3.2))
    for stored in ("", ORIGINAL)
]
TARGETS += [
    Target(OURS, FFCV, at_least=3.5, section=MOSAICS),
    Target(OURS, DALI, at_least=1.4, section=MOSAICS),
]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Attributes:
        photographs: At most.
        mosaics: Of four photographs each.
        batch_size: Images a batch.
        ahead: Batches at least before those that count, and after them.
        counted: Batches at least that count.
        compiled: Loaders of FFCV, which compiles each for seconds.
    """

    photographs: int = 1000
    mosaics: int = 60
    batch_size: int = 64
    ahead: int = 4
    counted: int = 8
    compiled: int = 3


QUICK = Sizes(8, 4, batch_size=8, ahead=1, counted=1, compiled=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all sections."""
    benchmark = Benchmark("loader", "Images a second of whole loaders, side by side in one run")
    parser = benchmark.parser()
    add_loader_options(parser)
    parser.add_argument("--only", choices=["photographs", "cifar", "memory"], help="one part")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else Sizes()
    synthetic = min(sizes.photographs, 48)
    found = photographs(options.data, count=sizes.photographs if options.data else synthetic)
    print(f"photographs: {summary(found)}", flush=True)
    sizes = replace(sizes, batch_size=batch_size_for(found, sizes.batch_size))
    rows: list[Row] = []
    sections = dict(SECTIONS)
    with tempfile.TemporaryDirectory(prefix="fastssd-loader-") as name:
        folder = Path(name)
        store = make_store(folder / "restart", found)
        if options.only in (None, "photographs"):
            rows += photograph_rows(folder, store, sizes, options)
        if options.only in (None, "cifar"):
            more, text = cifar_rows(folder / "cifar", options)
            rows, sections = rows + more, sections | text
        if options.only in (None, "memory"):
            more, text = memory_rows(store, options)
            rows, sections = rows + more, sections | text
    return benchmark.finish(
        judged(rows, TARGETS),
        options,
        sections,
        source="synthetic" if options.data is None else "a folder of photographs",
        threads=options.threads,
        batch_size=sizes.batch_size,
        **summary(found),
    )


def photograph_rows(
    folder: Path, store: Store, sizes: Sizes, options: argparse.Namespace
) -> list[Row]:
    """Return the rows of the sections about photographs."""
    large = make_store(folder / "mosaics", mosaics(store.photographs, count=sizes.mosaics))
    kept = make_store(folder / "keep", store.photographs, jpeg="keep")
    make = partial(make_loaders, batch_size=sizes.batch_size, options=options)
    loaders = make(store, (PILLOW, TORCHVISION, DALI, DALI_MIXED, FFCV, *ours()))
    originals = make(
        kept, (OURS, PILLOW, TORCHVISION, DALI) + ((FFCV,) if sizes.compiled > 1 else ())
    )
    of_large = make(large, (DALI, DALI_MIXED, OURS) + ((FFCV,) if sizes.compiled > 2 else ()))
    notes: dict[str, str] = {}
    rows: list[Row] = []
    try:
        check(loaders, store, sizes.batch_size, notes)
        check(of_large, large, sizes.batch_size, {})
        check(originals, kept, sizes.batch_size, {})
        everything = loaders | {name + ORIGINAL: each for name, each in originals.items()}
        parts = {name: loader for name, loader in loaders.items() if name in (OURS, FFCV, DALI)}
        span = Span.of(options.threads, counted=sizes.counted, least_ahead=sizes.ahead)
        for section, used, samples in [
            (ALL, everything, store.samples()),
            (FULL_CHROMA, parts or loaders, store.samples("4:4:4")),
            (HALF_CHROMA, parts or loaders, store.samples("4:2:0")),
            (MOSAICS, of_large, large.samples()),
        ]:
            if not len(samples):
                continue
            cases = [
                Case(name, rate(loader, samples, span, sizes.batch_size))
                for name, loader in used.items()
            ]
            values = interleaved(cases, repeats=options.repeats)
            against = FFCV if FFCV in values else None
            rows += rows_of(values, unit="images/s", against=against, section=section, notes=notes)
            print(f"{section}: done", flush=True)
    finally:
        for loader in [*loaders.values(), *originals.values(), *of_large.values()]:
            loader.close()
    return rows


def ours() -> list[str]:
    """Return the rows of fastssd: one for each decoder that is installed."""
    return [f"fastssd {decoder}" for decoder, entry in DECODERS.items() if entry.present]


def make_loaders(
    store: Store, wanted: Sequence[str], *, batch_size: int, options: argparse.Namespace
) -> dict[str, Loader]:
    """Return those of the wanted loaders that can be made here, by name, ours first.

    Those with worker processes are made first: these are forked before others have threads.
    """
    threads = options.threads
    makers: dict[str, Callable[[], Loader]] = {}
    if is_measured("torchvision", options):
        from peers.torch_loader import TorchLoader, TorchvisionFiles, pillow_folder

        makers[PILLOW] = lambda: TorchLoader(
            pillow_folder(store.root), batch_size=batch_size, workers=threads
        )
        makers[TORCHVISION] = lambda: TorchLoader(
            TorchvisionFiles(store.files), batch_size=batch_size, workers=threads
        )
    if is_measured("nvidia.dali", options):
        from peers.dali_loader import MIXED, DaliLoader

        by_dali = partial(DaliLoader, store.files, batch_size=batch_size, threads=threads)
        makers[DALI] = by_dali
        if torch.cuda.is_available():
            makers[DALI_MIXED] = partial(by_dali, device=MIXED)
    problem = too_large_for_ffcv(store.photographs, batch_size)
    if FFCV in wanted and problem:
        print(problem, flush=True)
    elif is_measured("ffcv", options):
        from peers.ffcv_loader import FfcvLoader

        makers[FFCV] = lambda: FfcvLoader(store.beton, batch_size=batch_size, threads=threads)
    for decoder, entry in DECODERS.items():
        if entry.present:
            makers[f"fastssd {decoder}"] = lambda decoder=decoder: OurLoader(
                store.split, decoder, random_resized_crops(), batch_size, threads
            )
    made = {name: make() for name, make in makers.items() if name in wanted}
    ours_first = sorted(made, key=lambda name: not name.startswith("fastssd"))
    torch.set_num_threads(num_cores())  # importing FFCV sets them to 1
    return {name: made[name] for name in ours_first}


def check(loaders: dict[str, Loader], store: Store, batch_size: int, notes: dict[str, str]) -> None:
    """Look at crops of every loader; for ours note how far it is from Pillow."""
    samples = samples_to_look_at(store.photographs, batch_size)
    for name, loader in loaders.items():
        if not isinstance(loader, OurLoader):
            require_plausible(name, loader.batches(samples), store.photographs)
            continue
        draws, batch = next(loader.host_batches(shuffled(samples)))
        pixels = on_host(batch[PIXELS])[:, :16]
        levels = difference_from_pillow(pixels, draws[:16], store.photographs, loader.augmentation)
        require_close(name, levels)
        notes[name] = f"crops differ from Pillow's by {levels:.2f} of 256 levels on average"


def rate(loader: Loader, samples: Int64, span: Span, batch_size: int) -> Callable[[], float]:
    """Return a repeat: images a second."""
    order = np.resize(samples, span.total * batch_size)
    return lambda: batch_size / span.seconds_per_batch(loader.batches(order))


if __name__ == "__main__":
    sys.exit(main())
