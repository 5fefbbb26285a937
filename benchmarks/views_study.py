r"""How many views does a table of soft labels need? Stage III at several K, over seeds.

CIFAR-10-LT cut from a folder of JPEGs by class (imbalance 100, at most 2,000 a class), random
resized crops at 32 pixels, ResNet-8. For each seed stage I (with rotation) is trained once and its
frozen network tabulated over as many views as stage III has epochs. Every variant learns stage II
from its own rows, trains a student (III) and re-learns the scales of its hard head (IV):

    python benchmarks/views_study.py FOLDER --output runs/views --json docs/results/views.json

`FOLDER/train/CLASS/*` is the source; 200 images a class of what the long tail leaves out are the
validation split, `FOLDER/test` the test split. Finished (variant, seed) pairs are kept in the
output and skipped, so the study goes on where it was stopped. Each job runs on one thread.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when PyTorch is imported

from views_trial import EPOCHS, VARIANTS, prepare, run

from fastssd.core.files import write_atomically
from fastssd.data.dataset import open_dataset

ROWS = ("II", "III-hard", "III-soft", "IV")


def main() -> int:
    """Run what is missing, then write and print the summary."""
    options = _parser().parse_args()
    dataset = options.output / "dataset"
    if not dataset.exists():
        command = [sys.executable, "tools/convert_dataset.py", str(options.folder), str(dataset)]
        command += ["--imbalance", "100", "--max-per-class", "2000", "--val-per-class", "200"]
        if code := subprocess.run(command, check=False).returncode:
            return code
    results = {}
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        seeds = range(options.seeds)
        for ready in as_completed(
            [pool.submit(_prepared, dataset, options.output, s) for s in seeds]
        ):
            print(f"seed {ready.result()}: stage I and its table are there", flush=True)
        tasks = {
            pool.submit(_trial, dataset, options.output, number, seed): (number, seed)
            for number in range(len(VARIANTS))
            for seed in seeds
        }
        for done in as_completed(tasks):
            results[tasks[done]] = done.result()
            if options.json:
                write_json(options.json, results, dataset, options.output)
            number, seed = tasks[done]
            print(f"{len(results)}/{len(tasks)}: {VARIANTS[number].name}, seed {seed}", flush=True)
    summary = summarise(list(results.values()))
    if options.figure:
        draw(summary, options.figure)
    print(table(summary))
    return 0


def _prepared(dataset: Path, output: Path, seed: int) -> int:
    folder = output / f"seed-{seed}"
    if not (folder / "seconds.json").exists():
        prepare(open_dataset(dataset), folder, seed)
    return seed


def _trial(dataset: Path, output: Path, number: int, seed: int) -> dict[str, Any]:
    path = output / f"seed-{seed}" / f"variant-{number}.json"
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if kept["variant"] == VARIANTS[number].name:
            return kept
    result = run(dataset, output, VARIANTS[number], seed)
    write_atomically(path, json.dumps(result))
    return result


def summarise(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and sample standard deviation over the seeds, of each variant and row."""
    summary = []
    for variant in sorted(
        VARIANTS, key=lambda v: (v.plan != "instance", v.views, v.label != "clean")
    ):
        mine = sorted((r for r in results if r["variant"] == variant.name), key=lambda r: r["seed"])
        if not mine:
            continue
        entry: dict[str, Any] = {"variant": variant.name, "seeds": [r["seed"] for r in mine]}
        for row in ROWS:
            for split in ("val", "test"):
                entry[f"{row} {split}"] = {
                    group: _spread([r[f"{row} {split}"][group] for r in mine])
                    for group in ("overall", "many", "medium", "few")
                }
        summary.append(entry)
    return summary


def table(summary: list[dict[str, Any]], split: str = "test") -> str:
    """Return the overall accuracies as a Markdown table."""
    lines = [
        f"| Stage III, {EPOCHS} epochs | " + " | ".join(ROWS) + " | IV, few | seeds |",
        "| :-- |" + " --: |" * (len(ROWS) + 2),
    ]
    for entry in summary:
        cells = [_cell(entry[f"{row} {split}"]["overall"]) for row in ROWS]
        cells += [_cell(entry[f"IV {split}"]["few"]), str(len(entry["seeds"]))]
        lines.append(f"| {entry['variant']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(summary: list[dict[str, Any]], path: Path) -> None:
    """Draw the overall test accuracy of every variant, mean and standard deviation over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.45 * len(summary) + 1.6), layout="constrained")
    axes = figure.subplots()
    # Colours that colour-blind readers can tell apart (Okabe and Ito), and a shape for each.
    looks = {"II": ("#999999", "s"), "III-soft": ("#0072B2", "o"), "IV": ("#D55E00", "D")}
    for offset, (row, (colour, marker)) in zip((-0.2, 0.0, 0.2), looks.items(), strict=True):
        spreads = [entry[f"{row} test"]["overall"] for entry in summary]
        axes.errorbar(
            [spread["mean"] for spread in spreads],
            [place + offset for place in range(len(summary))],
            xerr=[spread["std"] for spread in spreads],
            fmt=marker,
            color=colour,
            capsize=3,
            label=row,
        )
    axes.set_yticks(range(len(summary)), [entry["variant"] for entry in summary])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("test accuracy in percent, all classes")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    figure.savefig(path)


def write_json(
    path: Path, results: dict[tuple[int, int], dict[str, Any]], dataset: Path, output: Path
) -> None:
    """Write the summary and every trial, whole or not at all."""
    meta = json.loads((dataset / "meta.json").read_text(encoding="utf-8"))
    seeds = sorted({seed for _, seed in results})
    content = {
        "dataset": {name: meta[name] for name in ("name", "splits", "conversion", "versions")},
        "summary": summarise(list(results.values())),
        "prepared": {
            seed: json.loads((output / f"seed-{seed}" / "seconds.json").read_text("utf-8"))
            for seed in seeds
        },
        "trials": [results[key] for key in sorted(results)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def _spread(values: list[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    deviation = statistics.stdev(known) if len(known) > 1 else 0.0
    return {"mean": statistics.mean(known), "std": deviation}


def _cell(spread: dict[str, float] | None) -> str:
    return "-" if spread is None else f"{spread['mean']:.1f} ± {spread['std']:.1f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="train/CLASS/* and test/CLASS/* of CIFAR-10")
    parser.add_argument("--output", type=Path, required=True, help="kept between calls")
    parser.add_argument("--json", type=Path, help="write summary and trials here")
    parser.add_argument("--figure", type=Path, help="draw the test accuracies here")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="trials at a time")
    return parser


if __name__ == "__main__":
    sys.exit(main())
