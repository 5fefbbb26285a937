"""Fetching the images of draws: stored bytes, the draws' boxes, one decoder, uint8 pixels."""

import zlib
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fastssd.data.dataset import Split
from fastssd.data.decode.decoder import DecodeError, Decoder
from fastssd.data.draws import Draws, Int64
from fastssd.data.loader import HostBatch
from fastssd.data.orientation import stored_boxes, turn_batch
from fastssd.errors import DataError


class ViewParameters(Protocol):
    """What fetching needs of an augmentation: where each draw's crops lie, and what else it is."""

    @property
    def size(self) -> int:
        """Side of the decoded crops, in pixels."""

    def boxes(self, samples: Int64, views: Int64, sizes: NDArray[np.int32]) -> Int64:
        """Return (B, V, 4) int64 boxes x, y, width, height in stored pixels."""

    def parameters(self, samples: Int64, views: Int64) -> dict[str, NDArray[np.generic]]:
        """Return what the device needs to finish the views, arrays over the batch."""


PIXELS, LABELS, CHECKSUMS = "pixels", "labels", "checksums"
"""Keys of a fetched batch; the augmentation's parameters stand under `PARAMETER` + their name."""
PARAMETER = "augment."


def image_fetch(
    split: Split, decoder: Decoder, augmentation: ViewParameters, *, checksums: bool = False
) -> Callable[[Draws], HostBatch]:
    """Return a function from draws to a batch of uint8 pixels, labels and parameters.

    The batch holds `pixels` (V, B, S, S, 3) uint8, `labels` (B,) int64, the augmentation's
    parameters and, if asked for, `checksums` (B,) int64 of each draw's pixels.

    Args:
        split: Where the images are.
        decoder: What makes pixels of them.
        augmentation: Decides the crops.
        checksums: Whether to add them; they cost a pass over the pixels.

    Returns:
        A function that raises DataError, naming file and sample, for an image that can't be
        decoded.
    """

    def fetch(draws: Draws) -> HostBatch:
        boxes = augmentation.boxes(draws.samples, draws.views, split.sizes[draws.samples])
        turned = None if split.orientations is None else split.orientations[draws.samples]
        if turned is not None:
            boxes = stored_boxes(boxes, turned, split.storage.sizes[draws.samples])
        stored = [split.storage.read(int(sample)) for sample in draws.samples]
        try:
            pixels = decoder.decode(stored, boxes, augmentation.size)
        except DecodeError as error:
            sample = int(draws.samples[error.position])
            raise DataError(
                f"{split.describe(sample)} (sample {sample} of {split.name}): {error.reason}; "
                "convert the dataset again, with --on-error skip to leave such images out"
            ) from error
        if turned is not None:
            turn_batch(pixels, turned)
        batch = {
            PIXELS: torch.from_numpy(pixels),
            LABELS: torch.from_numpy(split.labels[draws.samples]),
        }
        for name, values in augmentation.parameters(draws.samples, draws.views).items():
            batch[PARAMETER + name] = torch.from_numpy(values)
        if checksums:
            sums = [zlib.crc32(pixels[:, i].tobytes()) for i in range(len(draws))]
            batch[CHECKSUMS] = torch.tensor(sums, dtype=torch.int64)
        return batch

    return fetch
