r"""Convert a made dataset of iNaturalist 2018's shape, and time it, its opening, and its memory.

The tree has 8,142 class folders and 437,513 JPEG files of 32 x 32 pixels, with the dataset's
largest class, 1,000, and smallest, 2. Classes have different pictures, but images of a class are
hard links to few files: the sizes say what an index costs, not what photographs do. It is made in
a temporary folder and removed.

    python benchmarks/inat_shape.py --json inat_shape.json [--folder /scratch] [--fraction 0.1]
"""

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PROJECT = Path(__file__).resolve().parents[1]
TOOL = PROJECT / "tools" / "convert_dataset.py"

NUM_CLASSES, NUM_IMAGES, LARGEST, SMALLEST = 8_142, 437_513, 1_000, 2
SIDE = 32
FILES_A_CLASS = 2

# Runs in a process of its own, whose peak memory is that of the conversion alone.
_CONVERT = """
import json, resource, runpy, sys, threading, time
path, report, sys.argv = sys.argv[1], sys.argv[2], sys.argv[1:2] + sys.argv[3:]
anonymous = 0
def watch():
    global anonymous
    while True:
        with open("/proc/self/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        anonymous = max(anonymous, int(lines["RssAnon"].split()[0]))
        time.sleep(0.2)
threading.Thread(target=watch, daemon=True).start()
code = 0
try:
    runpy.run_path(path, run_name="__main__")
except SystemExit as stop:
    code = stop.code
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open(report, "w") as file:
    json.dump({"peak": peak * 1024, "anonymous": anonymous * 1024}, file)
sys.exit(code)
"""

_OPEN = """
import sys, time
started = time.perf_counter()
from fastssd.data.dataset import open_dataset
imported = time.perf_counter()
split = open_dataset(sys.argv[1]).split("train")
opened = time.perf_counter()
split.storage.read(len(split) // 2)
print(imported - started, opened - imported, len(split), len(split.counts))
"""


def class_sizes(fraction: float) -> list[int]:
    """Return the images of each class: a power law between the published ends and in sum.

    Args:
        fraction: Of the classes; 1 is the published shape.
    """
    num_classes = max(2, round(NUM_CLASSES * fraction))
    wanted = round(NUM_IMAGES * num_classes / NUM_CLASSES)
    ranks = np.linspace(0, 1, num_classes)
    low, high = 0.01, 100.0  # the exponent: the larger, the fewer images
    for _ in range(100):
        middle = (low + high) / 2
        sizes = SMALLEST + (LARGEST - SMALLEST) * (1 - ranks) ** middle
        low, high = (middle, high) if np.floor(sizes).sum() > wanted else (low, middle)
    counts = np.floor(sizes).astype(int)
    counts[1 : 1 + wanted - counts.sum()] += 1
    return [int(count) for count in counts]


def make_tree(root: Path, sizes: list[int]) -> int:
    """Write the tree and return the bytes that its files have together, links counted as files."""
    random = np.random.default_rng(0)
    num_bytes = 0
    for label, size in enumerate(sizes):
        folder = root / "train" / f"{label:05d}_species"
        folder.mkdir(parents=True)
        for i in range(size):
            file = folder / f"{label:05d}{i:027d}.jpg"  # names as long as iNaturalist's
            if i < FILES_A_CLASS:
                buffer = io.BytesIO()
                small = random.integers(0, 256, (4, 4, 3)).astype(np.uint8)
                large = Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
                large.save(buffer, "JPEG", quality=75)
                file.write_bytes(buffer.getvalue())
                lengths = len(buffer.getvalue())
                first = file
            else:
                os.link(first, file)
            num_bytes += lengths
    return num_bytes


def measure(folder: Path, source: Path, format: str) -> dict[str, float]:
    """Convert into one format, open it, and return what that took."""
    out, report = folder / f"out-{format}", folder / "report.json"
    command = [sys.executable, "-c", _CONVERT, str(TOOL), str(report), str(source), str(out)]
    started = time.perf_counter()
    subprocess.run(
        [*command, "--format", format], check=True, cwd=PROJECT, stdout=subprocess.DEVNULL
    )
    seconds = time.perf_counter() - started
    memory = json.loads(report.read_text(encoding="utf-8"))
    opened = [
        [
            float(value)
            for value in subprocess.run(
                [sys.executable, "-c", _OPEN, str(out)],
                check=True,
                cwd=PROJECT,
                capture_output=True,
                text=True,
            ).stdout.split()
        ]
        for _ in range(5)
    ]
    result = {
        "conversion": seconds,
        "peak": memory["peak"] / 1e6,
        "anonymous": memory["anonymous"] / 1e6,
        "meta": (out / "meta.json").stat().st_size / 1e6,
        "files": sum(file.stat().st_size for file in out.iterdir()) / 1e6,
        "import": statistics.median(row[0] for row in opened),
        "opening": statistics.median(row[1] for row in opened),
        "slowest opening": max(row[1] for row in opened),
    }
    shutil.rmtree(out)
    return result


def main() -> int:
    """Make the tree, measure each format, print and write the figures."""
    options = _parser().parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fastssd-inat-shape-", dir=options.folder))
    rows: list[dict[str, Any]] = []
    try:
        sizes = class_sizes(options.fraction)
        started = time.perf_counter()
        num_bytes = make_tree(folder / "source", sizes)
        print(
            f"{len(sizes):,} folders, {sum(sizes):,} files, {num_bytes / 1e6:,.0f} MB, made in "
            f"{time.perf_counter() - started:.0f} s",
            flush=True,
        )
        for format in options.formats:
            result = measure(folder, folder / "source", format)
            for what, value in result.items():
                seconds = what in ("conversion", "import", "opening", "slowest opening")
                unit = "s" if seconds else "MB"
                rows.append({"name": f"fastssd {format} {what}", "value": value, "unit": unit})
                print(f"{format:<10} {what:<16} {value:10.3f} {unit}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        environment = {
            "classes": len(sizes),
            "images": sum(sizes),
            "cores": len(os.sched_getaffinity(0)),
            "load_average": os.getloadavg(),
            "machine": platform.machine(),
            "python": platform.python_version(),
        }
        content = {"environment": environment, "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="where there is room (default: the system's)")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the classes (default: 1)")
    parser.add_argument(
        "--formats", nargs="+", default=["memory", "ffcv", "webdataset"], metavar="FORMAT"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
