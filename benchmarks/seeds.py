r"""Run a recipe over several seeds and print the mean and standard deviation of every row.

Finished runs are kept and skipped, so the script goes on where it was stopped:

    python benchmarks/seeds.py configs/quickstart.yaml --seeds 5 --output runs/seeds \
        --json docs/results/quickstart.json [key=value ...]
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

COLUMNS = ("many", "medium", "few", "overall")


def main() -> int:
    """Run all seeds, print the table, write the JSON."""
    options = _parser().parse_intermixed_args()
    reports = []
    for seed in range(options.seeds):
        output = options.output / f"seed-{seed}"
        if not (output / "report.json").exists():
            command = [sys.executable, "-m", "fastssd.train", str(options.config)]
            command += [*options.overrides, f"seed={seed}", f"output={output}"]
            print(f"seed {seed}: {' '.join(command[1:])}", flush=True)
            code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
            if code:
                return code
        reports.append(json.loads((output / "report.json").read_text(encoding="utf-8")))
    summary = summarise(reports)
    print(table(summary, options.seeds))
    if options.json:
        environment = json.loads(
            (options.output / "seed-0" / "environment.json").read_text(encoding="utf-8")
        )
        content = {
            "config": str(options.config),
            "overrides": options.overrides,
            "seeds": options.seeds,
            "environment": {
                key: environment[key]
                for key in ("fastssd", "packages", "cpu", "cores", "device", "compute_threads")
            },
            "rows": summary,
            "seconds": _seconds(reports),
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


def summarise(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for every row that all reports have, each column's values, mean and deviation.

    The standard deviation is that of a sample (n - 1); it is 0 for one report.
    """
    values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for report in reports:
        for row in report["rows"]:
            for column in COLUMNS:
                if row[column] is not None:
                    values[row["name"], row["checkpoint"]][column].append(row[column])
    return [
        {
            "name": name,
            "checkpoint": checkpoint,
            **{
                column: {
                    "mean": statistics.mean(numbers),
                    "std": statistics.stdev(numbers) if len(numbers) > 1 else 0.0,
                    "values": numbers,
                }
                for column, numbers in columns.items()
            },
        }
        for (name, checkpoint), columns in values.items()
    ]


def table(summary: list[dict[str, Any]], num_seeds: int) -> str:
    """Return the summary as a Markdown table."""
    lines = [
        f"| Method | Checkpoint | Many | Medium | Few | All ({num_seeds} seeds) |",
        "| :-- | :-- | --: | --: | --: | --: |",
    ]
    for row in summary:
        cells = [
            f"{row[column]['mean']:.1f} ± {row[column]['std']:.1f}" if column in row else "-"
            for column in COLUMNS
        ]
        lines.append(f"| {row['name']} | {row['checkpoint']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _seconds(reports: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median seconds of each stage folder, all its parts."""
    folders = reports[0]["seconds"]
    return {
        folder: statistics.median(sum(report["seconds"][folder].values()) for report in reports)
        for folder in folders
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds 0 to N-1")
    parser.add_argument("--output", type=Path, required=True, help="one run directory a seed in it")
    parser.add_argument("--json", type=Path, help="write the summary here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
