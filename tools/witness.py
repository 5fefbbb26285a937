"""Show that a change left training as it was: run two checkouts and compare bits.

    python tools/witness.py BEFORE AFTER [--json FILE] [--only TEXT]

BEFORE and AFTER are two checkouts of fastssd with their native kernels built, such as a second
worktree at an older commit and this one. Each trains SSD, CE and LWS on small digits: one and two
processes, rotation and instance discrimination, the teacher from a table, online and from its
top logits, float32 and bfloat16. For each stage the digests of draws and pixels, the losses of
every step and the final weights are compared. Exit code 0: all equal; 1: something differs.

Bits repeat only on one machine, so both checkouts run here, one after the other.
"""

import argparse
import hashlib
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = {"imbalance": 8, "max_per_class": 40, "val_per_class": 3}
TEACHERS = ("table", "online", "topk")
STAGES = ("SSD I", "SSD II", "SSD III", "SSD IV", "CE", "LWS")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run.

    Attributes:
        processes: That train it.
        task: Self-supervised task of stage I.
        teacher: Where stage III's soft labels come from.
        precision: `no` or `bf16`.
    """

    processes: int
    task: str
    teacher: str
    precision: str

    def __str__(self) -> str:
        return f"{self.processes}-{self.task}-{self.teacher}-{self.precision}"


CASES = [
    Case(processes=processes, task=task, teacher=teacher, precision=precision)
    for processes, task, teacher, precision in itertools.product(
        (1, 2), ("rotation", "instance"), TEACHERS, ("no", "bf16")
    )
]


class Stages:
    """How a checkout from before the graph of stages is asked for a case."""

    folders = ("1-features", "2-balance", "3-distill", "4-balance", "baseline-ce", "baseline-lws")
    recipe = """
output: unset
data: {path: unset, threads: 1, validation: val, decoder: torchvision}
augment: {size: 8, mean: [0.3, 0.3, 0.3], std: [0.4, 0.4, 0.4], query: digits, test: whole}
model: {backbone: resnet8}
deterministic: true
compute_threads: 1
features: {epochs: 2, batch_size: 32, lr: 0.02, queue: 64, embedding: 16}
balance: {epochs: 2, batch_size: 32}
distill: {epochs: 2, batch_size: 32, lr: 0.02}
log: {every: 2, trace: true}
"""

    @staticmethod
    def overrides(case: Case) -> list[str]:
        """Return the command line's part of a case."""
        teacher = {
            "table": [],
            "online": ["distill.teacher=online"],
            "topk": ["frozen.store=topk", "frozen.topk=4"],
        }[case.teacher]
        return [f"features.task={case.task}", f"precision={case.precision}", *teacher]


class GraphOfStages:
    """How a checkout with methods as files is asked for a case."""

    folders = ("ssd-I", "ssd-II", "ssd-III", "ssd-IV", "ce", "lws")
    recipe = """
output: unset
data: {path: unset, threads: 1, validation: val, decoder: torchvision}
augment: {size: 8, mean: [0.3, 0.3, 0.3], std: [0.4, 0.4, 0.4], train: digits, test: whole}
model: {backbone: resnet8}
deterministic: true
compute_threads: 1
budgets:
  scratch: {epochs: 2, batch_size: 32, lr: 0.02}
  classifier: {epochs: 2, batch_size: 32}
log: {every: 2, trace: true}
"""

    @staticmethod
    def overrides(case: Case) -> list[str]:
        """Return the command line's part of a case.

        Before, stages II and III kept to the table's views also where they read none: `bind` says
        so here.
        """
        teacher = {
            "table": [],
            "online": ["ssd.III.reads=images", "ssd.III.bind=T"],
            "topk": ["ssd.II.reads=plan", "ssd.II.bind=S", "ssd.III.reads=S", "tables.topk=4"],
        }[case.teacher]
        task = f"ssd.I.task={{kind: {case.task}}}"
        if case.task == "instance":
            task = "ssd.I.task={kind: instance, queue: 64, embedding: 16}"
        return [task, f"precision={case.precision}", *teacher]


LANGUAGES = [Stages, GraphOfStages]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two checkouts, or run the cases of one (`--run`, used by this script itself)."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--only", default="", help="cases whose name has this text: 2-rotation")
    parser.add_argument("--json", type=Path, help="where the table is written")
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.run:
        return run_cases(options.before, options.after, options.only)
    with tempfile.TemporaryDirectory() as temporary:
        root = options.keep or Path(temporary)
        found = {}
        for side in ("before", "after"):
            checkout = getattr(options, side).resolve()
            found[side] = asked(checkout, root.resolve() / side, options.only)
    return compared(found["before"], found["after"], options.json)


