r"""Run all benchmarks, write their results to docs/performance/ and make the page of them.

One after the other, since they measure time; about 14 minutes on 2 cores. A benchmark that fails is
named at the end, and its last result stays.

    python benchmarks/run_all.py [--data FOLDER] [--only loader views]
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from make_performance import main as make_page

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["loader", "views", "samplers", "convert", "augment", "step", "epoch_time"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them and return how many failed."""
    parser = argparse.ArgumentParser(description="Run the benchmarks and make docs/performance.md")
    parser.add_argument("--data", type=Path, metavar="DIR", help="measure on this folder's images")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="little data: whether they run")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "performance")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "performance.md")
    options = parser.parse_args(arguments)
    for name in ("data", "results", "page"):  # the benchmarks run in the project's folder
        value = getattr(options, name)
        setattr(options, name, value and value.resolve())
    failed = []
    began = time.perf_counter()
    for name in options.only:
        command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py")]
        command += ["--json", str(options.results / f"{name}.json")]
        command += ["--data", str(options.data)] if options.data else []
        command += ["--quick"] if options.quick else []
        started = time.perf_counter()
        print(f"{name}: {' '.join(command[1:])}", flush=True)
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
        print(f"{name}: {time.perf_counter() - started:.0f} s\n", flush=True)
    make_page(["--results", str(options.results), "--page", str(options.page)])
    print(f"{options.page}: made in {time.perf_counter() - began:.0f} s")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
