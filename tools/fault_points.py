"""Kill runs at points chosen by seed, start them again, and compare their ends bit for bit.

    python tools/fault_points.py [--points 50] [--processes 1] [--seed 0] [--json FILE]

The run is all of SSD and its baselines on 8 x 8 digits, two epochs a stage. A point is either a
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
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

RECIPE = """
output: unset
data: {path: unset, threads: 1, validation: val, decoder: torchvision}
augment: {size: 8, mean: [0.3, 0.3, 0.3], std: [0.4, 0.4, 0.4], query: digits, test: whole}
model: {backbone: resnet8}
deterministic: true
compute_threads: 1
features: {task: instance, epochs: 2, batch_size: 32, lr: 0.02, queue: 64, embedding: 16}
balance: {epochs: 2, batch_size: 32}
distill: {epochs: 2, batch_size: 32, lr: 0.02}
log: {every: 2, trace: true}
evaluation: {batch_size: 64}
watchdog: 60
"""
FOLDERS = ("1-features", "2-balance", "3-distill", "4-balance", "baseline-ce", "baseline-lws")
TIMING = ("images_per_second", "data_wait_percent")
_OPERATIONS = ("os.rename", "os.remove", "os.truncate", "os.mkdir", "os.link")
LONGEST = 120.0
"""Seconds after which a process counts as hung."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where a run is killed.

    Attributes:
        place: Number of the place, None for a moment.
        torn: Share of a file that stands there when the place is in its writing.
        seconds: After the start, for a moment.
        rank: The process that is killed; None for all.
    """

    place: int | None = None
    torn: float = 1.0
    seconds: float | None = None
    rank: int | None = None


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

    def __init__(self, root: Path, num_processes: int, overrides: Sequence[str] = ()) -> None:
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

            _count_places(output, point if point and point.rank in (None, rank) else None, rank)
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


def _count_places(output: Path, point: Point | None, rank: int) -> None:
    """Count the places that this process comes by, and kill it at the point's."""
    import fastssd.session

    number = 0
    folder = f"{output}/"
    record = output.with_name(f"{output.name}.places.{rank}")

    def pass_by(what: str, tear=None) -> None:  # noqa: ANN001
        nonlocal number
        if point and point.place == number:
            if tear:
                tear()
            record.write_text(what, encoding="utf-8")
            os.kill(os.getpid(), signal.SIGKILL)
        number += 1

    def audit(event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            if not isinstance(path, str) or not path.startswith(folder):
                return
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                appends = isinstance(mode, str) and "a" in mode
                pass_by(f"open {path}", (lambda: _append_half_a_line(path)) if appends else None)
        elif event in _OPERATIONS and str(arguments[0]).startswith(folder):
            pass_by(f"{event} {arguments[0]}")

    def fsync(descriptor: int, real=os.fsync) -> None:  # noqa: ANN001
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if name.startswith(folder):
            is_new = ".partial" in name

            def tear() -> None:
                if is_new:
                    size = os.fstat(descriptor).st_size
                    os.truncate(name, int(point.torn * size) if point else size)

            pass_by(f"fsync {name}", tear)
        real(descriptor)

    def asked(session, real=fastssd.session.Session._asked_of_us) -> int:  # noqa: ANN001
        pass_by("a step or batch")
        return real(session)

    sys.addaudithook(audit)
    os.fsync = fsync
    fastssd.session.Session._asked_of_us = asked
    main = fastssd.train._run_claimed

    def run(*arguments) -> int:  # noqa: ANN002
        code = main(*arguments)
        if point is None:
            record.write_text(str(number), encoding="utf-8")
        return code

    fastssd.train._run_claimed = run


def _append_half_a_line(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, b'{"kind": "train", "epo')
    os.close(descriptor)


def differences(run: Path, reference: Path) -> list[str]:
    """Return in what two finished runs differ: weights, logs without times, counts."""
    files = [
        (f"{folder}/{name}", read)
        for folder in FOLDERS
        if (reference / folder).exists()
        for name, read in (
            ("weights.safetensors", Path.read_bytes),
            ("best.safetensors", Path.read_bytes),
            ("metrics.jsonl", _lines),
            ("trace.jsonl", _lines),
        )
    ]
    found = [name for name, read in files if read(run / name) != read(reference / name)]
    rows = [json.loads((each / "report.json").read_text())["rows"] for each in (run, reference)]
    return found + (["report.json"] if rows[0] != rows[1] else [])


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
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    import torch._inductor  # noqa: F401 - imported by the first backward pass

    import fastssd.evaluation.figures
    import fastssd.session
    import fastssd.train  # noqa: F401 - all of it before any process is forked
    from fastssd.native.library import library

    library()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        runner = Runner(root, options.processes)
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
            "seconds_of_a_run": seconds,
            "places": places,
            "identical": good,
            "points": [asdict(outcome) for outcome in outcomes],
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int(good < len(outcomes))


if __name__ == "__main__":
    sys.exit(main())
