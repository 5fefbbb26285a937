"""When to stop: what one process was told, all processes agree on, at the same step."""

import time
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

_KEY = "fastssd-stop"
_SECONDS_BETWEEN_LOOKS = 0.5


class StopSignal:
    """Tells every process of a run, at the same step, that one of them was asked to stop.

    With several processes each step sends one number over a group of its own, on the host, and
    reads that of the step before: nothing waits for the device, and a step waits for another
    process only where that one is a whole step behind.

    Args:
        requested: Returns the number of a signal that this process was sent, or 0.
        timeout: Of waiting for another process.
    """

    def __init__(
        self, requested: Callable[[], int], *, timeout: timedelta = timedelta(minutes=30)
    ) -> None:
        self._requested = requested
        self._group: dist.ProcessGroup | None = None
        if dist.is_initialized() and dist.get_world_size() > 1:
            group = dist.new_group(backend="gloo", timeout=timeout)
            assert isinstance(group, dist.ProcessGroup)  # not the mark of a process outside it
            self._group = group
        self._sent: tuple[dist.Work, Tensor] | None = None
        self._told = 0
        self._looked = 0.0

    def at_step(self) -> int:
        """Return the signal that any process had been sent a step ago, or 0; called every step.

        One process alone hears of its own at once.
        """
        if self._group is None:
            return self._requested()
        number = self._heard()
        flag = torch.tensor(self._requested())
        work = dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._sent = (work, flag)
        return number

    def now(self) -> int:
        """Return the signal that any process was sent, or 0; waits for all of them."""
        number = self._requested()
        if self._group is None:
            return number
        earlier = self._heard()
        flag = torch.tensor(number)
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group)
        return max(earlier, int(flag))

    def asked(self) -> int:
        """Return the signal that this process was sent, or another has told of, or 0.

        Waits for nobody, and processes may hear of it at different times: for work that can be
        left anywhere.
        """
        number = self._requested()
        if self._group is None or self._told:
            return number or self._told
        store = dist.distributed_c10d._get_default_store()
        now = time.monotonic()
        if number:
            store.set(_KEY, str(number))
            self._told = number
        elif now - self._looked > _SECONDS_BETWEEN_LOOKS:
            self._looked = now
            if store.check([_KEY]):
                self._told = int(store.get(_KEY))
        return self._told

    def _heard(self) -> int:
        """Return what the processes last sent each other, or 0."""
        if self._sent is None:
            return 0
        work, flag = self._sent
        self._sent = None
        work.wait()
        return int(flag)
