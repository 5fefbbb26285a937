"""Which row of a table belongs to which draw: a formula, or a sorted list."""

import hashlib
from typing import Any, Protocol

import numpy as np

from fastssd.data.draws import Draws, Int64


class Rows(Protocol):
    """The draws of a table, row by row."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def of(self, draws: Draws) -> Int64:
        """Return the row of each draw; KeyError if the table has none."""

    def draws(self, rows: Int64) -> Draws:
        """Return the draw of each of some rows."""

    def describe(self) -> dict[str, Any]:
        """Return what a manifest says of them: equal for equal rows, and for no others."""


class EveryView:
    """Rows for K views of each of N samples: row = sample * K + view. Nothing is held in memory."""

    def __init__(self, num_samples: int, num_views: int) -> None:
        self.num_samples = num_samples
        self.num_views = num_views

    def __len__(self) -> int:
        return self.num_samples * self.num_views

    def of(self, draws: Draws) -> Int64:
        if len(draws) and not (draws.views.min() >= 0 and draws.views.max() < self.num_views):
            raise KeyError(f"a table of {self.num_views} views was asked for another view")
        return draws.samples * self.num_views + draws.views

    def draws(self, rows: Int64) -> Draws:
        return Draws(*np.divmod(rows, self.num_views))

    def describe(self) -> dict[str, Any]:
        return {"kind": "every view", "samples": self.num_samples, "views": self.num_views}


class DistinctDraws:
    """Rows for a list of draws, each once, sorted by sample and view; 8 bytes a row."""

    def __init__(self, draws: Draws) -> None:
        self._views = np.unique(draws.views)
        self._sorted_keys = np.unique(self._keys(draws))

    def __len__(self) -> int:
        return len(self._sorted_keys)

    def of(self, draws: Draws) -> Int64:
        keys = self._keys(draws)
        rows = np.searchsorted(self._sorted_keys, keys).clip(max=len(self._sorted_keys) - 1)
        if not np.array_equal(self._sorted_keys[rows], keys):
            raise KeyError("a table of a plan's draws was asked for a draw of another plan")
        return rows.astype(np.int64)

    def draws(self, rows: Int64) -> Draws:
        samples, positions = np.divmod(self._sorted_keys[rows], len(self._views))
        return Draws(samples, self._views[positions])

    def describe(self) -> dict[str, Any]:
        digest = hashlib.sha256(self._views.tobytes())
        digest.update(self._sorted_keys.tobytes())
        return {"kind": "distinct draws", "number": len(self), "sha256": digest.hexdigest()}

    def _keys(self, draws: Draws) -> Int64:
        positions = np.searchsorted(self._views, draws.views).clip(max=len(self._views) - 1)
        if not np.array_equal(self._views[positions], draws.views):
            raise KeyError("a table of a plan's draws was asked for a view of another plan")
        keys: Int64 = draws.samples * len(self._views) + positions
        return keys
