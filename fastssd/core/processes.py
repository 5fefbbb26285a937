"""What the processes of a run do together, as functions, so that no room needs a launcher."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor


class Stopped(BaseException):
    """The run was asked to stop, and can go on from what it has written.

    Attributes:
        signal_number: Of the signal that asked.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.signal_number = signal_number


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
        main_says: Returns the main process's number on all processes, which all call it.
        stop_if_asked: Leaves by an exception, on all processes, if a signal asked one of them to
            stop. All call it, where nothing is lost by leaving, and it waits for them.
        interrupted: Whether a signal asked to stop, so that what is made now is not wanted. Waits
            for nobody; `stop_if_asked` follows.
    """

    is_main: bool = True
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    reduce: Callable[[Tensor], Tensor] = _alone
    barrier: Callable[[], None] = _nothing
    main_says: Callable[[int], int] = int
    stop_if_asked: Callable[[], None] = _nothing
    interrupted: Callable[[], bool] = _never
