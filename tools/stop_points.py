"""Stop runs by one Ctrl-C under a launcher on a busy machine, and compare their ends bit for bit.

    python tools/stop_points.py [--tries 20] [--launcher accelerate] [--processes 1]
        [--signal INT] [--to group] [--busy 2] [--slow 0] [--seed 0] [--json FILE] [key=value ...]

The run is that of `fault_points.py`, or another by overrides of its recipe. It is started by a
launcher, in a process group of its own, as a shell starts it in the foreground; loops that do
nothing keep the cores busy. After so many steps, chosen by seed, the signal is sent: to the whole
group, as a terminal sends Ctrl-C, or to the launcher alone. With `--slow` the run then stands still
for so many seconds, after which the launcher hears of the signal and dies, as on a far busier
machine: its death meets a run that is not done with its checkpoint. Then the run must end by itself
with a checkpoint of its last step and the state "stopped", and started again it must end with the
bits of a run that was left alone.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fault_points import METHODS, Runner, differences

PROJECT = Path(__file__).resolve().parents[1]
LONGEST = 600.0
"""Seconds after which a run counts as hung."""
_SECONDS_TO_HEAR, _SECONDS_TO_DIE = 0.03, 20.0
"""For the run to hear of a signal before it stands still, and for the launcher to die of it.
torchrun kills what stands still for longer than 30."""
_LAUNCHERS = {
    "accelerate": ("-m", "accelerate.commands.launch"),
    "torchrun": ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node={processes}"),
    "none": (),
}


@dataclass(kw_only=True)
class Try:
    """One stop and what became of it.

    Attributes:
        after: Steps of all stages after which the signal was sent.
        stage: Stage that the status named.
        state: What the status said at the end.
        steps: Steps of that stage that were done.
        kept: Of them in its checkpoint; None where there is none, as in a table's making.
        seconds: From the signal to the end of the last process.
        differences: What was wrong, and in what the resumed run's end differs.
    """

    after: int
    stage: str | None = None
    state: str | None = None
    steps: int = 0
    kept: int | None = None
    seconds: float = 0.0
    differences: list[str] = field(default_factory=list)


@contextmanager
def busy(number: int) -> Iterator[None]:
    """Keep cores busy with loops of usual priority, which end with this process at the latest."""
    code = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
    loops = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


class Launches:
    """Runs under a launcher.

    Args:
        root: Folder of everything.
        options: Of the command line.
    """

    def __init__(self, root: Path, options: argparse.Namespace) -> None:
        self._root = root
        self._options = options
        launcher = _LAUNCHERS[options.launcher]
        self._command = [
            sys.executable,
            *(word.format(processes=options.processes) for word in launcher),
            str(PROJECT / "fastssd/train.py"),
            str(root / "recipe.yaml"),
            f"data.path={root / 'digits'}",
            *options.overrides,
        ]

    def stopped(self, output: Path, after: int) -> Try:
        """Start a run, send it the signal after so many steps, and see how it ends."""
        tried = Try(after=after)
        environment = {
            **os.environ,
            "ACCELERATE_USE_CPU": "true",
            "GLOO_SOCKET_IFNAME": "lo",
            "PYTHONPATH": str(PROJECT),
        }
        with (self._root / "log").open("w", encoding="utf-8") as log:
            launcher = subprocess.Popen(
                [*self._command, f"output={output}"],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started = time.monotonic()
        while launcher.poll() is None and sum(_steps(output).values()) < after:
            if time.monotonic() - started > LONGEST:
                os.killpg(launcher.pid, signal.SIGKILL)
                tried.differences.append("did not come so far")
                return tried
            time.sleep(0.005)
        sent = time.monotonic()
        if launcher.poll() is None:
            self._send(launcher)
        while _session(launcher):
            if time.monotonic() - sent > LONGEST:
                os.killpg(launcher.pid, signal.SIGKILL)
                tried.differences.append("did not end")
                break
            time.sleep(0.02)
        tried.seconds = time.monotonic() - sent
        self._look(output, tried)
        return tried

    def _send(self, launcher: subprocess.Popen[bytes]) -> None:
        """Send the signal; with `--slow` the launcher hears of it late."""
        number = signal.Signals[f"SIG{self._options.signal}"]
        if not self._options.slow:
            if self._options.to == "group":
                os.killpg(launcher.pid, number)
            else:
                launcher.send_signal(number)
            return
        others = [pid for pid in _session(launcher) if pid != launcher.pid]
        if self._options.to == "group":
            for pid in others:
                os.kill(pid, number)
            time.sleep(_SECONDS_TO_HEAR)
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(self._options.slow)
        launcher.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            launcher.wait(_SECONDS_TO_DIE)
        for pid in others:
            os.kill(pid, signal.SIGCONT)

    def _look(self, output: Path, tried: Try) -> None:
        """Note how a run ended, and what is wrong with it."""
        from fastssd.training.checkpoints import check_file
        from fastssd.training.resume import CHECKPOINT

        status = json.loads((output / "status.json").read_text(encoding="utf-8"))
        tried.state, tried.stage = status["state"], status["stage"]
        if tried.state == "done":
            return
        number = signal.Signals[f"SIG{self._options.signal}"]
        codes = {128 + number}
        if self._options.to == "launcher":  # whose death is a SIGTERM to what it started
            codes.add(128 + signal.SIGTERM)
        if tried.state != "stopped" or status["exit_code"] not in codes:
            tried.differences.append(f"status {status}")
        left = [str(path.relative_to(output)) for path in output.rglob("*.partial*")]
        tried.differences += [f"{path} is left" for path in left]
        tried.steps = _steps(output).get(str(tried.stage), 0)
        path = output / str(tried.stage) / CHECKPOINT
        if path.exists():
            tried.kept = check_file(path)["step"]
        if tried.steps != (tried.kept or 0):
            tried.differences.append(f"{tried.kept} of {tried.steps} steps are in the checkpoint")


def _steps(output: Path) -> dict[str, int]:
    """Return the finished steps of each stage."""
    return {
        path.parent.name: path.read_bytes().count(b"\n") for path in output.glob("*/trace.jsonl")
    }


def _session(launcher: subprocess.Popen[bytes]) -> list[int]:
    """Return the processes that are there of the launcher's session: itself and what it left."""
    launcher.poll()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == launcher.pid and fields[0] not in "ZX":
            found.append(int(entry.name))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the stops that the command line asks for; return 1 if any end differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--launcher", choices=list(_LAUNCHERS), default="accelerate")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--signal", choices=["INT", "TERM", "HUP"], default="INT")
    parser.add_argument("--to", choices=["group", "launcher"], default="group")
    parser.add_argument("--busy", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args(arguments)
    options.overrides = [f"methods=[{METHODS}]", *options.overrides]
    import torch._inductor  # noqa: F401 - imported by the first backward pass

    import fastssd.evaluation.figures
    import fastssd.runtime.session
    import fastssd.train  # noqa: F401 - all of it before any process is forked

    tries: list[Try] = []
    with tempfile.TemporaryDirectory() as folder, busy(options.busy):
        root = Path(folder)
        runner = Runner(root, options.processes, options.overrides)
        if any(runner.run(root / "reference")):
            print((root / "log.0").read_text(encoding="utf-8"))
            return 1
        num_steps = sum(_steps(root / "reference").values())
        random = np.random.default_rng(options.seed)
        launches = Launches(root, options)
        while len(tries) < options.tries:
            # Not the very last ones: on a busy machine the run has ended when it is looked at.
            after = int(random.integers(1, int(0.9 * num_steps)))
            output = root / f"stopped-{len(tries)}"
            tried = launches.stopped(output, after)
            if tried.state == "done":
                print(
                    f"{after} steps: the run had ended before the signal; not counted", flush=True
                )
                continue
            if any(runner.run(output)):
                log = (root / "log.0").read_text(encoding="utf-8")[-500:]
                tried.differences.append(f"could not go on: {log}")
            else:
                tried.differences += differences(output, root / "reference")
            tries.append(tried)
            verdict = "; ".join(tried.differences) or "same bits"
            print(
                f"{len(tries)}/{options.tries} after {after} of {num_steps} steps, in "
                f"{tried.stage}: ended after {tried.seconds:.1f} s, {tried.kept} of {tried.steps} "
                f"steps kept: {verdict}",
                flush=True,
            )
            if tried.differences:
                print((root / "log").read_text(encoding="utf-8")[-3000:], flush=True)
    good = sum(not tried.differences for tried in tries)
    print(f"{good} of {len(tries)} stopped with a checkpoint and ended bit-identical")
    if options.json:
        content = {
            **{key: value for key, value in vars(options).items() if key != "json"},
            "identical": good,
            "tries": [asdict(tried) for tried in tries],
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int(good < len(tries))


if __name__ == "__main__":
    sys.exit(main())
