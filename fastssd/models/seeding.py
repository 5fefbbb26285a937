"""Initial weights as a function of a seed, whatever the caller drew before."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fastssd.core.counter_rng import key_of


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Seed PyTorch's CPU generator inside the block and restore it after.

    `torch.nn` and third-party models initialise from the global generator and take no other;
    this is the one place that touches it. Build modules on the CPU inside the block and move
    them afterwards: the generators of other devices are neither seeded nor restored.

    Args:
        *parts: The run's seed and what is being initialised, as in ``seeded(seed, "hard head")``.
            They are hashed, so two modules built from one seed share no weights.
    """
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would also seed the accelerators', which are not restored.
        torch.default_generator.manual_seed(key_of(*parts))
        yield


def seed_step(*parts: int | str, device: torch.device) -> None:
    """Seed PyTorch's generators for one training step, so that dropout is a function of the step.

    Dropout and stochastic depth in third-party backbones draw from the global generators and take
    no other. Seeded anew at each step, they need no place in a checkpoint. No device is waited
    for.

    Args:
        *parts: The run's seed, the stage, the step and the rank.
        device: Where the step is computed: its generator is seeded, and the CPU's. Not
            torch.manual_seed, which also notes the whole call stack for every kind of device that
            is not in use: 0.15 ms a step.
    """
    seed = key_of(*parts) >> 1
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # there are no generators before
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
