"""What happened since the last log line: losses and hits summed on the device, time on the host."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastssd.evaluation.metrics import GroupMeter

Item = TypeVar("Item")


class Meter:
    """Sums of one window of steps. Only `flush` waits for the device.

    Args:
        train_counts: (C,) training images of each class, which decide the shot groups.
        device: Where the sums stay.
        reduce: Sums a tensor over processes.

    Attributes:
        num_images: Images of all processes in the window.
        wait_seconds: Seconds that the window waited for batches.
    """

    def __init__(
        self, train_counts: ArrayLike, *, device: torch.device, reduce: Callable[[Tensor], Tensor]
    ) -> None:
        self._train_counts = train_counts
        self._device = device
        self._reduce = reduce
        self._losses: dict[str, Tensor] = {}
        self._num_losses = torch.zeros((), device=device)
        self._hits: dict[str, GroupMeter] = {}
        self.num_images = 0
        self.wait_seconds = 0.0
        self._started = time.perf_counter()

    def timed(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items, counting the time spent waiting for them."""
        iterator = iter(items)
        while True:
            before = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.wait_seconds += time.perf_counter() - before
            yield item

    def add(self, losses: dict[str, Tensor], hits: dict[str, Tensor], labels: Tensor) -> None:
        """Add one micro-batch of this process."""
        for name, loss in losses.items():
            total = self._losses.setdefault(name, torch.zeros((), device=self._device))
            total += loss.detach()
        self._num_losses += 1
        for task, hit in hits.items():
            self._task(task).add(hit, labels)

    def flush(self) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Return mean losses and accuracies by task and shot group, and start a new window."""
        names = list(self._losses)
        sums = self._reduce(torch.stack([*self._losses.values(), self._num_losses])).tolist()
        losses = {name: total / sums[-1] for name, total in zip(names, sums, strict=False)}
        accuracy = {task: meter.flush(reduce=self._reduce) for task, meter in self._hits.items()}
        for total in (*self._losses.values(), self._num_losses):
            total.zero_()
        return losses, accuracy

    def restart_clock(self) -> float:
        """Return the seconds of the window, and start the next one's."""
        now = time.perf_counter()
        seconds, self._started = now - self._started, now
        self.num_images, self.wait_seconds = 0, 0.0
        return seconds

    def state(self) -> dict[str, Tensor]:
        """Return the window's sums, for a checkpoint in the middle of it."""
        state = {f"loss.{name}": total for name, total in self._losses.items()}
        state |= {f"hits.{task}": meter.sums for task, meter in self._hits.items()}
        return state | {"num_losses": self._num_losses}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on with a window whose `state` was saved."""
        for name, value in state.items():
            kind, _, rest = name.partition(".")
            value = value.to(self._device)
            if kind == "loss":
                self._losses[rest] = value
            elif kind == "hits":
                self._task(rest).sums = value
            else:
                self._num_losses = value

    def _task(self, name: str) -> GroupMeter:
        if name not in self._hits:
            self._hits[name] = GroupMeter(self._train_counts, device=self._device)
        return self._hits[name]
