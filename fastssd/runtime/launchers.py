"""What launchers leave unsaid: settings that they pass on, and processes that outlive them."""

import ctypes
import os
import signal
import sys

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


def meeting_point() -> str:
    """Return where the processes of this run meet, in words."""
    address, port = (os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
    return f"at {address}:{port}" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else "(none)"


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
