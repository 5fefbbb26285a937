"""Kill runs at points chosen by seed, start them again, and compare their ends bit for bit.

    python tools/fault_points.py [--points 50] [--processes 1] [--seed 0] [--methods ce,ssd]
                                 [--json FILE]

The run is every method (or those named) on 8 x 8 digits, two epochs a stage. A point is either a
*place*: the n-th of all steps, batches and operations on files of the run directory, which may
leave a half-written file behind; or a *moment*: so many seconds after the start. The processes
are forked from this one, which has imported everything: a run takes seconds.
"""

import argparse
import json
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from fault_places import Point, count_places

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

METHODS = "ce,lws,crt,tau_norm,ncm,la_posthoc,balanced_softmax,ldam_drw,ssd"
RECIPE = """
output: unset
data: {path: unset, threads: 1, validation: val, decoder: torchvision}
augment: {size: 8, mean: [0.3, 0.3, 0.3], std: [0.4, 0.4, 0.4], train: digits, test: whole}
model: {backbone: resnet8}
deterministic: true
compute_threads: 1
budgets:
  scratch: {epochs: 2, batch_size: 32, lr: 0.02}
  classifier: {epochs: 2, batch_size: 32}
options:
  ssd.I.task: {kind: instance, queue: 64, embedding: 16}
  ldam_drw.model.class_weights.from: 0.5   # of two epochs
log: {every: 2, trace: true}
evaluation: {batch_size: 64}
watchdog: 60
"""
TIMING = ("images_per_second", "data_wait_percent")
LONGEST = 240.0
"""Seconds after which a process counts as hung."""


@dataclass(kw_only=True)
class Outcome:
    """What became of a point.

    Attributes:
        point: The point.
        at: What the killed process was about to do.
        stage: Stage that the run's status named.
        codes: Exit codes of the processes of the killed run.
        differences: Of the resumed run's end from that of the run that was left alone.
    """

    point: Point
    at: str
    stage: str | None
    codes: list[int]
    differences: list[str] = field(default_factory=list)


class Runner:
    """Runs `train.main` in forked processes.

    Args:
        root: Folder of everything.
        num_processes: Of a run.
        overrides: Of the recipe.
    """

    def __init__(
        self, root: Path, num_processes: int, overrides: Sequence[str] = (f"methods=[{METHODS}]",)
    ) -> None:
        self._root = root
        self._num_processes = num_processes
        self._overrides = overrides
        self._recipe = root / "recipe.yaml"
        self._recipe.write_text(RECIPE, encoding="utf-8")
        self._data = root / "digits"
        if not self._data.exists():
            assert self._in_children(lambda rank: self._convert(), 1) == [0]

    def run(self, output: Path, point: Point | None = None) -> list[int]:
        """Run to the end or to the point; return exit codes, negative for a signal."""
        places = (f"data.path={self._data}", f"output={output}")
        arguments = [str(self._recipe), *places, *self._overrides]

        def train(rank: int) -> int:
            import fastssd.train

            count_places(output, point if point and point.rank in (None, rank) else None, rank)
            return fastssd.train.main(arguments)

        return self._in_children(train, self._num_processes, point)

    def _convert(self) -> int:
        from fastssd.data.convert import convert
        from fastssd.data.sources.sources import open_source

        convert(open_source("digits"), self._data, imbalance=8, max_per_class=40, val_per_class=3)
        return 0

    def _in_children(self, work, num_processes: int, point: Point | None = None) -> list[int]:  # noqa: ANN001
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        children = []
        for rank in range(num_processes):
            child = os.fork()
            if not child:
                self._child(work, rank, num_processes, port)
            children.append(child)
        return _ends(children, point)

    def _child(self, work, rank: int, num_processes: int, port: str) -> None:  # noqa: ANN001
        log = os.open(self._root / f"log.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if num_processes > 1:
            os.environ.update(
                ACCELERATE_USE_CPU="true",
                GLOO_SOCKET_IFNAME="lo",
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
                WORLD_SIZE=str(num_processes),
                LOCAL_WORLD_SIZE=str(num_processes),
                RANK=str(rank),
                LOCAL_RANK=str(rank),
            )
        code = 1
        try:
            code = work(rank)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _ends(children: list[int], point: Point | None) -> list[int]:
    """Wait for children, killing them at the point's moment, and return their exit codes."""
    started = time.monotonic()
    codes: dict[int, int] = {}
    moment = point.seconds if point else None
    while len(codes) < len(children):
        for rank, child in enumerate(children):
            if rank not in codes:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    codes[rank] = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        hung = seconds > LONGEST
        if hung or (moment is not None and seconds > moment):
            for rank, child in enumerate(children):
                if rank not in codes and (hung or not point or point.rank in (None, rank)):
                    os.kill(child, signal.SIGKILL)
            moment = None
            if hung:
                raise TimeoutError(f"a process did not end in {LONGEST:.0f} s ({point})")
        time.sleep(0.002)
    return [codes[rank] for rank in range(len(children))]


def differences(run: Path, reference: Path) -> list[str]:
    """Return in what two finished runs differ: weights, rows, logs without times, tables' blocks.

    Every folder of a stage or table is compared, and that both runs have the same ones.
    """
    readers: dict[str, Callable[[Path], object]] = {
        "weights.safetensors": Path.read_bytes,
        "best.safetensors": Path.read_bytes,
        "metrics.jsonl": _lines,
        "trace.jsonl": _lines,
        "result.json": _rows,
        "manifest.json": lambda path: json.loads(path.read_text())["checksums"],
        "report.json": _rows,
    }
    found = []
    for name in sorted(_files(run, readers) | _files(reference, readers)):
        ours, theirs = run / name, reference / name
        if not (ours.exists() and theirs.exists()):
            found.append(f"{name} is in one of them alone")
            continue
        read = readers[ours.name]
        if read(ours) != read(theirs):
            found.append(name)
    return found


def _files(run: Path, names: Iterable[str]) -> set[str]:
    return {str(path.relative_to(run)) for name in names for path in run.rglob(name)}


def _rows(path: Path) -> object:
    content = json.loads(path.read_text())
    return content["rows"], content.get("sweep")


def _lines(path: Path) -> list[dict]:
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{key: line[key] for key in line if key not in TIMING} for line in found]


