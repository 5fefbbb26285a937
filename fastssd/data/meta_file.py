"""Writing `meta.json` and its like, and what conversion and merge say of rejected images."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastssd.core.files import CHECKSUM, seal
from fastssd.data.checksums import FILES, describe_files
from fastssd.data.sources.source import TRAIN
from fastssd.data.subsets import check_no_class_empty
from fastssd.errors import ConfigError, DataError

Progress = Callable[[str, int, int], None]
"""Called with a split's name, the images done and the images to do."""

REJECTS_FILE = "rejects.jsonl"

_LIBRARIES = ("fastssd", "numpy", "pillow", "torch", "torchvision", "scikit-learn")


def write_meta(folder: Path, file: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Write a dataset directory's or shard's description, and the list of rejected images.

    The description names all files that are there with their checksums, so it comes last.

    Returns:
        What stands in the file.
    """
    if meta["rejected"]:
        lines = "".join(json.dumps(reject) + "\n" for reject in meta["rejected"])
        (folder / REJECTS_FILE).write_text(lines, encoding="utf-8")
    # Of merged shards, `meta` may still have what one of them said of its own files.
    content = {key: value for key, value in meta.items() if key not in (FILES, CHECKSUM)}
    text = seal({**content, FILES: describe_files(folder, but=file)})
    (folder / file).write_text(text, encoding="utf-8")
    written: dict[str, Any] = json.loads(text)
    return written


def check_skipped(
    origin: str,
    classes: Sequence[str],
    counts: Mapping[str, NDArray[np.int64]],
    rejected: Sequence[Mapping[str, str]],
) -> None:
    """Check that every class still has a training image, and every other split an image.

    Args:
        origin: The source, for messages.
        classes: (C) names.
        counts: (C,) images of each class by split.
        rejected: The images that were left out.

    Raises:
        DataError: If damaged images were all that a class or a split had; names it.
    """
    if not rejected:
        return
    try:
        check_no_class_empty(classes, counts[TRAIN])
        empty = [split for split, per_class in counts.items() if not per_class.sum()]
        if empty:
            raise ConfigError(f"the {empty[0]} split would have no image")
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
