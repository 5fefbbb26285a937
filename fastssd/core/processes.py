"""What the processes of a run do together, as functions, so that no room needs a launcher."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor


def _alone(values: Tensor) -> Tensor:
    return values


def _nothing() -> None:
    return None


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Processes:
    """What a process needs of the others; the defaults are those of one process alone.

    Attributes:
        is_main: Whether this process writes what all share.
        autocast: Enters the run's precision.
        reduce: Sums a tensor over processes.
        barrier: Waits for all processes.
        stop_if_asked: Leaves by an exception if a signal asked for it; called where nothing is
            lost by that.
        interrupted: Whether a signal asked to stop, so that what is measured now is not wanted.
    """

    is_main: bool = True
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    reduce: Callable[[Tensor], Tensor] = _alone
    barrier: Callable[[], None] = _nothing
    stop_if_asked: Callable[[], None] = _nothing
    interrupted: Callable[[], bool] = _never