def choose(num_points: int, *, places: Sequence[int], seconds: float, seed: int) -> list[Point]:
    """Return points by seed: three of five are places, the others moments.

    Args:
        num_points: How many.
        places: That each process comes by.
        seconds: That a run takes.
        seed: Other points for another.
    """
    random = np.random.default_rng(seed)
    points = []
    for number in range(num_points):
        rank = int(random.integers(len(places)))
        if number % 5 < 3:
            # A place of one process: the others find out by themselves.
            place = int(random.integers(places[rank]))
            points.append(Point(place=place, torn=float(random.random()), rank=rank))
        else:
            moment = float(random.uniform(0, seconds))
            points.append(Point(seconds=moment, rank=rank if random.random() < 0.5 else None))
    return points


def try_point(runner: Runner, root: Path, reference: Path, point: Point) -> Outcome:
    """Kill a new run at a point, start it again, and compare its end."""
    output = root / "killed"
    for old in (output, *root.glob("killed.places.*")):
        _remove(old)
    codes = runner.run(output, point)
    while point.seconds and not any(codes):  # faster than the run that the moment was chosen on
        point = replace(point, seconds=0.7 * point.seconds)
        _remove(output)
        codes = runner.run(output, point)
    status = output / "status.json"
    stage = json.loads(status.read_text())["stage"] if status.exists() else None
    records = [path.read_text() for path in root.glob("killed.places.*")]
    at = next((text for text in records if not text.isdigit()), "a moment")
    outcome = Outcome(point=point, at=at.replace(str(output), "RUN"), stage=stage, codes=codes)
    if not any(codes):
        outcome.differences.append("was not killed")
    again = runner.run(output)
    if any(again):
        log = (root / "log.0").read_text()[-500:]
        outcome.differences.append(f"ended with {again} when started again: {log}")
    else:
        outcome.differences += differences(output, reference)
    return outcome


def _remove(path: Path) -> None:
    if path.is_dir():
        for entry in path.iterdir():
            _remove(entry)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the points that the command line asks for; return 1 if any end differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", default=METHODS, help=f"of a run (default: {METHODS})")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    import torch._inductor  # noqa: F401 - imported by the first backward pass

    import fastssd.evaluation.figures
    import fastssd.runtime.session
    import fastssd.train  # noqa: F401 - all of it before any process is forked
    from fastssd.native.library import library

    library()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        runner = Runner(root, options.processes, [f"methods=[{options.methods}]"])
        started = time.monotonic()
        codes = runner.run(root / "reference")
        seconds = time.monotonic() - started
        if any(codes):
            print((root / "log.0").read_text())
            return 1
        places = [
            int((root / f"reference.places.{rank}").read_text())
            for rank in range(options.processes)
        ]
        print(f"left alone: {seconds:.1f} s, {places} places of the processes")
        points = choose(
            options.points,
            places=places,
            seconds=seconds,
            seed=options.seed,
        )
        outcomes = []
        for number, point in enumerate(points):
            outcome = try_point(runner, root, root / "reference", point)
            outcomes.append(outcome)
            verdict = "; ".join(outcome.differences) or "same bits"
            print(
                f"{number + 1}/{len(points)} {outcome.stage} {outcome.at} {outcome.codes}: "
                f"{verdict}",
                flush=True,
            )
    good = sum(not outcome.differences for outcome in outcomes)
    print(f"{good} of {len(outcomes)} ended bit-identical; stages:", end=" ")
    print(dict(Counter(str(outcome.stage) for outcome in outcomes)))
    if options.json:
        content = {
            "processes": options.processes,
            "seed": options.seed,
            "methods": options.methods.split(","),
            "seconds_of_a_run": seconds,
            "places": places,
            "identical": good,
            "points": [asdict(outcome) for outcome in outcomes],
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int(good < len(outcomes))


if __name__ == "__main__":
    sys.exit(main())
