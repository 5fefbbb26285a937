"""Digests of what every step saw, to compare runs: draws, pixels and losses, a line a step."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fastssd.core.files import append
from fastssd.data.draws import Draws


class Trace:
    """Writes trace.jsonl: for each step a digest of the global batch's draws and pixels.

    It waits for the device and exchanges every batch between processes: for tests, not for speed.

    Args:
        path: The file; lines are added.
        gather: Concatenates a tensor over processes, rank after rank.
        device: Where `gather` wants tensors.
        enabled: Whether this process writes.
    """

    def __init__(
        self, path: Path, *, gather: Callable[[Tensor], Tensor], device: torch.device, enabled: bool
    ) -> None:
        self._path = path
        self._gather = gather
        self._device = device
        self._enabled = enabled
        self._micro_batches: list[tuple[Tensor, Tensor]] = []

    def add(self, draws: Draws, checksums: Tensor | None, losses: dict[str, Tensor]) -> None:
        """Note this process's share of a micro-batch."""
        rows = torch.stack([torch.from_numpy(draws.samples), torch.from_numpy(draws.views)], dim=1)
        rows = rows.to(self._device)
        if checksums is not None:
            rows = torch.cat([rows, checksums[:, None]], dim=1)
        total = torch.stack([loss.detach().float() for loss in losses.values()]).sum()
        self._micro_batches.append((self._gather(rows), self._gather(total[None]).mean()))

    def step(self, epoch: int, step: int) -> None:
        """Write the line of a step whose micro-batches were all added."""
        rows = torch.cat([rows for rows, _ in self._micro_batches]).cpu().numpy()
        loss = torch.stack([loss for _, loss in self._micro_batches]).mean().item()
        self._micro_batches.clear()
        if self._enabled:
            digest = hashlib.sha256(rows.tobytes()).hexdigest()
            line = {"epoch": epoch, "step": step, "digest": digest, "loss": loss}
            append(self._path, json.dumps(line) + "\n")
