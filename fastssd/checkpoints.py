"""Saving and loading what a training run needs to go on: one file, written whole or not at all.

Tensors are kept by safetensors, everything else as JSON in the same file's header, so that
loading executes nothing.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fastssd.errors import DataError

WEIGHTS = {"last": "weights.safetensors", "best": "best.safetensors"}
"""Files of a stage's folder: after its last epoch, and at its best on the validation split."""

_MODEL, _OPTIMIZER, _EXTRA = "model.", "optimizer.", "extra."


def save_weights(path: Path, module: nn.Module) -> None:
    """Write a module's state dict."""
    _write(path, {name: _plain(value) for name, value in module.state_dict().items()}, {})


def load_weights(path: Path, module: nn.Module) -> None:
    """Set a module's state to that of a file that `save_weights` wrote.

    Raises:
        DataError: If the file is missing or damaged, or is of another module.
    """
    tensors, _ = _read(path)
    _load_state(path, module, tensors)


def save_checkpoint(
    path: Path,
    *,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: dict[str, Tensor],
    progress: dict[str, Any],
) -> None:
    """Write everything that training goes on from.

    Args:
        path: The file; an older one is replaced once the new one is safely on the disk.
        module: Its whole state dict is kept.
        optimizer: Its whole state is kept.
        tensors: Further tensors by name.
        progress: Whatever else, as JSON has it.
    """
    state = optimizer.state_dict()
    content = {_MODEL + name: _plain(value) for name, value in module.state_dict().items()}
    content |= {_EXTRA + name: _plain(value) for name, value in tensors.items()}
    numbers: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                content[f"{_OPTIMIZER}{index}.{name}"] = _plain(value)
            else:
                numbers.setdefault(str(index), {})[name] = value
    header = {
        "progress": json.dumps(progress),
        "optimizer": json.dumps({"numbers": numbers, "groups": state["param_groups"]}),
    }
    _write(path, content, header)


def load_checkpoint(
    path: Path, *, module: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Set module and optimizer to a checkpoint's state.

    Returns:
        The further tensors, and the progress, that were saved.

    Raises:
        DataError: If the file is missing or damaged, or is of another module.
    """
    tensors, header = _read(path)
    try:
        saved = json.loads(header["optimizer"])
        progress = json.loads(header["progress"])
        state = {int(index): dict(values) for index, values in saved["numbers"].items()}
        groups = saved["groups"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a checkpoint ({error!r}); {_REMEDY}") from error
    _load_state(path, module, _below(_MODEL, tensors))
    for name, value in _below(_OPTIMIZER, tensors).items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    try:
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except ValueError as error:
        raise DataError(f"{path} is of another optimizer: {error}; {_REMEDY}") from error
    _lay_out_as_parameters(optimizer)
    return _below(_EXTRA, tensors), progress


_REMEDY = "delete it to train the stage from its beginning"


def _plain(value: Tensor) -> Tensor:
    """Return the tensor as safetensors stores it; a shared or strided one would be refused."""
    return value.detach().cpu().contiguous().clone()


def _lay_out_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimizer's tensors the strides of their parameters, such as channels-last.

    Fused optimizers take it for granted, and otherwise mix up the elements without a word.
    """
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _load_state(path: Path, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is of another network: {reason}; {_REMEDY}") from error


def _write(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    try:
        save_file(tensors, partial, metadata=header)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not readable ({error}); {_REMEDY}") from error
