"""A few of the fault points that tools/fault_points.py tries; fifty are for a person's patience."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools/fault_points.py"


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "points"), [(1, 3), (2, 1)])
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
    assert len(found["methods"]) == 9
    assert all(-9 in point["codes"] for point in found["points"] if point["point"]["place"])


def test_runs_differ_where_a_stage_has_other_weights_rows_or_traces(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    from fault_points import differences

    one, other = tmp_path / "one", tmp_path / "other"
    stage = one / "seed-0" / "ce"
    stage.mkdir(parents=True)
    (stage / "weights.safetensors").write_bytes(b"123")
    (stage / "trace.jsonl").write_text('{"digest": "a", "images_per_second": 3}\n')
    (stage / "result.json").write_text('{"rows": [1], "seconds": 4}')
    shutil.copytree(one, other)
    assert differences(one, other) == []

    copy = other / "seed-0" / "ce"
    (copy / "trace.jsonl").write_text('{"digest": "a", "images_per_second": 5}\n')
    (copy / "result.json").write_text('{"rows": [1], "seconds": 5}')
    assert differences(one, other) == []
    (copy / "trace.jsonl").write_text('{"digest": "b", "images_per_second": 3}\n')
    (copy / "result.json").write_text('{"rows": [2], "seconds": 4}')
    (copy / "weights.safetensors").unlink()
    found = differences(one, other)
    assert [name.split("/")[-1].split()[0] for name in found] == [
        "result.json",
        "trace.jsonl",
        "weights.safetensors",
    ]