def asked(checkout: Path, out: Path, only: str) -> dict[str, Any]:
    """Run the cases in a process that imports the checkout's fastssd; return their digests."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, __file__, str(checkout), str(out), "--run", "--only", only]
    subprocess.run(command, check=True, cwd=checkout, env=environment)
    digests: dict[str, Any] = json.loads((out / "digests.json").read_text(encoding="utf-8"))
    return digests


def run_cases(checkout: Path, out: Path, only: str) -> int:
    """Train every case in forked processes of this one, which has imported torch once."""
    out.mkdir(parents=True, exist_ok=True)
    children_of(lambda rank: _convert(out / "digits"), 1)

    import fastssd.train

    assert Path(fastssd.__file__).is_relative_to(checkout.resolve()), fastssd.__file__
    language = LANGUAGES[-1] if (checkout / "configs" / "methods").is_dir() else LANGUAGES[0]
    recipe = out / "recipe.yaml"
    recipe.write_text(language.recipe, encoding="utf-8")
    digests: dict[str, Any] = {}
    for case in CASES:
        if only not in str(case):
            continue
        output = out / str(case)
        command = [str(recipe), f"data.path={out / 'digits'}", f"output={output}"]
        command += language.overrides(case)
        codes = children_of(lambda rank, it=command: _train(it), case.processes)
        if codes != [0] * case.processes:
            print(f"{case}: exit codes {codes}, see {output}.log", file=sys.stderr)
            return 1
        digests[str(case)] = {
            stage: digest_of(output / folder)
            for stage, folder in zip(STAGES, language.folders, strict=True)
        }
        print(f"{checkout.name}: {case}", flush=True)
    (out / "digests.json").write_text(json.dumps(digests), encoding="utf-8")
    return 0


def children_of(work: Any, num_processes: int) -> list[int]:  # noqa: ANN401 - rank -> exit code
    """Return the exit codes of forked processes that do the work of each rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = []
    for rank in range(num_processes):
        pid = os.fork()
        if not pid:
            os.environ["ACCELERATE_USE_CPU"] = "true"
            if num_processes > 1:
                os.environ |= {
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(num_processes),
                    "LOCAL_WORLD_SIZE": str(num_processes),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    "GLOO_SOCKET_IFNAME": "lo",
                }
            os._exit(work(rank))
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def _convert(path: Path) -> int:
    from fastssd.data.convert import convert
    from fastssd.data.sources.sources import open_source

    if not path.exists():
        convert(open_source("digits"), path, **DATA)
    return 0


def _train(command: list[str]) -> int:
    import fastssd.train

    output = next(text.partition("=")[2] for text in command if text.startswith("output="))
    log = os.open(f"{output}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    return fastssd.train.main(command)


def digest_of(folder: Path) -> dict[str, str]:
    """Return the digests of a stage's draws and pixels, of its losses, and of its weights."""
    from safetensors import safe_open

    lines = [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]
    with safe_open(folder / "weights.safetensors", framework="np") as weights:
        # By what they hold, not by their names: a refactoring may rename a module.
        tensors = sorted(
            hashlib.sha256(f"{tensor.dtype} {tensor.shape}".encode() + tensor.tobytes()).hexdigest()
            for tensor in map(weights.get_tensor, weights.keys())
        )
    rows = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return {
        "draws": _sha256([line["digest"] for line in lines]),
        "losses": _sha256([line["loss"] for line in lines]),
        "weights": _sha256(tensors),
        "rows": _sha256(sorted(row["correct"] for row in _rows(rows))),
    }


def _rows(result: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - JSON of either checkout
    """Yield the rows of a stage's result, wherever they stand in it."""
    if isinstance(result, dict):
        if "correct" in result:
            yield result
        for value in result.values():
            yield from _rows(value)
    elif isinstance(result, list):
        for value in result:
            yield from _rows(value)


def _sha256(value: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def compared(before: dict[str, Any], after: dict[str, Any], path: Path | None) -> int:
    """Print a line for each case, naming what differs, and return the exit code."""
    rows = []
    for case in before:
        differing = [
            f"{stage}: {', '.join(names)}"
            for stage in STAGES
            if (names := _differing(before[case][stage], after[case][stage]))
        ]
        rows.append({"case": case, "equal": not differing, "differing": differing})
        print(f"{case:28} {'equal' if not differing else '; '.join(differing)}")
    num_equal = sum(bool(row["equal"]) for row in rows)
    print(f"{num_equal} of {len(rows)} cases equal, {len(STAGES)} stages each")
    if path is not None:
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(num_equal < len(rows))


def _differing(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [name for name in before if before[name] != after[name]]


if __name__ == "__main__":
    sys.exit(main())
