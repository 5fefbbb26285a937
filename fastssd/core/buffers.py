"""Memory of the host for batches, used again as soon as nothing refers to it any more."""

import math
import weakref
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]


class Buffers:
    """Hands out uint8 arrays and takes their memory back when the last reference to them is gone.

    A reference is the array, any view of it, and any tensor that was made from one of them: what
    a consumer keeps is never overwritten. So there are as many blocks of memory as batches in
    flight, however large the images were that the batches were made from. Safe to use from several
    threads.

    Args:
        keep: Blocks that wait for their next use at most; further ones are freed.
        pin_memory: Page-lock them, so that they are copied to a GPU without waiting.
    """

    def __init__(self, *, keep: int, pin_memory: bool = False) -> None:
        self._keep = keep
        self._pin_memory = pin_memory
        self._waiting: deque[memoryview] = deque()  # its operations are atomic

    def empty(self, *shape: int) -> UInt8:
        """Return an array of this shape; it holds anything."""
        num_bytes = math.prod(shape)
        block = self._block(num_bytes)
        # NumPy keeps the first array over memory that is not its own as the base of all views.
        array: UInt8 = np.frombuffer(block, dtype=np.uint8, count=num_bytes)
        weakref.finalize(array, self._take_back, block).atexit = False
        return array.reshape(shape)

    def _block(self, num_bytes: int) -> memoryview:
        """Return at least so much memory: a block that waits, or a new one."""
        while self._waiting:
            try:
                block = self._waiting.pop()
            except IndexError:  # another thread was faster
                break
            if block.nbytes >= num_bytes:
                return block
        if self._pin_memory:
            pinned = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
            return pinned.numpy().data
        return np.empty(num_bytes, dtype=np.uint8).data

    def _take_back(self, block: memoryview) -> None:
        if len(self._waiting) < self._keep:
            self._waiting.append(block)
