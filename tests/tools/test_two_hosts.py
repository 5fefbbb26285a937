"""Two hosts see the global batches of one; the rest of tools/two_hosts.py takes minutes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools/two_hosts.py"
CANNOT = 77


@pytest.mark.slow
def test_two_hosts_see_the_batches_and_get_the_weights_of_one(tmp_path):
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--json", report],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == CANNOT:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    findings = json.loads(report.read_text())
    assert len(findings) == 4
    assert all(finding["holds"] for finding in findings)
