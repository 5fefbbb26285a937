"""A stage folder's checkpoints and logs, kept so that a process may be killed at any moment.

Two checkpoints are kept. Each knows how long the logs were and what was in them, so that a stage
that goes on from it finds neither a line too many nor one too few.
"""

import dataclasses
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from fastssd.core.exchange import Exchange
from fastssd.core.files import sync, sync_path, writing
from fastssd.core.reading import open_regular, reading
from fastssd.errors import DataError
from fastssd.training.checkpoints import DamagedError, check_file, load_checkpoint, save_checkpoint

CHECKPOINT = "checkpoint.safetensors"
METRICS, TRACE = "metrics.jsonl", "trace.jsonl"

_NEXT, _PREVIOUS = "checkpoint.next.safetensors", "checkpoint.previous.safetensors"
_DAMAGED = "checkpoint.damaged.safetensors"
_GENERATIONS = (_NEXT, CHECKPOINT, _PREVIOUS)
"""From the newest. The first is there only where a process was killed as it took its place."""
_NONE_IS_WHOLE = len(_GENERATIONS) + 1
_STATISTICS = ("running_mean", "running_var")
_READ_BYTES = 1 << 22
_BUFFER, _WINDOW = "buffer.", "window."


@dataclass(kw_only=True)
class Progress:
    """Where a stage's training is; saved with every checkpoint.

    Attributes:
        epoch: Finished epochs, with their evaluation.
        step: Finished steps over all epochs.
        images: Images that training consumed, over all processes.
        seconds: Of training, without evaluation, checkpoints and earlier processes' set-up.
        wait_seconds: Of them, waiting for batches.
        best: Best validation accuracy of the mean class in percent, None before the first.
    """

    epoch: int = 0
    step: int = 0
    images: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    best: float | None = None


