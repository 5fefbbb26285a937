"""What a table says of its teacher: class distribution and sharpness of its soft labels."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fastssd.core import counter_rng
from fastssd.core.reading import check_regular
from fastssd.errors import DataError
from fastssd.models.heads import build_head
from fastssd.tables.files import FEATURES, IDS, LOGITS, REST, TableFiles
from fastssd.tables.manifest import Manifest

_ROWS_AT_ONCE = 1024
_SCALE, _HEAD = "network.scale.scale", "network.frozen.head."


@dataclass(frozen=True, kw_only=True)
class SoftLabels:
    """The soft labels of a table's rows, at one temperature.

    Attributes:
        num_rows: How many rows were looked at.
        temperature: T.
        class_share: (C,) mean soft label of each class; sums to 1.
        entropy: Mean, in nats.
        kept_mass: (C,) mean mass of the k largest, for every k; of a `topk` table only its own.
    """

    num_rows: int
    temperature: float
    class_share: NDArray[np.float64]
    entropy: float
    kept_mass: NDArray[np.float64]

    def k_for(self, mass: float) -> int:
        """Return the fewest logits whose mean mass is at least this."""
        return int((self.kept_mass >= min(mass, self.kept_mass[-1])).argmax()) + 1


class Balancing:
    """The frozen classifier and the scales that a stage's weights hold, if it has finished.

    Args:
        weights: The stage's `weights.safetensors`.

    Raises:
        DataError: If the file is there and damaged.
    """

    def __init__(self, weights: Path) -> None:
        self.scale: Tensor | None = None
        self._head: dict[str, Tensor] = {}
        if not weights.exists():
            return
        try:
            check_regular(weights)
            with safe_open(weights, framework="pt") as file:
                names = list(file.keys())
                if _SCALE in names:
                    self.scale = file.get_tensor(_SCALE).float()
                self._head = {
                    name.removeprefix(_HEAD): file.get_tensor(name).float()
                    for name in names
                    if name.startswith(_HEAD)
                }
        except (OSError, SafetensorError) as error:
            raise DataError(f"{weights}: not readable ({error})") from error

    def classifier(self) -> Callable[[Tensor], Tensor] | None:
        """Return the frozen classifier, None where it is not known."""
        if "weight" not in self._head:
            return None
        num_classes, width = self._head["weight"].shape
        head = build_head("cosine" if "scale" in self._head else "linear", width, num_classes)
        head.load_state_dict(self._head)
        return head.eval()


@torch.no_grad()
def soft_labels(
    files: TableFiles,
    manifest: Manifest,
    balancing: Balancing,
    *,
    temperature: float,
    num_rows: int,
    seed: int,
) -> dict[str, SoftLabels]:
    """Return the soft labels `before` and `after` balancing, as far as they are known.

    Args:
        files: Of a finished table.
        manifest: Its manifest.
        balancing: Scales, and the classifier for features.
        temperature: T; a `topk` table has its own.
        num_rows: How many random rows are looked at.
        seed: Decides which.
    """
    generator = counter_rng.generator(seed, "soft labels", num_rows)
    count = min(num_rows, files.num_rows)
    chosen = np.sort(generator.choice(files.num_rows, count, replace=False))
    num_classes = int(manifest["classes"])
    if manifest["store"] == "topk":
        temperature = float(manifest["temperature"])
        sums = _Sums(num_classes)
        for rows in _parts(files, chosen):
            _add_top(sums, rows, temperature)
        return {"after": sums.mean(temperature)}
    classify = balancing.classifier() if manifest["store"] == "features" else torch.nn.Identity()
    if classify is None:
        return {}
    scales = {"before": torch.ones(num_classes)}
    if balancing.scale is not None:
        scales["after"] = balancing.scale
    all_sums = {name: _Sums(num_classes) for name in scales}
    for rows in _parts(files, chosen):
        logits = classify(rows[LOGITS if LOGITS in rows else FEATURES].float())
        for name, scale in scales.items():
            log_soft = torch.log_softmax(logits * scale / temperature, dim=1)
            soft = log_soft.exp()
            mass = soft.sort(dim=1, descending=True).values.cumsum(dim=1)
            all_sums[name].add(
                soft.sum(dim=0), -(soft * log_soft).sum(), mass.sum(dim=0), len(soft)
            )
    return {name: sums.mean(temperature) for name, sums in all_sums.items()}


class _Sums:
    """Sums over rows, in float64."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._soft = torch.zeros(num_classes, dtype=torch.float64)
        self._mass = torch.zeros(num_classes, dtype=torch.float64)
        self._entropy = 0.0
        self._num_rows = 0

    def add(self, soft: Tensor, entropy: Tensor, mass: Tensor, num_rows: int) -> None:
        self._soft += soft
        self._mass[: len(mass)] += mass
        self._entropy += float(entropy)
        self._num_rows += num_rows

    def mean(self, temperature: float) -> SoftLabels:
        return SoftLabels(
            num_rows=self._num_rows,
            temperature=temperature,
            class_share=(self._soft / self._num_rows).numpy(),
            entropy=self._entropy / self._num_rows,
            kept_mass=(self._mass / self._num_rows).numpy(),
        )


def _add_top(sums: _Sums, rows: dict[str, Tensor], temperature: float) -> None:
    """Add rows of a `topk` table, whose other classes share the rest equally."""
    ids, rest = rows[IDS].long(), rows[REST][:, 0].double()
    kept = torch.softmax(rows[LOGITS].double() / temperature, dim=1) * (1 - rest)[:, None]
    num_other = sums.num_classes - ids.shape[1]
    other = rest / max(num_other, 1)
    soft = other.sum().expand(sums.num_classes).clone()
    soft.index_add_(0, ids.flatten(), (kept - other[:, None]).flatten())
    entropy = -torch.xlogy(kept, kept).sum() - num_other * torch.xlogy(other, other).sum()
    mass = kept.sort(dim=1, descending=True).values.cumsum(dim=1).sum(dim=0)
    sums.add(soft, entropy, mass, len(rest))


def _parts(files: TableFiles, chosen: NDArray[np.int64]) -> Iterator[dict[str, Tensor]]:
    columns = [files.map(column) for column in files.columns]
    for start in range(0, len(chosen), _ROWS_AT_ONCE):
        rows = chosen[start : start + _ROWS_AT_ONCE]
        yield {column.name: torch.from_numpy(column.read(rows)) for column in columns}
