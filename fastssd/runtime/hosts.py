"""What the hosts of a run must have in common: the run directory, and equal datasets."""

import time

import torch
from accelerate import Accelerator

from fastssd.core.files import writing
from fastssd.errors import ConfigError, DataError
from fastssd.runtime.context import Context


def check_hosts(context: Context, accelerator: Accelerator) -> None:
    """Check that all processes see the main one's files and train on copies of one dataset.

    Raises:
        ConfigError: If a process does not see the run directory that the main one writes.
        DataError: If a process has another dataset.
    """
    if accelerator.num_processes == 1:
        return
    device = accelerator.device
    token = accelerator.gather(torch.tensor([time.time_ns()], device=device))[0].item()
    # A name that is new: a network file system may remember that another was not there.
    mark = context.output / f"seen-by-all.partial-{token}"  # removed after a kill like others
    if context.is_main:
        with writing(mark):
            mark.touch()
    accelerator.wait_for_everyone()
    digest = int(context.dataset.identity.digest[:14], 16)
    mine = torch.tensor([[int(mark.exists()), digest]], device=device)
    seen, digests = accelerator.gather(mine).T.tolist()
    if context.is_main:
        with writing(mark):
            mark.unlink()
    if blind := [rank for rank, sees in enumerate(seen) if not sees]:
        raise ConfigError(
            f"output={context.output}: rank {_listed(blind)} does not see what rank 0 writes "
            "there: a run directory must be on storage that all hosts share (datasets need not)"
        )
    if others := [rank for rank, other in enumerate(digests) if other != digests[0]]:
        raise DataError(
            f"{context.dataset.path}: rank {_listed(others)} has another dataset there than rank "
            "0: every host needs a copy of the same dataset directory"
        )


def _listed(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:8]))
    return shown if len(ranks) <= 8 else f"{shown} and {len(ranks) - 8} more"
