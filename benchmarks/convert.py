r"""Measure conversions of JPEG photographs side by side: images a second, bytes, and reading rates.

All read the same files from the page cache, write a `.beton` and flush it: FFCV's own
DatasetWriter, which decodes and encodes every photograph again, and fastssd's conversion in each of
its ways with JPEG. Pixels and smaller images are compared with FFCV's of the same kind. What was
written is compared with the photographs. Without --data these are synthetic.

    python benchmarks/convert.py [--data FOLDER] [--json FILE]
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from harness import Benchmark, Case, Row, Target, interleaved, judged, num_cores, rows_of
from our_loader import OurLoader, random_resized_crops
from peers.peer import Int64, Loader
from photographs import MOST_PIXELS, Photograph, photographs, summary

from fastssd.data.convert import convert
from fastssd.data.dataset import open_dataset
from fastssd.data.decode.torchvision_decoder import decode_pixels
from fastssd.data.sources.sources import open_source
from fastssd.data.storage.beton import BetonStorage

FFCV = "FFCV DatasetWriter, quality 90"
FFCV_RAW, FFCV_SMALL = "FFCV DatasetWriter, raw", "FFCV DatasetWriter, 400 px, quality 90"
JPEG_90 = {"write_mode": "jpg", "jpeg_quality": 90}
PEERS: dict[str, dict[str, Any]] = {
    FFCV: JPEG_90,
    FFCV_RAW: {"write_mode": "raw"},
    FFCV_SMALL: {**JPEG_90, "max_resolution": 400},
}
CONVERTING, SIZE, READING = "converting", "size", "reading"
WAYS: dict[str, dict[str, Any]] = {
    "fastssd restart": {"jpeg": "restart"},
    "fastssd restart --verify": {"jpeg": "restart", "verify": True},
    "fastssd keep": {"jpeg": "keep"},
    "fastssd raw": {"jpeg": "raw"},
    "fastssd --max-side 400 --quality 90": {"jpeg": "restart", "max_side": 400, "quality": 90},
}
COMPARED_WITH = {"fastssd raw": FFCV_RAW, "fastssd --max-side 400 --quality 90": FFCV_SMALL}
"""What is not compared with FFCV's writing of whole photographs."""
SECTIONS = {
    CONVERTING: "From JPEG files to a .beton, flushed to disk; fastssd checks every photograph.",
    SIZE: "What was stored of each photograph.",
    READING: "One random resized crop of 224 x 224 of each, by fastssd's own loader.",
}
TARGETS = [
    Target("fastssd keep", FFCV, at_least=5, section=CONVERTING),
    Target("fastssd restart", FFCV, at_least=1.2, section=CONVERTING),
]
_READ_BATCH = 64
_FFCV_PAGE = 8 << 20  # bytes, FFCV's default
_MAX_LEVELS = 8.0  # that encoding noise again at quality 90 changes it by, on average


