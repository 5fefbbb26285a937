"""A few of the fault points that tools/fault_points.py tries; fifty are for a person's patience."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools/fault_points.py"


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "points"), [(1, 4), (2, 2)])
def test_runs_killed_at_points_chosen_by_seed_end_bit_identical(tmp_path, processes, points):
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, SCRIPT, "--json", report, "--seed", "7"),
            *("--processes", str(processes), "--points", str(points)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["identical"] == len(found["points"]) == points
    assert all(-9 in point["codes"] for point in found["points"] if point["point"]["place"])
