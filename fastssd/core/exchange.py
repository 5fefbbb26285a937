"""What processes exchange by name: safe where they hold other names, or shapes, than each other.

A collective of unequal shapes ends a process in C++, or hangs it, and one that goes by position
adds what does not belong together. So the processes first tell each other what they hold.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fastssd.errors import FastssdError


def main_says(
    number: int, *, is_main: bool, device: torch.device, reduce: Callable[[Tensor], Tensor]
) -> int:
    """Return the main process's number on all processes, whatever the others' is.

    What decides which collectives follow, such as whether a file is there, is asked in this way:
    on shared storage one process may see it and another not yet.
    """
    mine = torch.tensor([number if is_main else 0], dtype=torch.int64, device=device)
    return int(reduce(mine))


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """The exchange between the processes of a run; every method is called by all of them.

    Attributes:
        rank: This process.
        num_processes: Of the run. One alone calls none of the primitives to learn what it knows.
        device: Where the primitives below want tensors.
        gather: From (B, ...), of one shape on all processes, to (processes * B, ...), rank after
            rank.
        reduce: The sum over processes of a tensor, of one shape on all of them.
    """

    rank: int
    num_processes: int
    device: torch.device
    gather: Callable[[Tensor], Tensor]
    reduce: Callable[[Tensor], Tensor]

    def gathered(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return every process's tensors.

        Args:
            own: Of any types and shapes. A process may lack some.

        Returns:
            By sorted name, (processes, ...) on the device; zeros for a process that lacks the name.

        Raises:
            FastssdError: If a name has another type or shape on another process; on all of them.
        """
        return self._by_type(own, lambda values: self.gather(values[None]))

    def summed(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums over processes, by sorted name, on the device.

        Args:
            own: As of `gathered`.

        Raises:
            FastssdError: As of `gathered`.
        """
        sums = self._by_type(own, lambda values: self.reduce(values)[None])
        return {name: rows[0] for name, rows in sums.items()}

    def main_says(self, number: int) -> int:
        """Return the first process's number, whatever the others' is."""
        return main_says(number, is_main=self.rank == 0, device=self.device, reduce=self.reduce)

    def _by_type(
        self, own: Mapping[str, Tensor], exchange: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Return by name what an exchange of flat tensors makes, a call for each type."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, (dtype, shape) in self._agreed(own).items():
            value = own.get(name)
            if value is None:
                value = torch.zeros(shape, dtype=getattr(torch, dtype))
            parts.setdefault(dtype, {})[name] = value.to(self.device)
        found = {}
        for dtype in sorted(parts):
            values = parts[dtype]
            rows = exchange(torch.cat([value.flatten() for value in values.values()]))
            sizes = [value.numel() for value in values.values()]
            split = torch.split(rows, sizes, dim=1)
            for (name, value), part in zip(values.items(), split, strict=True):
                found[name] = part.reshape(len(rows), *value.shape)
        return {name: found[name] for name in sorted(found)}

    def _agreed(self, own: Mapping[str, Tensor]) -> dict[str, tuple[str, list[int]]]:
        """Return type and shape of what any process holds, by sorted name."""
        mine = {
            name: (str(value.dtype).removeprefix("torch."), list(value.shape))
            for name, value in sorted(own.items())
        }
        if self.num_processes == 1:
            return mine
        all_of_them: dict[str, tuple[str, list[int]]] = {}
        for rank, text in enumerate(self._texts(json.dumps(mine))):
            for name, (dtype, shape) in json.loads(text).items():
                known = all_of_them.setdefault(name, (dtype, shape))
                if known != (dtype, shape):
                    raise FastssdError(
                        f"the processes of this run disagree: {name} is {known[0]} {known[1]} on "
                        f"one and {dtype} {shape} on rank {rank}; start the same command again, "
                        "and report it if that does not help"
                    )
        return dict(sorted(all_of_them.items()))

    def _texts(self, text: str) -> list[str]:
        """Return every process's text."""
        content = text.encode()
        lengths = self.gather(torch.tensor([len(content)], device=self.device)).tolist()
        padded = torch.frombuffer(bytearray(content.ljust(max(lengths))), dtype=torch.uint8)
        rows = self.gather(padded[None].to(self.device)).cpu().numpy()
        return [bytes(row[:n]).decode() for row, n in zip(rows, lengths, strict=True)]
