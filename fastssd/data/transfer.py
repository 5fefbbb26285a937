"""Bringing batches to the device: few copies, beside the computing, nothing waits."""

import math
from collections import deque
from functools import cache

import torch
from torch import Tensor

from fastssd.core.buffers import Buffers

_ALONE = 1 << 20
"""Bytes from which an array is copied alone: gathering it with others would cost more."""
_ALIGNED = 16
"""Bytes between the beginnings of arrays that lie together: a multiple of every item's size."""


def packed(batch: dict[str, Tensor], buffers: Buffers) -> dict[str, Tensor]:
    """Return a batch whose arrays lie in the buffers, all small ones in one.

    One copy then brings them to the device together (`Transfer`). Arrays in page-locked memory, or
    on a device, stay where they are.

    Args:
        batch: Made on the host.
        buffers: Page-locked, for a GPU.
    """
    small = {name: t for name, t in batch.items() if t.nbytes < _ALONE and not _in_place(t)}
    ends: dict[str, int] = {}
    end = 0
    for name, values in small.items():
        end = _round_up(end) + values.nbytes
        ends[name] = end
    block = torch.from_numpy(buffers.empty(end))
    found: dict[str, Tensor] = {}
    for name, values in batch.items():
        if name in small:
            place = block[ends[name] - values.nbytes : ends[name]]
        elif _in_place(values):
            found[name] = values
            continue
        else:
            place = torch.from_numpy(buffers.empty(values.nbytes))
        found[name] = place.view(values.dtype).view(values.shape).copy_(values)
    return found


class Transfer:
    """Copies batches to a device.

    To a GPU it copies on a stream of its own: from page-locked memory the host does not wait, and
    the stream that uses the batch waits for the copy alone. What a copy reads is kept alive until
    it is over.

    Args:
        device: Where batches are wanted.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = _copy_stream(device) if device.type == "cuda" else None
        self._under_way: deque[tuple[torch.cuda.Event, dict[str, Tensor]]] = deque()

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the batch on the device; arrays that are there stay."""
        if self._stream is None:
            return to_device(batch, self._device)
        while self._under_way and self._under_way[0][0].query():  # type: ignore[no-untyped-call]
            self._under_way.popleft()
        using = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            moved = to_device(batch, self._device)
            over = torch.cuda.Event()  # type: ignore[no-untyped-call]
            over.record(self._stream)
        using.wait_event(over)
        for values in moved.values():
            values.record_stream(using)  # its memory may be given away only after that
        self._under_way.append((over, batch))
        return moved

    def finish(self) -> None:
        """Wait for the copies that are under way, and let go of what they read."""
        while self._under_way:
            self._under_way.popleft()[0].synchronize()


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream for copies to a GPU.

    One, because memory that was allocated for a stream is kept for it: with a stream for each pass
    over a split, what each pass used would lie idle.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return a batch of the host on the device; arrays of one block of memory are copied as one."""
    if device.type == "cpu":
        return dict(batch)
    blocks: dict[int, list[str]] = {}
    for name, values in batch.items():
        blocks.setdefault(values.untyped_storage().data_ptr(), []).append(name)
    moved: dict[str, Tensor] = {}
    for names in blocks.values():
        if len(names) == 1 or not all(batch[name].is_contiguous() for name in names):
            moved |= {name: batch[name].to(device, non_blocking=True) for name in names}
            continue
        storage = batch[names[0]].untyped_storage()
        block = torch.empty(0, dtype=torch.uint8, device=batch[names[0]].device).set_(storage)
        copy = block.to(device, non_blocking=True)
        for name in names:
            values = batch[name]
            start = values.storage_offset() * values.element_size()
            place = copy[start : start + values.nbytes]
            moved[name] = place.view(values.dtype).view(values.shape)
    return {name: moved[name] for name in batch}


def _in_place(values: Tensor) -> bool:
    """Return whether an array needs no copy into page-locked memory."""
    return values.device.type != "cpu" or values.is_pinned()


def _round_up(num_bytes: int) -> int:
    return math.ceil(num_bytes / _ALIGNED) * _ALIGNED
