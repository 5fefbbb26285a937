"""What launchers leave unsaid: settings that they pass on, and processes that outlive them."""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from fastssd.errors import ConfigError

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h
_MARKS = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID")
"""Variables that `accelerate launch` and torchrun set for the processes that they start."""


def follow_launcher() -> None:
    """Let this process be sent SIGTERM when its launcher dies, where a launcher started it.

    `accelerate launch` ends at a SIGTERM without passing it on; the training would go on unseen.
    A process that a shell started is left alone: it may be meant to outlive the shell.
    """
    if not any(mark in os.environ for mark in _MARKS) or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Which of how many processes this is, as the launcher says in the environment.

    Attributes:
        rank: From 0.
        num_processes: Of the run.
        num_local_processes: Of them on this host.
        meeting_point: Where they meet, in words.
    """

    rank: int
    num_processes: int
    num_local_processes: int
    meeting_point: str


def launch(environment: Mapping[str, str] | None = None) -> Launch:
    """Return what the launcher says of this process.

    Args:
        environment: Variables; by default those of this process.

    Raises:
        ConfigError: If the variables are not all of one launch: a shell may still have one of an
            earlier launch, and Slurm and MPI start processes that know nothing of each other.
    """
    environment = os.environ if environment is None else environment
    numbers = {name: _number(name, environment) for name in _NUMBERS}
    rank, num_processes = numbers["RANK"], numbers["WORLD_SIZE"]
    local_rank, num_local = numbers["LOCAL_RANK"], numbers["LOCAL_WORLD_SIZE"]
    address = environment.get("MASTER_ADDR")
    if rank is None:
        _check_alone(environment)
    if not rank and local_rank is None and (num_processes or 1) == (num_local or 1) == 1:
        return Launch(rank=0, num_processes=1, num_local_processes=1, meeting_point="(none)")
    given = {**numbers, "MASTER_ADDR": address}
    if missing := [name for name in _NEEDED if given[name] in (None, "")]:
        raise _contradiction(environment, f"{' and '.join(missing)} not")
    assert rank is not None
    assert num_processes is not None
    for smaller, larger, what in (
        (rank, num_processes, "RANK is not below WORLD_SIZE"),
        (local_rank, num_local, "LOCAL_RANK is not below LOCAL_WORLD_SIZE"),
        (num_local, num_processes + 1, "LOCAL_WORLD_SIZE is above WORLD_SIZE"),
        (local_rank, rank + 1, "LOCAL_RANK is above RANK"),
        (numbers["MASTER_PORT"], 2**16, "MASTER_PORT is above 65535"),
    ):
        if smaller is not None and larger is not None and smaller >= larger:
            raise _contradiction(environment, what)
    return Launch(
        rank=rank,
        num_processes=num_processes,
        num_local_processes=num_local or 1,
        meeting_point=f"at {address}:{numbers['MASTER_PORT']}" if num_processes > 1 else "(none)",
    )


_NUMBERS = {
    "RANK": 0,
    "WORLD_SIZE": 1,
    "LOCAL_RANK": 0,
    "LOCAL_WORLD_SIZE": 1,
    "MASTER_PORT": 1,
}
"""Variables of a launch that are numbers, and the least that each may be."""

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables without which processes do not find each other."""

_OTHERS = {
    "SLURM_STEP_NUM_TASKS": "srun",
    "OMPI_COMM_WORLD_SIZE": "Open MPI",
    "PMI_SIZE": "MPI",
    "MV2_COMM_WORLD_SIZE": "MVAPICH2",
}
"""Variables that hold the number of processes of launchers that do not set `RANK`."""


def _number(name: str, environment: Mapping[str, str]) -> int | None:
    text = environment.get(name)
    if text is None:
        return None
    least = _NUMBERS.get(name, 0)
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise ConfigError(
            f"the environment variable {name} is {text!r:.40}, not a whole number of at least "
            f"{least}, as a launcher sets it: {_REMEDY}, and unset {name} before"
        )
    return int(text)


def _check_alone(environment: Mapping[str, str]) -> None:
    """Refuse a process that is one of several which would each take itself for the only one."""
    for name, launcher in _OTHERS.items():
        if (_number(name, environment) or 1) > 1:
            raise ConfigError(
                f"{launcher} started {environment[name]} processes ({name}) that know nothing of "
                f"each other, as RANK is not set: let it start one torchrun on each host "
                "(docs/clusters.md), or one process; unset the variable where it is left from "
                "something else"
            )


def _contradiction(environment: Mapping[str, str], what: str) -> ConfigError:
    names = [name for name in (*_NUMBERS, "MASTER_ADDR") if name in environment]
    told = ", ".join(f"{name}={environment[name]}" for name in names)
    return ConfigError(
        f"the environment has variables of a launcher that do not belong together ({told}): {what}"
        f"; {_REMEDY}. For a single process: unset {' '.join(names)}"
    )


_REMEDY = "start several processes with torchrun or accelerate launch, which set them all"


def passed_on() -> dict[str, str]:
    """Return the settings of Accelerate that the environment holds, for the record.

    `accelerate launch` takes them from the user's default config file without a word.
    """
    return {
        name: value for name, value in sorted(os.environ.items()) if name.startswith("ACCELERATE_")
    }


def check_passed_on() -> None:
    """Raise ConfigError for a setting that would change training and that no recipe can say."""
    switches = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")
    found = [
        f"{name}={os.environ[name]}"
        for name in (f"ACCELERATE_USE_{switch}" for switch in switches)
        if os.environ.get(name, "").lower() in ("1", "true")
    ]
    compiler = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no")
    if compiler.lower() != "no":
        found.append(f"ACCELERATE_DYNAMO_BACKEND={compiler}")
    if found:
        raise ConfigError(
            f"Accelerate's launcher or its default config file sets {', '.join(found)}, which no "
            "recipe asked for and fastssd does not use: leave it out of that file "
            "(`accelerate config default` writes a plain one), or unset the variable"
        )


def overridden(precision: str) -> str | None:
    """Return a warning if the launcher was told another precision than the recipe's, which holds.

    Args:
        precision: The recipe's.
    """
    told = os.environ.get("ACCELERATE_MIXED_PRECISION", precision)
    if told == precision:
        return None
    return f"the launcher was told mixed precision {told}; the recipe's precision={precision} holds"
