"""What the main process alone looks at, decided for all: a refusal ends every process alike."""

import json
from collections.abc import Callable

import torch

from fastssd.errors import ConfigError, DataError, FastssdError
from fastssd.runtime.context import Context

_KINDS = {kind.exit_code: kind for kind in (FastssdError, ConfigError, DataError)}


def decided_by_main(decide: Callable[[], bool | None], context: Context) -> bool:
    """Return on all processes what the main one decides; all of them call this.

    Args:
        decide: Called on the main process alone; None, of one that only refuses, is False.
        context: The run.

    Raises:
        FastssdError: What `decide` raised, with its message and exit code, on all processes.
    """
    answer, exit_code, text = False, 0, b""
    if context.is_main:
        try:
            answer = bool(decide())
        except FastssdError as error:
            exit_code = error.exit_code
            text = json.dumps([str(message) for message in error.args]).encode()
    device = context.workers.device
    told = context.processes.reduce(
        torch.tensor([int(answer), exit_code, len(text)], device=device)
    )
    answered, exit_code, length = told.tolist()
    if exit_code:
        letters = torch.zeros(length, dtype=torch.int64, device=device)
        if context.is_main:
            letters = torch.tensor(list(text), dtype=torch.int64, device=device)
        said = bytes(context.processes.reduce(letters).tolist())
        raise _KINDS[exit_code](*json.loads(said))
    return bool(answered)
