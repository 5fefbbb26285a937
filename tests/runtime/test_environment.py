import json
import os
from dataclasses import replace
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch

from fastssd.config import AugmentConfig, Config, DataConfig
from fastssd.errors import ConfigError
from fastssd.runtime import environment


def config_of(*, decode=0, compute=0):
    return Config(
        output="runs/x",
        data=DataConfig(path="data/x", threads=decode),
        augment=AugmentConfig(size=8),
        compute_threads=compute,
    )


@pytest.fixture
def accelerator():
    """What `environment` reads of an Accelerator of one process on the CPU."""
    return SimpleNamespace(device=torch.device("cpu"), num_processes=1, mixed_precision="no")


@pytest.fixture
def compute_threads(monkeypatch):
    """The thread counts that PyTorch was asked for, in place of being set."""
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    return asked


@pytest.mark.parametrize(
    ("cores", "processes", "share"), [(8, 1, 8), (8, 2, 4), (8, 3, 2), (2, 4, 1)]
)
def test_processes_of_a_machine_share_its_cores(
    monkeypatch, compute_threads, cores, processes, share
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)

    decode = environment.set_threads(config_of(), num_local_processes=processes)

    assert (decode, compute_threads) == (share, [share])


def test_threads_that_a_recipe_names_are_taken_as_named(compute_threads):
    decode = environment.set_threads(config_of(decode=3, compute=5), num_local_processes=2)

    assert (decode, compute_threads) == (3, [5])


def test_the_environment_is_json_and_names_what_decides_results(accelerator):
    described = environment.describe(accelerator)

    assert json.loads(json.dumps(described)) == described
    assert described["packages"]["torch"] == version("torch")
    assert described["device"] == "cpu"
    assert described["processes"] == 1
    assert described["backend"] is None
    assert described["cores"] == environment.num_cores() >= 1


def test_a_package_that_is_not_installed_has_no_version(monkeypatch, accelerator):
    monkeypatch.setattr(environment, "_PACKAGES", ("torch", "no-such-package-of-ours"))

    packages = environment.describe(accelerator)["packages"]

    assert packages["no-such-package-of-ours"] is None


def test_processes_that_do_not_know_of_each_other_are_refused(accelerator):
    environment.check_processes(accelerator, started=1)
    with pytest.raises(ConfigError, match=r"started 2 processes .* sees 1: .*USE_CPU=true"):
        environment.check_processes(accelerator, started=2)


@pytest.fixture
def algorithms(monkeypatch):
    """Leave PyTorch's choices as they were."""
    before = (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32)
    matmul = torch.backends.cuda.matmul.allow_tf32
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = before
    torch.backends.cuda.matmul.allow_tf32 = matmul


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_fastest_algorithms_are_looked_for_unless_bits_must_repeat(
    algorithms, accelerator, deterministic
):
    environment.set_algorithms(replace(config_of(), deterministic=deterministic))

    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert torch.backends.cudnn.benchmark != deterministic
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == deterministic
    described = environment.describe(accelerator)
    assert described["cudnn_benchmark"] != deterministic
    assert described["tensor_float_32"] == {"convolutions": True, "matrix_products": False}


def test_compiling_without_a_compiler_or_triton_is_refused_before_anything_runs(
    monkeypatch, tmp_path
):
    wanted, cpu, gpu = replace(config_of(), compile=True), torch.device("cpu"), torch.device("cuda")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    environment.check_compiler(config_of(), gpu)
    with pytest.raises(ConfigError, match=r"C\+\+ compiler.*compile=false"):
        environment.check_compiler(wanted, cpu)

    compiler = tmp_path / "clang++"
    compiler.touch()
    compiler.chmod(0o755)
    environment.check_compiler(wanted, cpu)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="triton"):
        environment.check_compiler(wanted, gpu)
