"""Saving and loading what a training run needs to go on: one file, written whole or not at all.

Tensors are kept by safetensors, everything else as JSON in the same file's header, so that
loading executes nothing. The header also says which file of which folder it is and has the SHA-256
of everything else, so that a damaged file, or one in another's place, is not taken for a good one.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fastssd.core.files import write_atomically
from fastssd.core.reading import check_regular, parse_json
from fastssd.errors import DataError, FastssdError

WEIGHTS = {"last": "weights.safetensors", "best": "best.safetensors"}
"""Files of a stage's folder: after its last epoch, and at its best on the validation split."""

_MODEL, _OPTIMIZER, _EXTRA = "model.", "optimizer.", "extra."
_MADE_BY = "made_by"
_SEAL = "fastssd"  # which file this is, and the SHA-256 of everything else


class DamagedError(DataError):
    """A file is missing, torn or altered, or stands where another belongs."""


class DivergedError(FastssdError):
    """Numbers that are to be kept are not finite; nothing was written, the old file is there."""


def save_weights(path: Path, module: nn.Module, *, made_by: str = "") -> None:
    """Write a module's state dict.

    Args:
        path: The file.
        module: Whose state it is.
        made_by: What the weights were trained by, for `weights_made_by`.

    Raises:
        DivergedError: If a number of it is not finite.
        DataError: If the file cannot be written.
    """
    content = {name: _plain(value) for name, value in module.state_dict().items()}
    _check_finite(path, content)
    _write(path, content, {_MADE_BY: made_by} if made_by else {})


def weights_made_by(path: Path) -> str:
    """Return what `save_weights` was told that the weights were trained by.

    Raises:
        DamagedError: If the file is missing, torn, altered or another.
    """
    _, header = _read(path)
    return header.get(_MADE_BY, "")


def load_weights(path: Path, module: nn.Module) -> None:
    """Set a module's state to that of a file that `save_weights` wrote.

    Raises:
        DamagedError: If the file is missing, torn, altered or another.
        DataError: If it is of another module.
    """
    tensors, _ = _read(path)
    _load_state(path, module, tensors)


def check_file(path: Path) -> dict[str, Any]:
    """Return the progress in a file that was written here, {} in one of weights.

    Raises:
        DamagedError: If the file is missing, torn, altered or another.
    """
    _, header = _read(path)
    try:
        progress: dict[str, Any] = parse_json(header.get("progress", "{}"), dict)
    except ValueError as error:
        raise DamagedError(f"{path}: not a checkpoint ({error!r}); {_REMEDY}") from error
    return progress


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

    Raises:
        DivergedError: If a number of module or optimizer is not finite.
        DataError: If the file cannot be written.
    """
    state = optimizer.state_dict()
    content = {_MODEL + name: _plain(value) for name, value in module.state_dict().items()}
    numbers: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                content[f"{_OPTIMIZER}{index}.{name}"] = _plain(value)
            else:
                numbers.setdefault(str(index), {})[name] = value
    _check_finite(path, content)
    content |= {_EXTRA + name: _plain(value) for name, value in tensors.items()}
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
        DamagedError: If the file is missing, torn, altered or another.
        DataError: If it is of another module.
    """
    tensors, header = _read(path)
    try:
        saved = parse_json(header["optimizer"], dict)
        progress: dict[str, Any] = parse_json(header["progress"], dict)
        state = {int(index): dict(values) for index, values in saved["numbers"].items()}
        groups = saved["groups"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"{path}: not a checkpoint ({error!r}); {_REMEDY}") from error
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


def _check_finite(path: Path, tensors: dict[str, Tensor]) -> None:
    # Here, where the numbers are on the host anyway: no step waits for it.
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise DivergedError(
                f"{path.parent.name}: {name} is not finite, so {path.name} was not written"
            )


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
    seal = {"file": _place(path), "sha256": _digest(tensors, header)}
    # All that weights say stands in one key: safetensors would put two in any order.
    if _MADE_BY in header:
        seal[_MADE_BY] = header[_MADE_BY]
        header = {key: value for key, value in header.items() if key != _MADE_BY}
    write_atomically(path, save(tensors, {**header, _SEAL: json.dumps(seal)}))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header: dict[str, str] = file.metadata() or {}
        seal = parse_json(header.pop(_SEAL, "{}"), dict)
        place, digest = seal.get("file"), seal.get("sha256")
        if made_by := str(seal.get(_MADE_BY, "")):
            header[_MADE_BY] = made_by
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        # A header that is damaged may name anything for a type or a shape.
        raise DamagedError(f"{path}: not readable ({error}); {_REMEDY}") from error
    if digest != _digest(tensors, header):
        raise DamagedError(
            f"{path}: {'was altered since it was written' if digest else 'has no checksum'}; "
            f"{_REMEDY}"
        )
    if place != _place(path):
        raise DamagedError(f"{path}: was written as {place}; {_REMEDY}")
    return tensors, header


def _place(path: Path) -> str:
    """Return what a file is in a run directory, whichever generation of it."""
    return f"{path.parent.name}/{path.name.partition('.')[0]}"


def _digest(tensors: dict[str, Tensor], header: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(sorted(header.items())).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
