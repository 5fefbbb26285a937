"""Making a table: one pass of a frozen network over draws, written by all processes at once."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastssd.augment.augmentation import Augmentation
from fastssd.data.dataset import META_FILE
from fastssd.data.sharding import contiguous_share
from fastssd.stages import table as tables
from fastssd.stages.context import Context, Stream
from fastssd.stages.evaluate import in_order
from fastssd.stages.feeds import finished
from fastssd.stages.networks import FrozenNetwork
from fastssd.stages.table import Rows, Table


def tabulated(
    directory: Path, frozen: FrozenNetwork, rows: Rows, *, stream: Stream, context: Context
) -> Table:
    """Return the table of a frozen network's logits, made first if it is not there.

    Args:
        directory: The table's.
        frozen: On its device.
        rows: The draws to tabulate.
        stream: Of their views.
        context: The run.

    Raises:
        DataError: If there is a finished table of something else.
    """
    wanted = _manifest(frozen, rows, stream=stream, context=context)
    if (directory / tables.MANIFEST).exists():
        tables.check_manifest(directory, wanted)
        return Table(directory, rows)
    if context.is_main:
        tables.create(directory, rows, num_classes=context.num_classes, dtype=wanted["dtype"])
    context.barrier()
    _fill(directory, frozen, rows, augmentation=context.augmentation(stream), context=context)
    context.barrier()
    if context.is_main:
        tables.finish(directory, wanted)
    context.barrier()
    return Table(directory, rows)


def fingerprint(module: nn.Module) -> str:
    """Return the SHA-256 of a module's state, names and values."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@torch.no_grad()
def _fill(
    directory: Path,
    frozen: FrozenNetwork,
    rows: Rows,
    *,
    augmentation: Augmentation,
    context: Context,
) -> None:
    """Write this process's share of the rows."""
    logits_file = tables.open_for_writing(directory)
    frozen.eval()
    workers = context.workers
    mine = contiguous_share(len(rows.draws), rank=workers.rank, num_processes=workers.num_processes)
    fetch = context.images(context.train, augmentation)
    batches = in_order(rows.draws, context.config.evaluation.batch_size, workers)
    row = mine.start
    for draws, host_batch in workers.batches(batches, workers.source(fetch)):
        with context.autocast():
            logits = frozen(finished(draws, host_batch, augmentation).query)
        # The one wait of this pass; the next batches are decoded meanwhile.
        logits_file[row : row + len(draws)] = logits.cpu().numpy()
        row += len(draws)
        # A table is made whole or anew: a process that was told to leave need not finish it.
        context.stop_if_asked()
    logits_file.flush()


def _manifest(
    frozen: FrozenNetwork, rows: Rows, *, stream: Stream, context: Context
) -> dict[str, Any]:
    """Return everything that the logits depend on."""
    config = context.config
    meta = (context.dataset.path / META_FILE).read_bytes()
    draws = np.stack([rows.draws.samples, rows.draws.views])
    return {
        "rows": len(rows.draws),
        "classes": context.num_classes,
        "dtype": config.frozen.dtype,
        "draws": hashlib.sha256(draws.tobytes()).hexdigest(),
        "seed": config.seed,
        "stream": stream,
        "augmentation": dataclasses.asdict(config.augment),
        "decoder": context.decoder.name,
        "filter": context.decoder.filter,
        "dataset": {"name": context.dataset.name, "meta": hashlib.sha256(meta).hexdigest()},
        "network": {
            "backbone": config.model.backbone,
            "weights": fingerprint(frozen),
            "batchnorm": config.frozen.batchnorm,
            "precision": config.precision,
        },
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }
