"""Writing `meta.json` and its like, and what conversion and merge say of rejected images."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastssd.data.subsets import check_no_class_empty
from fastssd.errors import ConfigError, DataError

Progress = Callable[[str, int, int], None]
"""Called with a split's name, the images done and the images to do."""

REJECTS_FILE = "rejects.jsonl"

_LIBRARIES = ("fastssd", "numpy", "pillow", "torch", "torchvision", "scikit-learn")


def write_meta(folder: Path, file: str, meta: Mapping[str, Any]) -> None:
    """Write a dataset directory's or shard's description, and the list of rejected images."""
    if meta["rejected"]:
        lines = "".join(json.dumps(reject) + "\n" for reject in meta["rejected"])
        (folder / REJECTS_FILE).write_text(lines, encoding="utf-8")
    (folder / file).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def check_skipped(
    origin: str,
    classes: Sequence[str],
    train_counts: NDArray[np.int64],
    rejected: Sequence[Mapping[str, str]],
) -> None:
    """Check that every class still has a training image.

    Raises:
        DataError: If damaged images were all that a class had; names it.
    """
    if not rejected:
        return
    try:
        check_no_class_empty(classes, train_counts)
    except ConfigError as error:
        raise DataError(
            f"{origin}: after {len(rejected)} damaged images were skipped (the first: "
            f"{rejected[0]['name']}: {rejected[0]['reason']}), {error}"
        ) from error


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that a conversion may use."""
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:  # the libraries of other sources and formats
            continue
    return found
