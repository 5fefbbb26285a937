"""The files of one split of a dataset directory, written image after image."""

import json
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from fastssd.data.encode import Encoded
from fastssd.data.orientation import UPRIGHT
from fastssd.data.storage.files import save_array
from fastssd.data.storage.formats import STORAGES
from fastssd.data.storage.storage import StorageWriter

DIGEST_BYTES = 32


class SplitFiles:
    """Writes images, labels, names, rows and orientations of a split.

    Args:
        folder: The dataset directory.
        split: The split's name.
        format: A key of `STORAGES`.
        capacity: Images at most.
    """

    def __init__(self, folder: Path, split: str, *, format: str, capacity: int) -> None:
        self._folder = folder
        self._split = split
        # Packed numbers: a list of a million Python integers takes five times as much.
        self._labels, self._rows = array("q"), array("q")
        self._orientations, self._digests = bytearray(), bytearray()
        self._writer: StorageWriter = STORAGES[format].create(folder, split, capacity)
        self._names = (folder / f"{split}.names.jsonl").open("w", encoding="utf-8")

    def append(self, encoded: Encoded, *, label: int, row: int, name: str, digest: bytes) -> None:
        """Add the next image.

        Args:
            encoded: What is stored.
            label: Its class.
            row: Its row of the source split.
            name: Its name in the source.
            digest: `DIGEST_BYTES` of what was read.

        Raises:
            ValueError: If the format cannot hold it; the message is the reason alone, and nothing
                was added.
        """
        self._writer.append(encoded.image, height=encoded.height, width=encoded.width, label=label)
        self._labels.append(label)
        self._rows.append(row)
        self._orientations.append(encoded.orientation)
        self._digests += digest
        self._names.write(json.dumps(name) + "\n")

    @property
    def digests(self) -> bytes:
        """The digests of all images so far, one after another."""
        return bytes(self._digests)

    def finish(self, num_classes: int, *, keep_digests: bool) -> dict[str, Any]:
        """Complete the files.

        Args:
            num_classes: C.
            keep_digests: Whether to write the digests too.

        Returns:
            What `meta.json` says of the split: ``images``, ``per_class`` (C) and ``turned``, the
            images that the decoder must turn upright.
        """
        self._writer.finish()
        self._names.close()
        labels = np.array(self._labels, dtype=np.int64)
        orientations = np.frombuffer(self._orientations, dtype=np.uint8)
        num_turned = int((orientations != UPRIGHT).sum())
        self._save("labels", labels)
        self._save("source_rows", np.array(self._rows, dtype=np.int64))
        if num_turned:
            self._save("orientations", orientations)
        if keep_digests:
            digests = np.frombuffer(self._digests, dtype=np.uint8)
            self._save("digests", digests.reshape(-1, DIGEST_BYTES))
        return {
            "images": len(labels),
            "per_class": np.bincount(labels, minlength=num_classes).tolist(),
            "turned": num_turned,
        }

    def close(self) -> None:
        """Close the files as they are; harmless after `finish`."""
        try:
            self._writer.abandon()
        finally:  # on a full disk, closing writes what it cannot
            self._names.close()

    def _save(self, what: str, values: np.ndarray[Any, Any]) -> None:
        save_array(self._folder / f"{self._split}.{what}.npy", values)
