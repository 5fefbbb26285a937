"""Tables at iNaturalist 2018's scale: bytes, reading, kills, and what a step with them costs.

The first part makes a table of 437,513 images and 8,142 classes, one view each of `topk` and of
`features`, by a stand-in teacher (table_stand_in.py), once undisturbed and once in a process that
is killed three times by SIGKILL and started again; the checksums of all blocks must be equal. It
needs 4 GB of disk below --folder.

The second part times whole steps of stage III from each table, its rows read within the step,
against plain cross-entropy's step and against a step with an online teacher: ResNet-18, 64 x 64
pixels, batch 256, 8,142 classes.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __spec__ is None:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    sys.path.insert(1, str(Path(__file__).resolve().parent))

import numpy as np
import torch
from harness import OURS, Benchmark, Case, Row, Target, interleaved, judged, quartiles, rows_of
from photographs import photographs
from table_stand_in import WIDTH, table_of
from torch.nn import functional as F

from fastssd.augment.augmentation import AugmentedViews
from fastssd.config import ModelConfig
from fastssd.data.draws import Draws
from fastssd.losses.distillation import TopLogits, top_distillation_loss
from fastssd.methods.batch import Batch, Moment
from fastssd.methods.distill import Distill
from fastssd.methods.method import Method, Parts
from fastssd.methods.options import DistillOptions, SupervisedOptions
from fastssd.methods.supervised import Supervised
from fastssd.models.backbones import build_backbone
from fastssd.models.heads import ClassScale, LinearHead
from fastssd.models.networks import BalancedNetwork, FrozenNetwork
from fastssd.models.seeding import seeded
from fastssd.tables.manifest import MANIFEST, read_manifest
from fastssd.tables.table import Table, table_files
from fastssd.training.batches import finished

NUM_SAMPLES, NUM_CLASSES, TOPK_BYTES = 437_513, 8142, 150_000_000
BATCH, SIZE = 256, 64
_KILLS = 3
_POOL, _LEAST_POOL, _POOL_PIXELS = 128, 32, 96
_SCALE, _STEP = "437,513 x 8,142", "a step"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both parts, or one."""
    benchmark = Benchmark("tables", "Tables of a frozen teacher at iNaturalist 2018's scale.")
    parser = benchmark.parser()
    parser.add_argument("--folder", type=Path, help="where 4 GB of tables may lie for a while")
    parser.add_argument("--only", choices=["scale", "step"], help="one of the two parts")
    options = parser.parse_args(arguments)
    num_samples = 60_000 if options.quick else NUM_SAMPLES
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="fastssd-tables-") as name:
        folder = Path(name)
        np.save(folder / "pool.npy", _pool(options.data))
        rows: list[Row] = []
        if options.only != "step":
            rows += _at_scale(folder, num_samples)
        if options.only != "scale":
            rows += _steps(folder, options)
    rows = judged(
        rows,
        [
            Target(f"{OURS} topk, bytes", at_most=150, section=_SCALE),
            Target(f"{OURS} topk, peak memory", at_most=2000, section=_SCALE),
            Target(f"{OURS} features, peak memory", at_most=2000, section=_SCALE),
            Target(f"{OURS} stage III, topk table", "plain CE", at_most=1.05, section=_STEP),
        ],
    )
    sections = {
        _SCALE: f"One view of {num_samples:,} images; fp16. Killed {_KILLS} times by SIGKILL and "
        "started again: all blocks equal to an undisturbed table's.",
        _STEP: f"ResNet-18, {SIZE} px, batch {BATCH}, {NUM_CLASSES:,} classes, SGD; the table's "
        "rows are read within the step (in training, loader threads read them ahead).",
    }
    return benchmark.finish(rows, options, sections, compute_threads=torch.get_num_threads())


