"""What happened since the last log line: losses and hits summed on the device, time on the host."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastssd.evaluation.metrics import GroupMeter

Item = TypeVar("Item")

_FOLD = 64
"""Micro-batches whose losses and hits wait to be summed together: a step then costs the host an
entry in a list, and the device's sums a few launches in 64 steps."""

_LOSS, _WAITING, _HITS, _NUM_LOSSES = "loss.", "waiting.", "hits.", "num_losses"
"""Keys of a state, the first three followed by the name of a loss or a task."""


class Meter:
    """Sums of one window of steps. Only `flush` waits for the device.

    Sums are taken of the same groups of micro-batches wherever a run was stopped and resumed, so
    that they have the same bits.

    Args:
        train_counts: (C,) training images of each class, which decide the shot groups.
        device: Where the sums stay.
        total: Sums tensors over processes by their names, of which a process may lack some.

    Attributes:
        num_images: Images of all processes in the window.
        wait_seconds: Seconds that the window waited for batches.
    """

    def __init__(
        self,
        train_counts: ArrayLike,
        *,
        device: torch.device,
        total: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    ) -> None:
        self._train_counts = train_counts
        self._device = device
        self._total = total
        self._sums: dict[str, Tensor] = {}
        self._losses: dict[str, list[Tensor]] = {}
        self._num_losses = 0
        self._num_waiting = 0
        self._groups: dict[str, GroupMeter] = {}
        self._hits: dict[str, list[Tensor]] = {}
        self._labels: dict[str, list[Tensor]] = {}
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
        """Add one micro-batch of this process.

        Args:
            losses: Scalars, fresh ones at every call.
            hits: (B,) bool by task, fresh ones at every call.
            labels: (B,) int64; copied, as a loader may fill them anew.
        """
        for name, loss in losses.items():
            self._losses.setdefault(name, []).append(loss.detach())
        labels = labels.clone()
        for task, hit in hits.items():
            self._group(task)  # which reaches the device now, at the first step, and not later
            self._hits.setdefault(task, []).append(hit)
            self._labels.setdefault(task, []).append(labels)
        self._num_losses += 1
        self._num_waiting += 1
        if self._num_waiting == _FOLD:
            self._fold_losses()
            self._fold_hits()

    def flush(self) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Return mean losses and accuracies by task and shot group, and start a new window.

        All processes call it.
        """
        self._fold_losses()
        self._fold_hits()
        own = {_LOSS + name: total for name, total in self._sums.items()}
        own |= {_HITS + task: meter.sums for task, meter in self._groups.items()}
        own[_NUM_LOSSES] = torch.full((), float(self._num_losses), device=self._device)
        sums = self._total(own)
        means = [total for name, total in sums.items() if name.startswith(_LOSS)]
        *means, count = torch.stack([*means, sums[_NUM_LOSSES]]).tolist()
        names = [name.removeprefix(_LOSS) for name in sums if name.startswith(_LOSS)]
        losses = {name: total / count for name, total in zip(names, means, strict=True)}
        accuracy = {}
        for name, total in sums.items():
            if name.startswith(_HITS):
                meter = self._group(name.removeprefix(_HITS))
                meter.sums = total
                accuracy[name.removeprefix(_HITS)] = meter.flush()
        for total in self._sums.values():
            total.zero_()
        self._num_losses = 0
        return losses, accuracy

    def restart_clock(self) -> float:
        """Return the seconds of the window, and start the next one's."""
        now = time.perf_counter()
        seconds, self._started = now - self._started, now
        self.num_images, self.wait_seconds = 0, 0.0
        return seconds

    def state(self) -> dict[str, Tensor]:
        """Return the window's sums and what waits for them, for a checkpoint in its middle."""
        self._fold_hits()  # whole numbers, whose sums do not depend on the groups
        state = {_LOSS + name: total for name, total in self._sums.items()}
        state |= {_WAITING + name: torch.stack(each) for name, each in self._losses.items()}
        state |= {_HITS + task: meter.sums for task, meter in self._groups.items()}
        return state | {_NUM_LOSSES: torch.tensor(self._num_losses)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on with a window whose `state` was saved."""
        for name, value in state.items():
            value = value.to(self._device)
            if name.startswith(_LOSS):
                self._sums[name.removeprefix(_LOSS)] = value
            elif name.startswith(_WAITING):
                self._losses[name.removeprefix(_WAITING)] = list(value.unbind())
                self._num_waiting = len(value)
            elif name.startswith(_HITS):
                self._group(name.removeprefix(_HITS)).sums = value
            else:
                self._num_losses = int(value)

    def _fold_losses(self) -> None:
        """Add the losses that wait to their sums."""
        for name, waiting in self._losses.items():
            total = torch.stack(waiting).float().sum()
            if name in self._sums:
                self._sums[name] += total
            else:
                self._sums[name] = total
        self._losses.clear()
        self._num_waiting = 0

    def _fold_hits(self) -> None:
        """Add the hits that wait to their groups' sums."""
        for task, waiting in self._hits.items():
            self._group(task).add(torch.cat(waiting), torch.cat(self._labels[task]))
        self._hits.clear()
        self._labels.clear()

    def _group(self, task: str) -> GroupMeter:
        if task not in self._groups:
            self._groups[task] = GroupMeter(self._train_counts, device=self._device)
        return self._groups[task]
