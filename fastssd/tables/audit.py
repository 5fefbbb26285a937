"""Asking the network again about some rows of a table, and comparing."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from fastssd.core import counter_rng
from fastssd.errors import DataError
from fastssd.tables.files import FEATURES, IDS, LOGITS, REMEDY, REST
from fastssd.tables.reader import Reader
from fastssd.tables.stores import Store
from fastssd.tables.table import COLUMN, Table

TOLERANCE = 0.02
"""Largest difference that an audit lets pass, as a share of the largest value of the audited rows:
libraries differ by rounding, of bfloat16 at worst, and by a grey level of decoded pixels."""

_DISTRIBUTIONS = {
    "torch": "torch",
    "numpy": "numpy",
    "fastssd": "fastssd",
    "torchvision": "torchvision",
    "dali": "nvidia-dali-cuda130",
}


@dataclass(frozen=True)
class Difference:
    """What an audit found.

    Attributes:
        largest: Largest difference of a logit or feature.
        scale: Largest of their absolute values.
        other_classes: Share of kept classes that would no longer be kept (`topk`).
    """

    largest: float
    scale: float
    other_classes: float = 0.0

    def __str__(self) -> str:
        text = f"largest difference {self.largest:.3g} of values up to {self.scale:.3g}"
        return f"{text}, {self.other_classes:.1%} other classes" if self.other_classes else text

    def check(self, directory: Path) -> None:
        """Raise DataError if the table is not what its network says."""
        if not self.largest <= TOLERANCE * self.scale:
            raise DataError(
                f"{directory}: not what its network says now: {self}, more than "
                f"{TOLERANCE:.0%}; {REMEDY}"
            )


def library_versions(decoder: str) -> dict[str, str]:
    """Return the versions of what rows depend on by rounding."""
    versions = {}
    for library in dict.fromkeys(["torch", "numpy", "fastssd", decoder]):
        try:
            versions[library] = version(_DISTRIBUTIONS.get(library, "fastssd"))
        except PackageNotFoundError:  # run from its folder, and not installed
            versions[library] = "unknown"
    return versions


def audit(table: Table, store: Store, num_rows: int, *, reader: Reader, seed: int) -> Difference:
    """Ask the network about random rows of a table.

    Args:
        table: Finished.
        store: The network that it should be of.
        num_rows: How many rows, or all of them if there are fewer.
        reader: Of their images; every process audits the same rows.
        seed: Which rows.
    """
    generator = counter_rng.generator(seed, "audit", num_rows)
    count = min(num_rows, len(table.rows))
    chosen = np.sort(generator.choice(len(table.rows), count, replace=False))
    size = reader.batch_share
    batches = (
        table.rows.draws(chosen[start : start + size]) for start in range(0, len(chosen), size)
    )
    largest = scale = 0.0
    num_other = num_kept = 0
    for draws, said in reader.answers(store.network, store.rows, batches):
        stored = {name.removeprefix(COLUMN): rows for name, rows in table.read(draws).items()}
        said = {name: rows.cpu() for name, rows in said.items()}
        name = FEATURES if FEATURES in stored else LOGITS
        old, new = stored[name].double(), said[name].double()
        if IDS in stored:
            same = _positions(stored[IDS].long(), said[IDS].long())
            num_other, num_kept = num_other + int((same < 0).sum()), num_kept + same.numel()
            # A class that is kept no longer is about as large as the smallest that is.
            smallest = new.min(dim=1, keepdim=True).values.expand_as(old)
            new = torch.where(same < 0, smallest, new.gather(1, same.clamp(min=0)))
            rest = (stored[REST] - said[REST]).abs().max().item()
            largest = max(largest, rest)
        largest = max(largest, (old - new).abs().max().item())
        scale = max(scale, old.abs().max().item())
    return Difference(largest, scale, num_other / max(num_kept, 1))


def _positions(ids_BK: torch.Tensor, other_BK: torch.Tensor) -> torch.Tensor:
    """Return where in the sorted `other` each id stands, -1 where it does not."""
    found = torch.searchsorted(other_BK, ids_BK).clamp(max=other_BK.shape[1] - 1)
    return torch.where(other_BK.gather(1, found) == ids_BK, found, -1)
