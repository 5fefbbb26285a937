"""What a run ran on: versions, device, processes and threads, for its environment.json."""

import importlib.util
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from accelerate import Accelerator

from fastssd import __version__
from fastssd.config import Config
from fastssd.errors import ConfigError
from fastssd.runtime.launchers import passed_on

_PACKAGES = (
    "torch",
    "torchvision",
    "accelerate",
    "numpy",
    "pillow",
    "safetensors",
    "timm",
    "ffcv",
    "nvidia-dali-cuda130",
)


def describe(accelerator: Accelerator) -> dict[str, Any]:
    """Return the environment as JSON has it."""
    device = accelerator.device
    return {
        "fastssd": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "cpu": _cpu_name(),
        "cores": num_cores(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": accelerator.num_processes,
        "backend": torch.distributed.get_backend() if accelerator.num_processes > 1 else None,
        "precision": accelerator.mixed_precision,
        "tensor_float_32": {
            "convolutions": torch.backends.cudnn.allow_tf32,
            "matrix_products": torch.backends.cuda.matmul.allow_tf32,
        },
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "compute_threads": torch.get_num_threads(),
        "accelerate": passed_on(),
        "command": sys.argv,
    }


def num_cores() -> int:
    """Return the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(config: Config, *, num_local_processes: int) -> int:
    """Set the threads of the networks on the CPU, and return the decode threads of a process.

    Launchers set OMP_NUM_THREADS to 1 where nothing else is said; this says it.
    """
    share = max(1, num_cores() // num_local_processes)
    torch.set_num_threads(config.compute_threads or share)
    return config.data.threads or share


def check_processes(accelerator: Accelerator, *, started: int) -> None:
    """Raise ConfigError if a launcher started more processes than know of each other."""
    if started != accelerator.num_processes:
        raise ConfigError(
            f"the launcher started {started} processes but Accelerate sees "
            f"{accelerator.num_processes}: without GPUs set ACCELERATE_USE_CPU=true before torchrun"
        )


def set_algorithms(config: Config) -> None:
    """Set which algorithms PyTorch may take; must precede work on a GPU.

    With `deterministic`, only those whose bits repeat; otherwise cuDNN tries several for each
    shape and keeps the fastest. TensorFloat-32 is what PyTorch itself has by default, stated here
    so that a library or an environment variable does not decide it: on in convolutions, off in
    other matrix products.
    """
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not config.deterministic
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = False


def check_compiler(config: Config, device: torch.device) -> None:
    """Raise ConfigError if the networks shall be compiled and the machine lacks a tool for it."""
    if not config.compile:
        return
    compilers = [os.environ.get("CXX"), "g++", "clang++"]
    if not any(shutil.which(each) for each in compilers if each):
        raise ConfigError(
            "compile=true needs a C++ compiler, and none is installed (g++, clang++, or what CXX "
            "names): install one, or set compile=false"
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ConfigError(
            "compile=true needs the package triton on a GPU: run `pip install triton`, or set "
            "compile=false"
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            names = [
                line.partition(":")[2].strip() for line in file if line.startswith("model name")
            ]
    except OSError:
        names = []
    return names[0] if names else platform.processor()
