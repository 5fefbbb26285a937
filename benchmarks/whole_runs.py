r"""Measure whole runs of SSD, stages I to IV: with a table of K views, and with an online teacher.

Every run is the command that users run, from importing PyTorch to the report, on CIFAR-10-LT
(imbalance 100, at most 2,000 a class) with a ResNet-8; without --data on scikit-learn's digits.
Stage I is the same in all; what differs is how often the frozen network is asked.

    python benchmarks/whole_runs.py [--data CIFAR10_FOLDER] [--json FILE]
"""

import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from harness import Benchmark, Case, interleaved, num_cores, rows_of

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "cifar10_lt_resnet8.yaml"
VIEWS = (1, 2, 4)
WHOLE, TEACHER = "whole run", "teacher"
SECTIONS = {
    WHOLE: "Seconds of the whole command.",
    TEACHER: "Of these, what stages II and III take with their tables: all that K changes.",
}
ONLINE = "fastssd online teacher"
_FOLDERS = ("ssd-II", "ssd-III")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the runs in turns."""
    benchmark = Benchmark("whole_runs", "Stages I to IV, whole runs of one command")
    options = benchmark.parser(repeats=3).parse_args(arguments)
    epochs = 1 if options.quick else 8
    teachers = {f"fastssd K = {views}": [f"tables.views={views}"] for views in VIEWS}
    teachers[f"fastssd K = {epochs}, one an epoch"] = ["tables.views=0"]
    teachers[ONLINE] = ["ssd.III.reads=images"]
    of_teacher: dict[str, list[float]] = {name: [] for name in teachers}
    common = [f"budgets.scratch.epochs={epochs}", "budgets.classifier.batch_size=128"]
    common += ["precision=bf16", "methods=[ssd]", *([] if options.data else ["augment.size=8"])]
    with tempfile.TemporaryDirectory(prefix="fastssd-runs-") as name:
        dataset = convert(options.data, Path(name) / "dataset")
        cases = [
            Case(each, run(Path(name), dataset, [*common, *overrides], of_teacher[each]))
            for each, overrides in teachers.items()
        ]
        values = interleaved(cases, repeats=options.repeats, warmup=0)
    seconds = {"unit": "s", "higher_is_better": False}
    rows = rows_of(values, section=WHOLE, against=ONLINE, **seconds)
    named = {f"{each}, II and III": of_teacher[each] for each in teachers}
    rows += rows_of(named, section=TEACHER, against=f"{ONLINE}, II and III", **seconds)
    whole = statistics.median(values[ONLINE])
    rows = [
        replace(row, note=f"{whole - row.value:+.1f} s saved") if row.name in values else row
        for row in rows
    ]
    return benchmark.finish(
        rows,
        options,
        SECTIONS,
        source="digits" if options.data is None else "CIFAR-10-LT",
        threads=num_cores(),
        epochs_of_each_stage=epochs,
    )


def convert(folder: Path | None, dataset: Path) -> Path:
    """Convert what is trained on; return the dataset directory."""
    source = ["digits"] if folder is None else [str(folder.resolve())]
    limits = ["--imbalance", "16"] if folder is None else ["--imbalance", "100"]
    limits += ["--max-per-class", "128" if folder is None else "2000"]
    tool = [sys.executable, str(ROOT / "tools" / "convert_dataset.py")]
    finish([*tool, *source, str(dataset), *limits])
    return dataset


def finish(command: Sequence[str]) -> None:
    """Run a command of the project's.

    Raises:
        SystemExit: If it fails; it has said why.
    """
    done = subprocess.run(command, check=False, cwd=ROOT, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"ended with {done.returncode}: {shlex.join(command)}")


def run(
    root: Path, dataset: Path, overrides: Sequence[str], of_teacher: list[float]
) -> Callable[[], float]:
    """Return a whole run: its seconds. Those of stages II and III are added to the last list."""
    number = iter(range(1 << 30))

    def seconds() -> float:
        output = root / "runs" / f"{overrides[-1]}-{next(number)}"
        command = [sys.executable, "-m", "fastssd.train", str(CONFIG), f"output={output}"]
        command += [f"data.path={dataset}", *overrides]
        started = time.perf_counter()
        finish(command)
        taken = time.perf_counter() - started
        parts = json.loads((output / "report.json").read_text("utf-8"))["seconds"]
        of_teacher.append(sum(sum(parts[folder].values()) for folder in _FOLDERS))
        print(f"{overrides[-1]}: {taken:.1f} s {parts}", flush=True)
        return taken

    return seconds


if __name__ == "__main__":
    sys.exit(main())