@dataclass(frozen=True, slots=True)
class Photos:
    """A folder of photographs.

    Attributes:
        root: It, of one class.
        originals: The different ones; file i has the content of original i modulo their number.
        count: Files.
    """

    root: Path
    originals: Sequence[Photograph]
    count: int

    def of(self, sample: int) -> Photograph:
        """Return the photograph of a sample."""
        return self.originals[sample % len(self.originals)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure converting, size and reading."""
    benchmark = Benchmark("convert", "Conversions of JPEG photographs, side by side in one run")
    parser = benchmark.parser()
    parser.add_argument("--threads", type=int, default=num_cores(), help="of every conversion")
    options = parser.parse_args(arguments)
    found = photographs(options.data, count=8 if options.quick else 1000 if options.data else 48)
    print(f"photographs: {summary(found)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fastssd-convert-") as name:
        pixels = sum(each.width * each.height for each in found) / len(found)
        count = min(16 if options.quick else 700, int(MOST_PIXELS / pixels))
        photos = make_files(Path(name) / "files", found, count)
        outs = {way: Path(name) / f"out-{number}" for number, way in enumerate(WAYS)}
        cases = [
            Case(
                way, timed(photos.count, ours(photos, outs[way], options.threads, more), outs[way])
            )
            for way, more in WAYS.items()
        ]
        betons = {way: out / "train.beton" for way, out in outs.items()}
        if find_spec("ffcv") is not None:
            for number, (peer, more) in enumerate(PEERS.items()):
                betons[peer] = Path(name) / f"ffcv-{number}.beton"
                job = ffcv(photos, betons[peer], options.threads, more)
                cases.insert(number, Case(peer, timed(photos.count, job, betons[peer])))
        values = interleaved(cases, repeats=options.repeats)
        notes = {way: check(way, beton, photos) for way, beton in betons.items()}
        rows = compared(values, notes)
        rows += size_rows(betons, photos)
        rows += reading_rows(outs, options)
    return benchmark.finish(
        judged(rows, TARGETS),
        options,
        SECTIONS,
        source="synthetic" if options.data is None else "a folder of photographs",
        threads=options.threads,
        files=photos.count,
        **summary(found),
    )


def compared(values: dict[str, list[float]], notes: dict[str, str]) -> list[Row]:
    """Return the rows of converting, each of ours against FFCV's of the same kind."""
    groups: dict[str, dict[str, list[float]]] = {}
    for name, rates in values.items():
        peer = name if name in PEERS else COMPARED_WITH.get(name, FFCV)
        groups.setdefault(peer, {})[name] = rates
    rows = []
    for peer, group in groups.items():
        against = peer if peer in group else None
        rows += rows_of(group, unit="images/s", against=against, section=CONVERTING, notes=notes)
    return rows


def make_files(root: Path, found: Sequence[Photograph], count: int) -> Photos:
    """Write photographs as files, each as often as needed for so many."""
    (root / "photographs").mkdir(parents=True)
    count = max(1, count // len(found)) * len(found)
    for number in range(count):
        path = root / "photographs" / f"{number:06d}.jpg"
        path.write_bytes(found[number % len(found)].content)
    os.sync()
    return Photos(root, found, count)


def timed(count: int, job: Callable[[], None], result: Path | None = None) -> Callable[[], float]:
    """Return a repeat of a job: images a second. What it wrote before is removed first, untimed."""

    def run() -> float:
        if result is not None and result.is_dir():
            shutil.rmtree(result)
        elif result is not None:
            result.unlink(missing_ok=True)
        started = time.perf_counter()
        job()
        return count / (time.perf_counter() - started)

    return run


def ours(photos: Photos, out: Path, threads: int, more: dict[str, Any]) -> Callable[[], None]:
    """Return our conversion to a directory."""

    def run() -> None:
        convert(open_source(str(photos.root)), out, format="ffcv", threads=threads, **more)

    return run


def ffcv(photos: Photos, beton: Path, threads: int, more: dict[str, Any]) -> Callable[[], None]:
    """Return FFCV's conversion to a file, as its documentation has it, flushed as ours is."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter
    from torchvision.datasets import ImageFolder

    folder = ImageFolder(str(photos.root))
    # A photograph that does not fit into a page would end a worker, and the writer wait for ever.
    largest = max(3 * each.width * each.height for each in photos.originals)
    page_size = max(_FFCV_PAGE, 1 << (largest + 1).bit_length())

    def run() -> None:
        fields = {"image": RGBImageField(**more), "label": IntField()}
        writer = DatasetWriter(str(beton), fields, num_workers=threads, page_size=page_size)
        writer.from_indexed_dataset(folder)
        with beton.open("rb") as file:
            os.fsync(file.fileno())

    return run


def check(way: str, beton: Path, photos: Photos) -> str:
    """Compare what was written with the photographs; return what is to be said of it.

    Raises:
        SystemExit: If something is not as it must be.
    """
    storage = BetonStorage(beton)
    if len(storage) != photos.count:
        raise SystemExit(f"{way}: {len(storage)} images where {photos.count} were given")
    levels = []
    for sample in range(len(photos.originals)):
        stored, original = storage.read(sample), photos.of(sample)
        if way == "fastssd keep" and stored.data.tobytes() != original.content:
            raise SystemExit(f"{way}: sample {sample} has other bytes")
        pixels = decode_pixels(stored).astype(np.int16)
        if way in (FFCV_SMALL, "fastssd --max-side 400 --quality 90"):
            if max(pixels.shape) > 400:
                raise SystemExit(f"{way}: sample {sample} is of {pixels.shape}")
            continue
        levels.append(float(np.abs(pixels - original.pixels()).mean()))
    if not levels:
        return "no side is longer than 400 pixels"
    if max(levels) > (_MAX_LEVELS if way == FFCV else 0.1):  # 0.1: two builds of libjpeg
        raise SystemExit(f"{way}: pixels differ by {max(levels):.2f} levels on average")
    return f"pixels differ from the photographs' by {np.mean(levels):.2f} levels on average"


def size_rows(betons: dict[str, Path], photos: Photos) -> list[Row]:
    """Return the bytes of each result; FFCV's and ours are compared with the files."""
    count = len(photos.originals)
    values = {"the files themselves": [sum(len(each.content) for each in photos.originals)]}
    for way, beton in betons.items():
        if not way.endswith("--verify"):
            storage = BetonStorage(beton)
            values[way] = [sum(storage.read(sample).data.nbytes for sample in range(count))]
    values = {way: [one / count / 1e3 for one in each] for way, each in values.items()}
    return rows_of(
        values,
        unit="kB an image",
        against="the files themselves",
        higher_is_better=False,
        section=SIZE,
    )


def reading_rows(outs: dict[str, Path], options: Any) -> list[Row]:  # noqa: ANN401 - argparse's
    """Return how fast each result is read."""
    loaders: dict[str, tuple[Loader, Int64]] = {}
    for way, out in outs.items():
        if way.endswith("--verify"):
            continue
        split = open_dataset(out).split("train")
        crops = random_resized_crops()
        loader = OurLoader(split, "auto", crops, _READ_BATCH, options.threads)
        # Whole batches: the loader leaves the rest out.
        num_samples = max(1, len(split) // _READ_BATCH) * _READ_BATCH
        loaders[way] = loader, np.resize(np.arange(len(split)), num_samples)

    def read(loader: Loader, samples: Int64) -> Callable[[], None]:
        def run() -> None:
            for _ in loader.batches(samples):
                pass

        return run

    try:
        cases = [
            Case(way, timed(len(samples), read(loader, samples)))
            for way, (loader, samples) in loaders.items()
        ]
        values = interleaved(cases, repeats=options.repeats)
    finally:
        for loader, _ in loaders.values():
            loader.close()
    return rows_of(values, unit="images/s", against="fastssd keep", section=READING)


if __name__ == "__main__":
    sys.exit(main())
