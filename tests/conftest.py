"""A tiny long-tailed dataset, recipes for it, and ways to run them: in this process and in others.

Other processes are forked from one that has imported torch once, as importing it takes seconds.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from fastssd.native import library
from tests.support.recipes import SMALLEST

pytest_plugins = ["run_fixtures"]

# The same examples in every run of continuous integration; new ones are looked for elsewhere.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_collection_modifyitems(items):
    """Skip what needs the native kernels where there are none."""
    if library.library() is None:
        for item in items:
            if item.get_closest_marker("kernels"):
                item.add_marker(pytest.mark.skip(reason=library.problem()))


TINY = """
output: unset
data: {path: unset, threads: 1, validation: val}
augment:
  size: 8
  mean: [0.305, 0.305, 0.305]
  std: [0.376, 0.376, 0.376]
  train: digits
  test: whole
model: {backbone: plaincnn}
deterministic: true
compute_threads: 1
methods: [ce, lws, ssd]
budgets:
  scratch: {epochs: 2, batch_size: 32, lr: 0.02}
  classifier: {epochs: 2, batch_size: 32}
log: {every: 2, trace: true}
"""

ZYGOTE = '''
import json, os, signal, sys, traceback
import torch, torch._inductor, fastssd.runtime.session, fastssd.training.trainer, fastssd.train
import fastssd.evaluation.report
import fastssd.runtime.build as build, fastssd.tables.tabulate as tabulate

fastssd.evaluation.report.write_figures = lambda *args: ([], [])  # they have their own tests

def hook(at):
    """Send this process a signal at a step of a folder, or at a batch of its table."""
    train_step = fastssd.training.trainer.Trainer._train_step
    def step(self, batches):
        if at["where"] == "step" and self.folder.name == at["folder"]:
            if self.progress.step == at["number"]:
                os.kill(os.getpid(), at["signal"])
        train_step(self, batches)
    fastssd.training.trainer.Trainer._train_step = step
    tabulated, in_order = tabulate.tabulated, tabulate.in_order
    def table(directory, *args, **kwargs):
        def batches(*rest):
            for number, draws in enumerate(in_order(*rest)):
                if at["where"] == "table" and directory.name == at["folder"]:
                    if number == at["number"]:
                        os.kill(os.getpid(), at["signal"])
                yield draws
        tabulate.in_order = batches
        return tabulated(directory, *args, **kwargs)
    build.tabulated = table

def child(job, rank):
    log = os.open(f"{job['log']}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1); os.dup2(log, 2)
    os.environ.update(job["environment"], RANK=str(rank), LOCAL_RANK=str(rank))
    if job["ranks"] == 1:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            os.environ.pop(name, None)
    code = 1
    try:
        if job["at"] and job["at"]["rank"] in (rank, None):
            hook(job["at"])
        if job["script"]:
            exec(compile(job["script"], "script", "exec"), {"rank": rank})
            code = 0
        else:
            code = fastssd.train.main(job["arguments"])
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush(); sys.stderr.flush()
    os._exit(code)

for line in sys.stdin:
    job = json.loads(line)
    children = []
    for rank in range(job["ranks"]):
        children.append(os.fork())
        if not children[-1]:
            child(job, rank)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    print(json.dumps(codes), flush=True)
'''


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fastssd.data.convert import convert
    from fastssd.data.sources.sources import open_source

    out = tmp_path_factory.mktemp("data") / "digits"
    convert(open_source("digits"), out, imbalance=8, max_per_class=40, val_per_class=3)
    return out


@pytest.fixture(scope="session")
def arguments(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Callable[..., list[str]]:
    """Return the command line that trains the tiny recipe into a folder, under overrides."""
    recipe = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    recipe.write_text(TINY)

    def of(output: Path, *overrides: str) -> list[str]:
        return [str(recipe), f"data.path={digits}", f"output={output}", *overrides]

    return of


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[str]], int]]:
    """Return `train.main`, to run on the CPU in this process, which is afterwards as it was."""
    import torch
    from accelerate.state import AcceleratorState

    from fastssd.train import main

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    # It is one for the whole process, and remembers the precision of the run before.
    AcceleratorState._reset_state(reset_partial_state=True)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    threads = torch.get_num_threads()
    yield main
    for number, handler in handlers.items():
        signal.signal(number, handler)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def zygote() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", ZYGOTE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.wait()
    process.stdout.close()


@pytest.fixture(scope="session")
def elsewhere(
    zygote: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[list[int], list[str]]]:
    """Return a function that runs `train.main`, or a script, in processes of their own.

    It takes the arguments or the script, the number of processes, and at which `step` or `table`
    batch of which folder a signal is sent to which of them. It returns their exit codes, negative
    for a signal, and what they printed.
    """
    folder = tmp_path_factory.mktemp("logs")

    def run(
        arguments: list[str] | None = None,
        *,
        script: str | None = None,
        ranks: int = 1,
        at: tuple[str, str, int] | None = None,
        signal_number: int = signal.SIGKILL,
        rank: int | None = None,
    ) -> tuple[list[int], list[str]]:
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        job: dict[str, Any] = {
            "arguments": arguments,
            "script": script,
            "ranks": ranks,
            "log": str(folder / "log"),
            "environment": {
                "ACCELERATE_USE_CPU": "true",
                "GLOO_SOCKET_IFNAME": "lo",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "WORLD_SIZE": str(ranks),
                "LOCAL_WORLD_SIZE": str(ranks),
            },
            "at": at
            and dict(
                zip(("where", "folder", "number"), at, strict=True), signal=signal_number, rank=rank
            ),
        }
        zygote.stdin.write(json.dumps(job) + "\n")
        zygote.stdin.flush()
        codes = json.loads(zygote.stdout.readline())
        return codes, [(folder / f"log.{number}").read_text() for number in range(ranks)]

    return run


@pytest.fixture(scope="session")
def lines() -> Callable[[Path], list[dict[str, Any]]]:
    """Return what reads a file of JSON lines, without fields that tell the time."""
    timing = ("images_per_second", "data_wait_percent")

    def read(path: Path) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in path.read_text().splitlines()]
        return [{key: line[key] for key in line if key not in timing} for line in found]

    return read


@pytest.fixture(scope="session")
def project() -> Path:
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def launch_environment() -> dict[str, str]:
    return {**os.environ, "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe; the smallest complete one unless told otherwise."""

    def write(text=SMALLEST):
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        return path

    return write
