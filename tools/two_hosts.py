"""Train on two hosts made of network namespaces, kill one of them, and compare with one host.

    sudo python tools/two_hosts.py [--quick] [--json FILE]

Each host has an address, a host name, processes and a local disk of its own (a copy of the dataset
under the same path); the run directory is shared, as on a cluster's file system. Needs root, `ip`
and `unshare`. It compares: two hosts under torchrun with two processes on one; the same under
`accelerate launch`; a run one of whose hosts was killed and replaced with one that was left alone;
a worker killed under `torchrun --max-restarts`; and a run directory that is not shared.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
FOLDERS = ("ce", "lws")
LONGEST = 240.0
RECIPE = """
output: unset
data: {path: unset, threads: 1, decoder: torchvision}
augment: {size: 8, mean: [0.3, 0.3, 0.3], std: [0.4, 0.4, 0.4], train: digits, test: whole}
model: {backbone: resnet8}
deterministic: true
compute_threads: 1
methods: [ce, lws]
options: {ce.model.task: rotation}   # a network as in stage I of SSD
budgets:
  scratch: {epochs: 8, batch_size: 32, lr: 0.02}
  classifier: {epochs: 2, batch_size: 32}
log: {every: 2, trace: true}
watchdog: 60
"""
Starter = Callable[["Host", Path], list[str]]


class Host:
    """A network namespace with an address, a name and a folder mounted as its local disk.

    Args:
        number: 0 or 1.
        root: Folder of everything.
    """

    def __init__(self, number: int, root: Path) -> None:
        self.number = number
        self.name = f"fastssd-h{number}-{os.getpid()}"
        self.address = f"10.77.{os.getpid() % 250}.{number + 1}"
        self.interface = f"fs{os.getpid() % 100_000}-{number}"
        self.disk = root / f"disk-{number}"
        self._mount = root / "local"
        self._root = root

    def start(self, command: Sequence[str], log: str) -> subprocess.Popen[str]:
        """Start a command on this host, in a group of its own."""
        inside = (
            f"hostname host-{self.number} && mount --bind {self.disk} {self._mount} && "
            f'mount --bind {self._root / "hosts"} /etc/hosts && exec "$@"'
        )
        environment = {
            **os.environ,
            "ACCELERATE_USE_CPU": "true",
            "GLOO_SOCKET_IFNAME": self.interface,
            "TP_SOCKET_IFNAME": self.interface,
            "OMP_NUM_THREADS": "1",
        }
        enter = ["ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c", inside, "sh"]
        with (self._root / log).open("w", encoding="utf-8") as output:
            return subprocess.Popen(
                [*enter, *command],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )

    def kill(self) -> None:
        """Kill every process of this host at once, as a loss of power does."""
        pids = _output("ip", "netns", "pids", self.name).split()
        for pid in pids:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue


class Network:
    """Two hosts on one cable."""

    def __init__(self, root: Path) -> None:
        self.hosts = [Host(number, root) for number in (0, 1)]

    def __enter__(self) -> list[Host]:
        first, second = self.hosts
        for host in self.hosts:
            _output("ip", "netns", "add", host.name)
        _output(
            "ip", "link", "add", first.interface, "type", "veth", "peer", "name", second.interface
        )
        for host in self.hosts:
            inside = ("ip", "netns", "exec", host.name, "ip")
            _output("ip", "link", "set", host.interface, "netns", host.name)
            _output(*inside, "addr", "add", f"{host.address}/24", "dev", host.interface)
            _output(*inside, "link", "set", host.interface, "up")
            _output(*inside, "link", "set", "lo", "up")
        return self.hosts

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            host.kill()
            subprocess.run(["ip", "netns", "del", host.name], check=False)


class Trial:
    """The runs of this script, in one folder."""

    def __init__(self, root: Path, hosts: list[Host]) -> None:
        self.root = root
        self.hosts = hosts
        self.findings: list[dict[str, object]] = []
        self._recipe = root / "recipe.yaml"
        self._recipe.write_text(RECIPE, encoding="utf-8")
        (root / "local").mkdir()
        for host in hosts:
            host.disk.mkdir()
        names = [f"{host.address} host-{host.number}\n" for host in hosts]
        (root / "hosts").write_text("127.0.0.1 localhost\n" + "".join(names), encoding="utf-8")
        data = hosts[0].disk / "digits"
        _output(
            *(sys.executable, str(PROJECT / "tools/convert_dataset.py"), "digits", str(data)),
            *("--imbalance", "8", "--max-per-class", "40"),
        )
        shutil.copytree(data, hosts[1].disk / "digits")
        self._port = 29_400

    def arguments(self, output: Path) -> list[str]:
        """Return the command line of a run, the same on both hosts."""
        data = self.root / "local/digits"
        script = PROJECT / "fastssd/train.py"
        return [str(script), str(self._recipe), f"data.path={data}", f"output={output}"]

    def torchrun(self, host: Host, output: Path, *options: str) -> list[str]:
        """Return a command for one process of a host, under torchrun's rendezvous."""
        launcher = [str(Path(sys.executable).with_name("torchrun")), "--nproc_per_node=1"]
        meet = f"{self.hosts[0].address}:{self._port}"
        rendezvous = ["--rdzv_backend=c10d", f"--rdzv_endpoint={meet}", "--rdzv_id=fastssd"]
        address = [f"--local_addr={host.address}", "--nnodes=2"]
        return [*launcher, *rendezvous, *address, *options, *self.arguments(output)]

    def accelerate(self, host: Host, output: Path) -> list[str]:
        """Return a command for one process of a host, under `accelerate launch`."""
        launcher = [str(Path(sys.executable).with_name("accelerate")), "launch", "--multi_gpu"]
        size = ["--num_machines=2", "--num_processes=2", f"--machine_rank={host.number}"]
        meet = [f"--main_process_ip={self.hosts[0].address}"]
        port = [f"--main_process_port={self._port}", "--mixed_precision=no", "--dynamo_backend=no"]
        return [*launcher, *size, *meet, *port, *self.arguments(output)]

    def together(self, name: str, starter: Starter, output: Path) -> list[int]:
        """Run on both hosts to the end and return their exit codes."""
        return self.ends(self.begin(name, starter, output))

    def begin(self, name: str, starter: Starter, output: Path) -> list[subprocess.Popen[str]]:
        """Start a run on both hosts."""
        self._port += 1
        return [host.start(starter(host, output), f"{name}.{host.number}") for host in self.hosts]

    def ends(self, started: list[subprocess.Popen[str]]) -> list[int]:
        """Wait for processes and return their exit codes; kills those that take too long."""
        deadline = time.monotonic() + LONGEST
        codes = []
        for process in started:
            try:
                codes.append(process.wait(max(1.0, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                codes.append(process.wait())
        return codes

    def log(self, name: str) -> str:
        """Return what both hosts printed."""
        return "".join((self.root / f"{name}.{host.number}").read_text() for host in self.hosts)

    def check(self, what: str, good: bool, **figures: object) -> None:
        """Note a finding."""
        self.findings.append({"name": what, "holds": good, **figures})
        print(f"{'holds' if good else 'FAILS'}: {what} {figures or ''}", flush=True)


def run_trials(trial: Trial, *, quick: bool) -> None:
    """Do everything that the module's docstring promises, or its first comparison alone."""
    root = trial.root
    one = root / "one-host"
    alone = trial.hosts[0].start(
        [
            str(Path(sys.executable).with_name("torchrun")),
            *("--nnodes=1", "--nproc_per_node=2", "--rdzv_backend=c10d"),
            *(f"--rdzv_endpoint={trial.hosts[0].address}:29300", "--rdzv_id=one"),
            f"--local_addr={trial.hosts[0].address}",
            *trial.arguments(one),
        ],
        "one.0",
    )
    trial.check("one host with two processes trains", trial.ends([alone]) == [0])
    codes = trial.together("two", trial.torchrun, root / "two-hosts")
    trial.check("two hosts with a process each train under torchrun", codes == [0, 0])
    same = _traces(root / "two-hosts") == _traces(one)
    trial.check("their global batches have the digests of the single host's", same)
    trial.check("their weights have the bits of the single host's", _same(root / "two-hosts", one))
    if quick:
        return
    codes = trial.together("accelerate", trial.accelerate, root / "accelerate")
    trial.check(
        "the same under accelerate launch", codes == [0, 0] and _same(root / "accelerate", one)
    )
    _kill_a_host(trial, one)
    _kill_a_worker(trial, one)
    _share_nothing(trial)


def _kill_a_host(trial: Trial, reference: Path) -> None:
    output = trial.root / "killed-host"
    started = trial.begin("killed", trial.torchrun, output)
    _wait_for(output / "ce/checkpoint.safetensors")
    trial.hosts[1].kill()
    before = time.monotonic()
    codes = trial.ends(started)
    seconds = time.monotonic() - before
    trial.check(
        "a host is killed in the first stage: the other ends and says why",
        codes[0] not in (0, None) and "lost another process" in trial.log("killed"),
        seconds=round(seconds, 1),
    )
    codes = trial.together("replaced", trial.torchrun, output)
    trial.check(
        "with the host replaced, the same command ends with the bits of a run left alone",
        codes == [0, 0] and _same(output, reference),
    )


def _kill_a_worker(trial: Trial, reference: Path) -> None:
    output = trial.root / "killed-worker"

    def starter(host: Host, output: Path) -> list[str]:
        return trial.torchrun(host, output, "--max-restarts=3", "--monitor-interval=0.2")

    started = trial.begin("worker", starter, output)
    _wait_for(output / "ce/checkpoint.safetensors")
    for pid in _output("ip", "netns", "pids", trial.hosts[1].name).split():
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"torchrun" not in command[1] and any(part.endswith(b"train.py") for part in command):
            os.kill(int(pid), signal.SIGKILL)
    codes = trial.ends(started)
    trial.check(
        "a worker is killed under --max-restarts: all restart, and end with the same bits",
        codes == [0, 0] and _same(output, reference),
    )


def _share_nothing(trial: Trial) -> None:
    output = trial.root / "local/run"  # on each host's own disk
    codes = trial.together("apart", trial.torchrun, output)
    said = "must be on storage that all hosts share" in trial.log("apart")
    trial.check("a run directory that is not shared is refused", 0 not in codes and said)


def _traces(run: Path) -> list[list[str]]:
    return [
        [json.loads(line)["digest"] for line in (run / folder / "trace.jsonl").open()]
        for folder in FOLDERS
        if (run / folder / "trace.jsonl").exists()
    ]


def _same(run: Path, other: Path) -> bool:
    return all(
        (run / folder / "weights.safetensors").exists()
        and (run / folder / "weights.safetensors").read_bytes()
        == (other / folder / "weights.safetensors").read_bytes()
        for folder in FOLDERS
    ) and _traces(run) == _traces(other)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + LONGEST
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} did not appear")
        time.sleep(0.02)


def _output(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout


def _can_make_hosts() -> bool:
    if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
        return False
    command = ["unshare", "--net", "--mount", "--uts", "true"]  # containers may forbid it
    return not subprocess.run(command, check=False, capture_output=True).returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials; return 1 if anything does not hold, 77 where hosts can't be made."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the first comparison alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if not _can_make_hosts():
        print("needs root, ip (iproute2), unshare (util-linux) and the right to make networks")
        return 77
    with tempfile.TemporaryDirectory() as folder, Network(Path(folder)) as hosts:
        trial = Trial(Path(folder), hosts)
        try:
            run_trials(trial, quick=options.quick)
        finally:
            if not all(finding["holds"] for finding in trial.findings):
                for log in sorted(Path(folder).glob("*.[01]")):
                    print(f"--- {log.name}\n{log.read_text()[-1500:]}")
    if options.json:
        options.json.write_text(json.dumps(trial.findings, indent=1) + "\n", encoding="utf-8")
    return int(not all(finding["holds"] for finding in trial.findings))


if __name__ == "__main__":
    sys.exit(main())
