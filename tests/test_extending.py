"""The examples of docs/extending.md, run as they stand there in a copy of the package."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BLOCK = re.compile(r"^```(?:python|yaml)\n# (\S+?)(?:: (\w+))?\n(.*?)^```$", re.M | re.S)


@pytest.fixture
def extended(project, tmp_path):
    """Return a copy of the project in which every block of the page stands where it says."""
    ignore = shutil.ignore_patterns("__pycache__", "src")
    shutil.copytree(project / "fastssd", tmp_path / "fastssd", ignore=ignore)
    for file, registry, content in BLOCK.findall((project / "docs/extending.md").read_text()):
        path = tmp_path / "fastssd" / file if file.startswith("configs") else tmp_path / file
        if registry:
            lines = path.read_text().split("\n")
            start = next(n for n, line in enumerate(lines) if line.startswith(f"{registry}:"))
            brace = next(n for n in range(start, len(lines)) if lines[n].endswith("{"))
            lines.insert(brace + 1, content)
            path.write_text("\n".join(lines))
        else:
            assert not path.exists()
            path.write_text(content)
    return tmp_path


def test_the_examples_train_as_they_stand(extended, arguments, launch_environment, tmp_path):
    environment = {**launch_environment, "PYTHONPATH": str(extended)}
    command = arguments(tmp_path / "run", "methods=[mine]", "mine.short.weight=0.1")

    done = subprocess.run(
        [sys.executable, "-m", "fastssd.train", *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "run" / "report.json").read_text())["rows"]
    assert {row["name"] for row in rows} == {"Turned", "Short features", "Short features, LWS"}
    stage = json.loads((tmp_path / "run" / "mine-turned" / "stage.json").read_text())
    assert stage["recipe"]["options"]["loss"] == {"kind": "poly", "epsilon": 2.0}


def test_every_block_is_for_a_file_or_a_registry_that_there_is(project):
    text = (project / "docs/extending.md").read_text()
    blocks = BLOCK.findall(text)

    assert len(blocks) == 11
    assert all(Path(project / file).exists() for file, registry, _ in blocks if registry)
