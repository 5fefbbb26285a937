"""How many of a teacher's logits a `topk` table keeps."""

import numpy as np
import torch

from fastssd.config import TableConfig
from fastssd.core import counter_rng
from fastssd.data.sharding import contiguous_share
from fastssd.errors import ConfigError
from fastssd.models.networks import BalancedNetwork
from fastssd.tables.reader import Reader
from fastssd.tables.rows import Rows
from fastssd.tables.stores import k_of_bytes

_MASS_ROWS = 2048
"""Random rows on which the logits to keep are counted."""


def choose_k(
    teacher: BalancedNetwork,
    rows: Rows,
    holds: TableConfig,
    *,
    num_classes: int,
    temperature: float,
    reader: Reader,
    seed: int,
) -> int:
    """Return k: as given, as many as fit into the size given, or as the mass asks for.

    Args:
        teacher: On its device.
        rows: Of the table.
        holds: What it is to hold.
        num_classes: C.
        temperature: T, at which mass is counted.
        reader: Of the rows' images.
        seed: Of the rows that are looked at.

    Raises:
        ConfigError: If more logits are asked for than there are classes, or none fits.
    """
    if given := given_k(holds, num_rows=len(rows), num_classes=num_classes):
        return given
    kept = _kept_mass(teacher, rows, num_classes, temperature, reader, seed)
    # Rounding leaves the mass of all classes a little under 1.
    enough = kept >= min(holds.kept_mass, kept[-1])
    return int(enough.argmax()) + 1


def given_k(holds: TableConfig, *, num_rows: int, num_classes: int) -> int:
    """Return k as it is given or follows from a size; 0 if the mass is to choose it.

    Raises:
        ConfigError: If more logits are asked for than there are classes, or none fits.
    """
    if holds.topk:
        if holds.topk > num_classes:
            raise ConfigError(f"topk={holds.topk} is more than the dataset's {num_classes} classes")
        return holds.topk
    if holds.bytes:
        k = k_of_bytes(holds.bytes, num_rows=num_rows, num_classes=num_classes, dtype=holds.dtype)
        if k < 1:
            raise ConfigError(
                f"bytes={holds.bytes} has no room for one logit of each of {num_rows} rows"
            )
        return k
    return 0


def _kept_mass(
    teacher: BalancedNetwork,
    rows: Rows,
    num_classes: int,
    temperature: float,
    reader: Reader,
    seed: int,
) -> np.ndarray:
    """Return (C,) the mean mass of the k largest soft labels, for every k, over random rows."""
    generator = counter_rng.generator(seed, "kept mass")
    chosen = np.sort(generator.choice(len(rows), min(_MASS_ROWS, len(rows)), replace=False))
    workers = reader.workers
    mine = chosen[
        contiguous_share(len(chosen), rank=workers.rank, num_processes=workers.num_processes)
    ]
    size = reader.batch_share
    batches = (rows.draws(mine[start : start + size]) for start in range(0, len(mine), size))
    total = torch.zeros(num_classes, device=workers.device)
    for _, logits in reader.answers(teacher, lambda images: teacher(images, None), batches):
        soft = torch.softmax(logits.float() / temperature, dim=1)
        total += soft.sort(dim=1, descending=True).values.cumsum(dim=1).sum(dim=0)
    mean: np.ndarray = reader.processes.reduce(total).cpu().double().numpy() / len(chosen)
    return mean
