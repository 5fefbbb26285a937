"""A table: what a frozen network said of (sample, view) pairs, memory-mapped, with its manifest.

A table directory holds `logits.npy` (rows, C) and `manifest.json`, which is written last: a table
without one is unfinished. Which row belongs to which draw is a formula for tables of K views of
every sample, and a list of draws (`draws.npy`) for tables of a plan's distinct draws.
"""

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastssd.data.draws import Draws, Int64
from fastssd.errors import DataError
from fastssd.files import write_atomically

MANIFEST, LOGITS, DRAWS = "manifest.json", "logits.npy", "draws.npy"


class Rows(Protocol):
    """Which row of a table belongs to which draw."""

    draws: Draws
    """The draw of every row."""

    def of(self, draws: Draws) -> Int64:
        """Return the row of each draw; KeyError if the table has none."""


class EveryView:
    """Rows for K views of each of N samples: row = sample * K + view."""

    def __init__(self, num_samples: int, num_views: int) -> None:
        self.num_views = num_views
        rows = np.arange(num_samples * num_views, dtype=np.int64)
        self.draws = Draws(rows // num_views, rows % num_views)

    def of(self, draws: Draws) -> Int64:
        if len(draws) and not (draws.views.min() >= 0 and draws.views.max() < self.num_views):
            raise KeyError(f"a table of {self.num_views} views was asked for another view")
        return draws.samples * self.num_views + draws.views


class DistinctDraws:
    """Rows for a list of draws, each once, sorted by sample and view."""

    def __init__(self, draws: Draws) -> None:
        self._views = np.unique(draws.views)
        keys = np.unique(self._keys(draws))
        samples, positions = np.divmod(keys, len(self._views))
        self._sorted_keys = keys
        self.draws = Draws(samples, self._views[positions])

    def of(self, draws: Draws) -> Int64:
        keys = self._keys(draws)
        rows = np.searchsorted(self._sorted_keys, keys).clip(max=len(self._sorted_keys) - 1)
        if not np.array_equal(self._sorted_keys[rows], keys):
            raise KeyError("a table of a plan's draws was asked for a draw of another plan")
        return rows.astype(np.int64)

    def _keys(self, draws: Draws) -> Int64:
        positions = np.searchsorted(self._views, draws.views).clip(max=len(self._views) - 1)
        if not np.array_equal(self._views[positions], draws.views):
            raise KeyError("a table of a plan's draws was asked for a view of another plan")
        keys: Int64 = draws.samples * len(self._views) + positions
        return keys


class Table:
    """A finished table, open for reading.

    Args:
        directory: Where it is.
        rows: Which row belongs to which draw.

    Raises:
        DataError: If files are missing, damaged or of another shape than the manifest says.
    """

    def __init__(self, directory: Path, rows: Rows) -> None:
        self.rows = rows
        manifest = read_manifest(directory)
        path = directory / LOGITS
        try:
            self._logits: NDArray[np.floating[Any]] = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a readable array ({error}); {_REMEDY}") from error
        shape = (len(rows.draws), manifest["classes"])
        if self._logits.shape != shape or self._logits.dtype != manifest["dtype"]:
            raise DataError(
                f"{path} holds {self._logits.dtype} {self._logits.shape}, not "
                f"{manifest['dtype']} {shape}; {_REMEDY}"
            )

    def read(self, draws: Draws) -> NDArray[np.float32]:
        """Return the frozen network's logits of the draws, (B, C)."""
        return self._logits[self.rows.of(draws)].astype(np.float32)


_REMEDY = "delete the table's folder and start again: it is made anew"


def create(directory: Path, rows: Rows, *, num_classes: int, dtype: str) -> None:
    """Make the files of an unfinished table, whose rows are written by `open_for_writing`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MANIFEST).unlink(missing_ok=True)
    np.lib.format.open_memmap(
        directory / LOGITS, mode="w+", dtype=dtype, shape=(len(rows.draws), num_classes)
    )


def open_for_writing(directory: Path) -> np.memmap[Any, np.dtype[np.floating[Any]]]:
    """Return the (rows, C) array; processes write disjoint slices of it."""
    return np.lib.format.open_memmap(directory / LOGITS, mode="r+")


def finish(directory: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, which makes the table a finished one."""
    write_atomically(directory / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return a table's manifest.

    Raises:
        DataError: If it is missing or damaged.
    """
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable manifest ({error}); {_REMEDY}") from error
    if not isinstance(manifest, dict) or not {"classes", "dtype"} <= manifest.keys():
        raise DataError(f"{path}: not the manifest of a table; {_REMEDY}")
    return manifest


def check_manifest(directory: Path, wanted: dict[str, Any]) -> None:
    """Raise DataError, naming what differs, if a finished table is of something else.

    Library versions may differ: they change logits by rounding at most.
    """
    found = read_manifest(directory)
    differing = [
        f"{key} is {found.get(key)!r}, not {value!r}"
        for key, value in wanted.items()
        if key != "versions" and found.get(key) != value
    ]
    if differing:
        raise DataError(
            f"{directory}: a table of something else: {'; '.join(differing)}; {_REMEDY}"
        )