def _pool(data: Path | None) -> np.ndarray:
    """Return (n, 2048) float32 features of photographs by a ResNet-50, standardised.

    Where photographs are few, of each and of random parts of it.
    """
    found = photographs(data, count=_POOL)
    random = np.random.default_rng(0)
    pixels = []
    for photograph in found:
        whole = photograph.pixels()
        for number in range(-(-_LEAST_POOL // len(found))):
            part = _part(whole, random) if number else whole
            image = torch.from_numpy(part.copy()).permute(2, 0, 1)[None].float() / 255
            pixels.append(F.interpolate(image, size=(_POOL_PIXELS, _POOL_PIXELS), mode="area"))
    backbone = build_backbone("torchvision/resnet50", seed=0).eval()
    with torch.no_grad():
        features = torch.cat([backbone(part) for part in torch.cat(pixels).split(32)])
    features = (features - features.mean(dim=0)) / (features.std(dim=0) + 1e-6)
    return features.clamp(-3, 3).numpy()


def _part(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return a random part of an image, of half its height and width at least."""
    height, width = (int(np.ceil(side * random.uniform(0.5, 1))) for side in pixels.shape[:2])
    y, x = (
        random.integers(pixels.shape[0] - height + 1),
        random.integers(pixels.shape[1] - width + 1),
    )
    return pixels[y : y + height, x : x + width]


def _at_scale(folder: Path, num_samples: int) -> list[Row]:
    rows = []
    for kind in ("topk", "features"):
        sizes = [num_samples, NUM_CLASSES, TOPK_BYTES * num_samples // NUM_SAMPLES]
        command = [sys.executable, str(Path(__file__).with_name("table_stand_in.py"))]
        command += [str(folder), kind, *map(str, sizes)]
        straight = _finished(command)
        sums = read_manifest(folder / kind / MANIFEST)["checksums"]
        shutil.rmtree(folder / kind)
        began = time.perf_counter()
        kills = [_killed(command, folder / kind, share) for share in (0.2, 0.5, 0.8)]
        resumed = _finished(command)
        seconds = time.perf_counter() - began
        again = read_manifest(folder / kind / MANIFEST)
        if again["checksums"] != sums:
            raise SystemExit(f"{kind}: the table of killed processes has other bits")
        files = table_files(folder / kind, again)
        damaged = [b for b in range(files.num_blocks) if files.damaged(b, _sums_of(again, b))]
        if damaged:
            raise SystemExit(f"{kind}: blocks {damaged} are damaged")
        k = f", k={again['k']}" if kind == "topk" else ""
        note = f"killed with {', '.join(map(str, kills))} of {files.num_blocks} blocks noted"
        peak = max(straight["peak_bytes"], resumed["peak_bytes"]) / 1e6
        name = f"{OURS} {kind}"
        rows += [
            _row(f"{name}, bytes", [straight["bytes"] / 1e6], "MB", note=f"one view{k}"),
            _row(f"{name}, rows read at random", straight["rows_per_second"], "rows/s"),
            _row(
                f"{name}, peak memory", [peak], "MB", note="of the process, mapped pages included"
            ),
            _row(f"{name}, made", [straight["seconds"]], "s"),
            _row(f"{name}, made with {_KILLS} kills", [seconds], "s", note=note),
        ]
        shutil.rmtree(folder / kind)
    return rows


def _sums_of(manifest: dict[str, dict[str, list[str]]], block: int) -> dict[str, str]:
    return {name: sums[block] for name, sums in manifest["checksums"].items()}


def _finished(command: list[str]) -> dict[str, float | list[float]]:
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"the process that makes a table ended with {done.returncode}; see above")
    result: dict[str, float | list[float]] = json.loads(done.stdout)
    return result


def _killed(command: list[str], directory: Path, share: float) -> int:
    """Kill the process once this share of the blocks is noted; return how many were."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while True:
        if process.poll() is not None:
            raise SystemExit("the table was finished before it could be killed")
        noted = sum(path.read_bytes().count(b"\n") for path in directory.glob("blocks-*.jsonl"))
        draft = directory / "unfinished.json"
        if noted and draft.exists() and noted >= share * _num_blocks(draft):
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return noted


def _num_blocks(draft: Path) -> int:
    manifest = read_manifest(draft)
    return -(-manifest["num_rows"] // manifest["block_rows"])


def _row(name: str, values: list[float], unit: str, note: str = "") -> Row:
    full = f"{name}, {_SCALE}"
    median = float(np.median(values))
    return Row(
        name=full, value=median, unit=unit, spread=quartiles(values), section=_SCALE, note=note
    )


def _steps(folder: Path, options: argparse.Namespace) -> list[Row]:
    """Time steps of plain cross-entropy, and of stage III from each kind of teacher."""
    num_samples = 2 * BATCH if options.quick else 20_000
    k_bytes = num_samples * (TOPK_BYTES // NUM_SAMPLES)
    tables = {
        kind: table_of(folder, kind, num_samples, NUM_CLASSES, k_bytes)
        for kind in ("topk", "features")
    }
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 3, SIZE, SIZE, generator=generator)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(NUM_CLASSES, (BATCH,), generator=generator)
    draws = np.random.default_rng(0)

    def batch(table: Table | None) -> Batch:
        views = AugmentedViews(query=images)
        if table is None:
            return Batch(draws=_NO_DRAWS, labels=labels, views=views)
        samples = draws.integers(0, num_samples, BATCH)
        rows = table.read(Draws(samples, np.zeros_like(samples)))
        said = finished(_NO_DRAWS, {**rows, "labels": labels}, None)
        return Batch(
            draws=_NO_DRAWS,
            labels=labels,
            views=views,
            frozen_features=said.frozen_features,
            soft_labels=said.soft_labels,
        )

    online = _student(_plain().balanced("classifier", batchnorm="frozen").frozen)
    from_features = _student(None, head=_head(WIDTH))
    cases = [
        Case("plain CE", _step(_plain(), lambda: batch(None))),
        Case(
            f"{OURS} stage III, topk table",
            _step(_student(None), lambda: batch(tables["topk"])),
        ),
        Case(
            f"{OURS} stage III, features table",
            _step(from_features, lambda: batch(tables["features"])),
        ),
        Case("stage III, online teacher", _step(online, lambda: batch(None))),
    ]
    values = interleaved(cases, repeats=options.repeats)
    rows = rows_of(values, unit="s", against="plain CE", higher_is_better=False, section=_STEP)
    parts = [
        Case(f"{OURS} topk table: rows and loss", _rows_and_loss(lambda: batch(tables["topk"]))),
        Case("online teacher's forward", _forward(online, images)),
    ]
    values = interleaved(parts, repeats=options.repeats)
    return rows + rows_of(
        values, unit="s", against=parts[1].name, higher_is_better=False, section=_STEP
    )


_NO_DRAWS = Draws(np.zeros(BATCH, np.int64), np.zeros(BATCH, np.int64))
_MOMENT = Moment(epoch=0, epochs=1, step=0, steps_per_epoch=1)


def _plain() -> Supervised:
    return Supervised(SupervisedOptions(), _parts("plain"))


def _student(frozen: FrozenNetwork | None, head: LinearHead | None = None) -> Distill:
    """Return a student of a balanced teacher: a network, or what is left of it beside a table."""
    student = Distill(DistillOptions(), _parts("student", sources={"teacher": _plain()}))
    teacher = BalancedNetwork(frozen, scale=ClassScale(NUM_CLASSES), head=head)
    student.teacher = teacher.frozen_whole()
    return student


def _parts(order: str, **more: Any) -> Parts:  # noqa: ANN401 of Parts
    return Parts(
        seed=0,
        order=order,
        num_classes=NUM_CLASSES,
        counts=np.ones(NUM_CLASSES, np.int64),
        model=ModelConfig(backbone="torchvision/resnet18"),
        **more,
    )


def _head(width: int) -> LinearHead:
    with seeded(0, "teacher"):
        return LinearHead(width, NUM_CLASSES)


def _step(method: Method, batch_of: Callable[[], Batch]) -> Callable[[], float]:
    """Return what makes one training step and returns its seconds."""
    method = method.to(memory_format=torch.channels_last).train()
    learning = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def run() -> float:
        began = time.perf_counter()
        losses = method(batch_of(), _MOMENT).losses
        torch.stack([*losses.values()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - began

    return run


def _rows_and_loss(batch_of: Callable[[], Batch]) -> Callable[[], float]:
    """Return what reads a batch's rows, and makes the soft loss and its gradient."""
    student = torch.randn(BATCH, NUM_CLASSES, requires_grad=True)

    def run() -> float:
        began = time.perf_counter()
        labels = batch_of().soft_labels
        assert isinstance(labels, TopLogits)
        top_distillation_loss(student, labels, temperature=2.0).backward()
        student.grad = None
        return time.perf_counter() - began

    return run


def _forward(student: Distill, images: torch.Tensor) -> Callable[[], float]:
    def run() -> float:
        began = time.perf_counter()
        with torch.no_grad():
            student.teacher(images, None)
        return time.perf_counter() - began

    return run


if __name__ == "__main__":
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    sys.exit(main())
