"""Whether a machine can hold what a config asks for: the least that it will take, not all of it."""

import torch

from fastssd.data.storage.host_memory import usable_memory
from fastssd.errors import ConfigError
from fastssd.runtime.context import Context
from fastssd.runtime.graph import Graph

_FLOAT = 4


def check_memory(graph: Graph, context: Context) -> None:
    """Refuse what does not fit, before an allocation fails that names no key.

    Counted are the pixels of the batches that wait, those of one batch as the networks see them,
    and the queue of keys. Weights and activations are not, nor other processes of the machine.

    Raises:
        ConfigError: Naming the keys, the memory needed and the memory there is.
    """
    config = context.config
    num_processes = context.workers.num_processes
    for stage in graph.stages:
        if stage.budget is None or (stage.table is not None and not stage.options.SEES_IMAGES):
            continue
        share = stage.budget.batch_size // (stage.budget.accumulate * num_processes)
        views = 1 + len(stage.options.slots)
        _check_batches(f"{stage.label}.budget.batch_size", share, views, context)
        if what := stage.options.memory:
            num_bytes, of = what
            _check(
                (num_bytes, _device_memory(context.workers.device)),
                f"{stage.label}: {of}",
                "lower one of them",
            )
    splits = [config.data.test, *([config.data.validation] if config.data.validation else [])]
    largest = max(len(context.dataset.split(split)) for split in splits)
    share = min(config.evaluation.batch_size, largest) // num_processes
    _check_batches("evaluation.batch_size", share, 1, context)


def _check_batches(key: str, share: int, views: int, context: Context) -> None:
    config = context.config
    size, num_batches = config.augment.size, config.data.prefetch + 1
    image = 3 * size**2
    needed = max(
        (num_batches * share * views * image, usable_memory()),
        (share * views * image * _FLOAT, _device_memory(context.workers.device)),
        key=lambda pair: pair[0] / pair[1],
    )
    _check(
        needed,
        f"{num_batches} batches of {share * views} images of {size} x {size} pixels",
        f"lower augment.size, {key} or data.prefetch",
    )


def _check(needed: tuple[int, int], what: str, remedy: str) -> None:
    num_bytes, there_is = needed
    if num_bytes > there_is:
        raise ConfigError(
            f"{what} need at least {num_bytes / 1e9:,.1f} GB of memory, and there are "
            f"{there_is / 1e9:,.1f} GB: {remedy}"
        )


def _device_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return usable_memory()
