"""What a table may hold of what a frozen network says: all logits, features, or the top logits.

A store is a network and how its answer to a batch of images becomes rows. `logits` and `features`
serve any re-tuning of the classifier; `topk` holds the balanced teacher's largest logits with the
mass of the rest at one temperature, and serves stage III alone.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from fastssd.models.networks import BalancedNetwork, FrozenNetwork
from fastssd.tables.files import FEATURES, IDS, LOGITS, REST, Column

_LARGEST_UINT16 = 2**16


class Store(ABC):
    """A network's answers as rows of a table.

    Attributes:
        kind: Its name in a config.
        columns: The arrays of its tables.
        network: On its device, in eval mode while it is asked.
        identity: The part of the network that the rows depend on.
    """

    kind: str
    columns: list[Column]
    network: nn.Module
    identity: nn.Module

    @abstractmethod
    def rows(self, images: Tensor) -> dict[str, Tensor]:
        """Return (B, width) by column, in the types that the columns have, on the device."""

    def describe(self) -> dict[str, Any]:
        """Return what a manifest says of the store."""
        return {
            "store": self.kind,
            "columns": {column.name: [column.dtype, column.width] for column in self.columns},
        }


class LogitsStore(Store):
    """All logits of the frozen network.

    Args:
        frozen: The network.
        num_classes: C.
        dtype: `float16` or `float32`.
    """

    kind = "logits"

    def __init__(self, frozen: FrozenNetwork, num_classes: int, dtype: str) -> None:
        self.network = self.identity = self._frozen = frozen
        self.columns = [Column(LOGITS, dtype, num_classes)]
        self._dtype = getattr(torch, dtype)

    def rows(self, images: Tensor) -> dict[str, Tensor]:
        return {LOGITS: self._frozen(images).to(self._dtype)}


class FeaturesStore(Store):
    """The frozen backbone's features; the frozen classifier is applied to them where they are read.

    Args:
        frozen: The network, whose classifier is not asked here.
        dtype: `float16` or `float32`.
    """

    kind = "features"

    def __init__(self, frozen: FrozenNetwork, dtype: str) -> None:
        self.network = self._frozen = frozen
        self.identity = frozen.backbone
        self.columns = [Column(FEATURES, dtype, frozen.backbone.width)]
        self._dtype = getattr(torch, dtype)

    def rows(self, images: Tensor) -> dict[str, Tensor]:
        return {FEATURES: self._frozen.features(images).to(self._dtype)}


class TopStore(Store):
    """The balanced teacher's k largest logits of each image, and the mass of the others at T.

    The k classes stand in increasing order: with k = C a row is the row of all logits.

    Args:
        teacher: The balanced network.
        num_classes: C.
        k: Logits kept, from 1 to C.
        temperature: T.
        dtype: Of the kept logits; the mass is float32.
        wanted_mass: What k was chosen for, None if it was given or follows from a size.
    """

    kind = "topk"

    def __init__(
        self,
        teacher: BalancedNetwork,
        num_classes: int,
        *,
        k: int,
        temperature: float,
        dtype: str,
        wanted_mass: float | None = None,
    ) -> None:
        self.network = self.identity = self._teacher = teacher
        self.k, self.temperature, self._wanted_mass = k, temperature, wanted_mass
        ids = ids_dtype(num_classes)
        self.columns = [Column(IDS, ids, k), Column(LOGITS, dtype, k), Column(REST, "float32", 1)]
        self._dtypes = getattr(torch, ids), getattr(torch, dtype)

    def rows(self, images: Tensor) -> dict[str, Tensor]:
        return top_rows(
            self._teacher(images, None).float(), self.k, self.temperature, *self._dtypes
        )

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "k": self.k,
            "temperature": self.temperature,
            "wanted_mass": self._wanted_mass,
        }


def top_rows(
    logits_BC: Tensor, k: int, temperature: float, ids_dtype: torch.dtype, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return the columns of a `topk` table of float32 logits."""
    ids_BK = logits_BC.topk(k, dim=1, sorted=False).indices.sort(dim=1).values
    kept_BK = logits_BC.gather(1, ids_BK)
    total_B = (logits_BC / temperature).logsumexp(dim=1)
    kept_mass_B = ((kept_BK / temperature).logsumexp(dim=1) - total_B).exp()
    rest_B = (1 - kept_mass_B).clamp_(min=0) if k < logits_BC.shape[1] else 0 * kept_mass_B
    return {IDS: ids_BK.to(ids_dtype), LOGITS: kept_BK.to(dtype), REST: rest_B[:, None]}


def ids_dtype(num_classes: int) -> str:
    """Return the smallest type that class numbers fit into."""
    return "uint16" if num_classes <= _LARGEST_UINT16 else "int32"


def k_of_bytes(table_bytes: int, *, num_rows: int, num_classes: int, dtype: str) -> int:
    """Return the logits a row of a `topk` table of at most so many bytes; below 1 if none fit."""
    columns = [Column(IDS, ids_dtype(num_classes), 1), Column(LOGITS, dtype, 1)]
    room = table_bytes // num_rows - Column(REST, "float32", 1).row_bytes
    return min(num_classes, room // sum(column.row_bytes for column in columns))