class Resume:
    """Saves and loads a stage's training in its folder, on all processes together.

    Args:
        folder: The stage's. All processes see the same one.
        recipe: Digest of what the stage is trained by; a checkpoint of another is not gone on from.
        accelerator: Processes and the loss scaler.
        exchange: Between the processes.
        warn: Told of damaged files that there is a way around.
    """

    def __init__(
        self,
        folder: Path,
        *,
        recipe: str,
        accelerator: Accelerator,
        exchange: Exchange,
        warn: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._recipe = recipe
        self._accelerator = accelerator
        self._exchange = exchange
        self._warn = warn

    def save(
        self,
        progress: Progress,
        *,
        stage: nn.Module,
        optimizer: torch.optim.Optimizer,
        window: dict[str, Tensor],
    ) -> None:
        """Write a checkpoint; the one before it stays.

        Args:
            progress: Where training is.
            stage: Not wrapped. BatchNorm's running statistics may differ between processes.
            optimizer: The same on all processes.
            window: Sums of this process since the last log line.

        Raises:
            DataError: If it can't be written. The checkpoints that there were are as before.
        """
        of_all = self._exchange.gathered(_own_state(stage, window))
        if self._accelerator.is_main_process:
            scaler = self._accelerator.scaler
            logs = {}
            for name in (METRICS, TRACE):
                sync(self._folder / name)
                logs[name] = _length_and_sum(self._folder / name)
            save_checkpoint(
                self._folder / _NEXT,
                module=stage,
                optimizer=optimizer,
                tensors=of_all,
                progress={
                    **dataclasses.asdict(progress),
                    "recipe": self._recipe,
                    "logs": logs,
                    "scaler": None if scaler is None else scaler.state_dict(),
                },
            )
            self._next_takes_its_place()
        self._accelerator.wait_for_everyone()

    def load(
        self, *, stage: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[Progress, dict[str, Tensor]]:
        """Go on from the last checkpoint that is whole; without any, from the beginning.

        Args:
            stage: Its state is set.
            optimizer: Its state is set.

        Returns:
            Where training is, and this process's sums since the last log line.

        Raises:
            DataError: If there are checkpoints and none of them can be used.
        """
        candidates = [self._folder / name for name in _GENERATIONS]
        chosen = self._exchange.main_says(self._choice(candidates))
        if chosen == _NONE_IS_WHOLE:
            raise DataError(
                f"{self._folder}: every checkpoint is damaged (the lines above say how); delete "
                "the folder to train the stage from its beginning"
            )
        progress, window = Progress(), dict[str, Tensor]()
        logs: dict[str, Any] = {}
        if chosen < len(candidates):
            tensors, saved = load_checkpoint(candidates[chosen], module=stage, optimizer=optimizer)
            logs, scaler = saved.pop("logs"), saved.pop("scaler")
            del saved["recipe"]
            if scaler is not None and self._accelerator.scaler is not None:
                self._accelerator.scaler.load_state_dict(scaler)
            progress = Progress(**saved)
            window = self._take_own(tensors, stage)
        self._accelerator.wait_for_everyone()  # All have read; now the names may change.
        if self._accelerator.is_main_process:
            self._put_in_order(candidates, chosen, logs)
        return progress, window

    def _choice(self, candidates: list[Path]) -> int:
        """Return which checkpoint to go on from: the last whole one whose logs are whole too."""
        if not self._accelerator.is_main_process:
            return 0
        found = [path for path in candidates if path.exists()]
        if not found:
            return len(candidates)
        whole = []
        for path in found:
            try:
                saved = self._checked(path)
            except DamagedError as error:
                self._warn(f"{error.args[0]}. The checkpoint before it is looked at.")
                continue
            whole.append(path)
            if not (damaged := self._damaged_logs(saved)):
                return candidates.index(path)
            self._warn(
                f"{', '.join(damaged)}: shorter than, or other than, when {path.name} was written"
            )
        return candidates.index(whole[0]) if whole else _NONE_IS_WHOLE

    def _checked(self, path: Path) -> dict[str, Any]:
        saved = check_file(path)
        missing = {"recipe", "logs", "scaler", "epoch", "step"} - saved.keys()
        if missing:
            raise DamagedError(f"{path}: not a checkpoint of a stage (no {', '.join(missing)})")
        if saved["recipe"] != self._recipe:
            raise DamagedError(
                f"{path}: of another run, of other settings or of another dataset: it was not "
                f"trained by what {self._folder.name}/stage.json says"
            )
        return saved

    def _damaged_logs(self, saved: dict[str, Any]) -> list[str]:
        return [
            str(self._folder / name)
            for name, (length, checksum) in saved["logs"].items()
            if _length_and_sum(self._folder / name, length) != (length, checksum)
        ]

    def _put_in_order(self, candidates: list[Path], chosen: int, logs: dict[str, Any]) -> None:
        """Move damaged checkpoints out of the way of good ones, and cut logs that go beyond."""
        if chosen < len(candidates):
            for path in candidates[:chosen]:
                if path.exists():
                    with writing(path):
                        path.replace(self._folder / _DAMAGED)
            if candidates[chosen].name == _NEXT:
                self._next_takes_its_place()
        for name in (METRICS, TRACE):
            length, _ = logs.get(name, (0, 0))
            path = self._folder / name
            if path.exists() and path.stat().st_size > length:
                with writing(path):
                    os.truncate(path, length)

    def _next_takes_its_place(self) -> None:
        path = self._folder / CHECKPOINT
        with writing(path):
            if path.exists():
                path.replace(self._folder / _PREVIOUS)
            (self._folder / _NEXT).replace(path)
            sync_path(self._folder)

    def _take_own(self, of_all: dict[str, Tensor], stage: nn.Module) -> dict[str, Tensor]:
        """Set this process's BatchNorm statistics, and return its sums.

        With another number of processes than before all take the mean of the statistics, and the
        main one all sums, of which the others have zeros.
        """
        window = {}
        buffers = dict(stage.named_buffers())
        rank, num_processes = self._accelerator.process_index, self._accelerator.num_processes
        for name, rows in of_all.items():
            same = len(rows) == num_processes
            if name.startswith(_BUFFER):
                own = rows[rank] if same else rows.mean(dim=0)
                buffers[name.removeprefix(_BUFFER)].copy_(own)
            elif same:
                window[name.removeprefix(_WINDOW)] = rows[rank]
            else:
                total = rows.sum(dim=0)
                mine = total if self._accelerator.is_main_process else torch.zeros_like(total)
                window[name.removeprefix(_WINDOW)] = mine
        return window


def _own_state(stage: nn.Module, window: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what a process has of its own: all else is the same on every one."""
    return {f"{_BUFFER}{name}": value for name, value in _statistics(stage)} | {
        f"{_WINDOW}{name}": value for name, value in window.items()
    }


def _statistics(stage: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, value in stage.named_buffers():
        if name.rpartition(".")[2] in _STATISTICS:
            yield name, value


def _length_and_sum(path: Path, length: int | None = None) -> tuple[int, int]:
    """Return the length and CRC-32 of a file, or of its beginning; a missing one is empty."""
    num_bytes, checksum = 0, 0
    if path.exists():
        with reading(path), open_regular(path) as file:
            left = os.fstat(file.fileno()).st_size if length is None else length
            while part := file.read(min(left - num_bytes, _READ_BYTES)):
                num_bytes += len(part)
                checksum = zlib.crc32(part, checksum)
    return num_bytes, checksum
