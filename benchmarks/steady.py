"""How fast batches come once they come steadily: the first and the last of a repeat do not count.

A loader works ahead of who takes its batches. So the first ones come late, the ones after them may
have been begun before the clock was started, and at the end nothing is in the making any more: of
few batches, a rate says little. Here as many as may be in flight come before the counted ones and
after them.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """Which batches of a repeat count.

    Attributes:
        ahead: Before those that count, and again after them.
        counted: In between.
    """

    ahead: int
    counted: int

    @classmethod
    def of(cls, threads: int, *, counted: int, least_ahead: int = 4) -> "Span":
        """Return the span of loaders with so many threads or processes.

        Two batches of each are in flight at most: PyTorch's DataLoader has so many.

        Args:
            threads: Of the loader.
            counted: Batches at least; where there are many threads, four of each.
            least_ahead: Batches ahead at least.
        """
        return cls(max(least_ahead, 2 * threads), max(counted, 4 * threads))

    def of_parts(self, number: int) -> "Span":
        """Return the span where every batch comes in so many parts."""
        return Span(number * self.ahead, number * self.counted)

    @property
    def total(self) -> int:
        """Batches of a repeat."""
        return self.counted + 2 * self.ahead

    def seconds_per_batch(self, batches: Iterable[object]) -> float:
        """Take all batches, and return the mean seconds of one that counts.

        Raises:
            ValueError: If there are not `total` batches.
        """
        started = ended = 0.0
        number = 0
        for number, _ in enumerate(batches, start=1):
            if number == self.ahead:
                started = time.perf_counter()
            elif number == self.ahead + self.counted:
                ended = time.perf_counter()
        if number != self.total:
            raise ValueError(f"{number} batches came, where {self.total} were asked for")
        return (ended - started) / self.counted
