"""The executors by kind of device, and which one a task gets."""

from dataclasses import dataclass

from fastssd.augment.executor import Executor, Task, UnavailableError
from fastssd.augment.native_executor import NativeExecutor
from fastssd.augment.torch_executor import TorchExecutor
from fastssd.augment.triton_executor import TritonExecutor

EXECUTORS: dict[str, list[type[Executor]]] = {"cpu": [NativeExecutor], "cuda": [TritonExecutor]}
"""By type of device, fastest first; PyTorch's own operations work everywhere and come last."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The executor of a task.

    Attributes:
        executor: The fastest that works here.
        reason: Why a faster one was passed over; empty where none was.
    """

    executor: Executor
    reason: str


def choose_executor(task: Task) -> Choice:
    """Return the executor of a task."""
    reasons: list[str] = []
    for kind in EXECUTORS.get(task.device.type, []):
        try:
            return Choice(kind(task), "; ".join(reasons))
        except UnavailableError as error:
            reasons.append(str(error))
    return Choice(TorchExecutor(task), "; ".join(reasons))
