"""Streams of a GPU that there is not: copies happen as late, and memory is used as soon, as it may.

A copy from page-locked memory reads it when its result is first used, or when the host waits for
it. Memory that was given to others before has their values then. What was copied on another stream
may be used only after an event that follows the copy was waited for.
"""

import ctypes
from contextlib import contextmanager

import torch


class UsedTooEarlyError(AssertionError):
    """The result of a copy was used on a stream that had not waited for the copy."""


class _Copy:
    """A copy that was asked for.

    Args:
        source: Page-locked and without gaps; it is not kept alive.
        to: Of the same layout.
        stream: Where it was asked for.
    """

    def __init__(self, source, to, stream):
        self._address, self._to, self._stream = source.data_ptr(), to, stream
        self.seen_by = {stream}
        self.done = False

    def do(self):
        if not self.done:
            ctypes.memmove(self._to.data_ptr(), self._address, self._to.nbytes)
            self.done = True
            self._stream.copies.remove(self)


class Stream:
    """As torch.cuda.Stream."""

    def __init__(self, device=None):
        self.device = torch.device("cuda", 0)
        self.copies = []

    def wait_event(self, event):
        for copy in event.copies:
            copy.seen_by.add(self)


class Event:
    """As torch.cuda.Event."""

    def __init__(self):
        self.copies = []

    def record(self, stream):
        self.copies = list(stream.copies)

    def query(self):
        return all(copy.done for copy in self.copies)

    def synchronize(self):
        for copy in self.copies:
            copy.do()


class Streams:
    """The streams of the thread that trains, and its page-locked memory."""

    def __init__(self):
        self._current = Stream()
        self._blocks = []  # never freed, as late copies read what may be given to others
        self._copies = {}  # by the address of their results' memory

    def current(self, device=None):
        return self._current

    @contextmanager
    def on(self, stream):
        """As torch.cuda.stream."""
        before, self._current = self._current, stream or self._current
        try:
            yield
        finally:
            self._current = before

    def pin(self, block):
        """Note that memory is page-locked."""
        self._blocks.append(block)
        return block

    def is_pinned(self, tensor):
        return not tensor.is_cuda and any(
            block.data_ptr() <= tensor.data_ptr() < block.data_ptr() + block.nbytes
            for block in self._blocks
        )

    def copy(self, source, to):
        """Copy page-locked memory without gaps at some time."""
        copy = _Copy(source, to, self._current)
        self._current.copies.append(copy)
        self._copies[to.untyped_storage().data_ptr()] = copy

    def use(self, held):
        """Note that values are used now.

        Raises:
            UsedTooEarlyError: If they come from a copy that this stream has not waited for.
        """
        copy = self._copies.get(held.untyped_storage().data_ptr())
        if copy is None:
            return
        if self._current not in copy.seen_by:
            raise UsedTooEarlyError(f"{tuple(held.shape)} comes from a copy on another stream")
        copy.do()
        del self._copies[held.untyped_storage().data_ptr()]
