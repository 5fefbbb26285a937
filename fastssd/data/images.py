"""Fetching the images of draws: stored bytes, the draws' boxes, one decoder, uint8 pixels."""

import os
import zlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastssd.core.buffers import Buffers
from fastssd.data.damage import Damage, successors
from fastssd.data.dataset import Split
from fastssd.data.decode.decoder import DecodeError, Decoder
from fastssd.data.draws import Draws, Int64
from fastssd.data.loader import HostBatch, Threaded
from fastssd.data.orientation import stored_boxes
from fastssd.data.storage.advise import ReadAhead
from fastssd.data.storage.image import StoredImage, UInt8
from fastssd.errors import DataError
from fastssd.native import mapped


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

_BYTES_TOGETHER, _MOST_TOGETHER = 4 << 20, 8


def image_fetch(
    split: Split,
    decoder: Decoder,
    augmentation: ViewParameters,
    *,
    checksums: bool = False,
    buffers: Buffers | None = None,
    damage: Damage | None = None,
) -> "ImageFetch":
    """Return a function from draws to a batch of uint8 pixels, labels and parameters.

    The batch holds `pixels` (V, B, S, S, 3) uint8, `labels` (B,) int64, the augmentation's
    parameters and, if asked for, `checksums` (B,) int64 of each draw's pixels.

    Args:
        split: Where the images are.
        decoder: What makes pixels of them.
        augmentation: Decides the crops.
        checksums: Whether to add them; they cost a pass over the pixels.
        buffers: Where the pixels are put; new memory for each batch by default.
        damage: Where images that cannot be decoded are noted, which others then replace (see
            `fastssd.data.damage`). By default they are errors.

    Returns:
        A function that raises DataError, naming file and sample, for an image that can't be
        decoded and is not replaced.
    """
    return ImageFetch(
        split, decoder, augmentation, checksums=checksums, buffers=buffers, damage=damage
    )


def checksums_of(pixels: UInt8) -> Int64:
    """Return (B,) checksums of each draw's pixels (V, B, S, S, 3) in all its views."""
    sums = [zlib.crc32(pixels[:, i].tobytes()) for i in range(pixels.shape[1])]
    return np.array(sums, dtype=np.int64)


def parted(batch: HostBatch, lengths: Sequence[int]) -> list[HostBatch]:
    """Cut a batch into successive ones of so many draws; they share its memory where they can."""
    ends = np.cumsum(lengths).tolist()
    return [
        {
            # Draws are the second axis of pixels, behind the views.
            name: values[:, start:end].contiguous() if name == PIXELS else values[start:end]
            for name, values in batch.items()
        }
        for start, end in zip([0, *ends], ends, strict=False)
    ]


@runtime_checkable
class MakesTensors(Protocol):
    """A decoder whose pixels can stay on the device where it makes them."""

    @property
    def makes_tensors(self) -> bool:
        """Whether they do."""

    def decode_tensor(
        self, images: Sequence[StoredImage], boxes: Int64, size: int
    ) -> Tensor | None:
        """Return (V, B, S, S, 3) uint8 on the device; None if the batch has to be decoded here."""


class ImageFetch:
    """Makes batches of draws, as `image_fetch` says, and reads ahead for later ones.

    Attributes:
        read_ahead: Counts what was not in memory.
    """

    def __init__(
        self,
        split: Split,
        decoder: Decoder,
        augmentation: ViewParameters,
        *,
        checksums: bool,
        buffers: Buffers | None,
        damage: Damage | None,
    ) -> None:
        self._split = split
        self._decoder = decoder
        self._augmentation = augmentation
        self._checksums = checksums
        self._buffers = buffers or Buffers(keep=0)
        self._damage = damage
        self.read_ahead = ReadAhead(
            split.storage.mapped,
            num_images=len(split.storage),
            may_look=os.access(split.names_file, os.W_OK),
        )

    def __call__(self, draws: Draws) -> HostBatch:
        shown, pixels = self._pixels(draws)
        batch = {
            PIXELS: pixels,
            LABELS: torch.from_numpy(self._split.labels[draws.samples]),
        }
        for name, values in self._augmentation.parameters(shown, draws.views).items():
            batch[PARAMETER + name] = torch.from_numpy(values)
        if self._checksums:
            batch[CHECKSUMS] = torch.from_numpy(checksums_of(pixels.cpu().numpy()))
        return batch

    @property
    def threads(self) -> int:
        """Threads that work on one batch."""
        return self._decoder.threads if isinstance(self._decoder, Threaded) else 1

    def num_together(self, draws: Draws) -> int:
        """Return how many batches of small images have so many pixels that Python costs little.

        Those that a decoder leaves on a device are made one by one: to cut a batch there is work of
        the device, on a stream that knows nothing of the decoder's.
        """
        if isinstance(self._decoder, MakesTensors) and self._decoder.makes_tensors:
            return 1
        side = self._augmentation.size
        return min(_MOST_TOGETHER, _BYTES_TOGETHER // (3 * side * side * len(draws)))

    def together(self, batches: Sequence[Draws]) -> list[HostBatch]:
        """Return several batches, made by one call."""
        return parted(self(Draws.joined(batches)), [len(draws) for draws in batches])

    def announce(self, draws: Draws) -> None:
        """Have the system read what these draws need."""
        self.read_ahead.announce(lambda: self._split.storage.locate(draws.samples))

    def _pixels(self, draws: Draws) -> tuple[Int64, Tensor]:
        """Return the samples that the images are of, the draws' own or others, and the pixels."""
        boxes = self._boxes(draws)
        size = self._augmentation.size
        on_device = self._on_device(draws, boxes)
        if on_device is not None:
            return draws.samples, on_device
        pixels = self._buffers.empty(boxes.shape[1], len(draws), size, size, 3)
        try:
            self._decode(draws, boxes, pixels)
        except DecodeError as error:
            if self._damage is None:
                raise self._damaged(int(draws.samples[error.position]), error.reason) from error
            shown = self._replace(draws, error, pixels, self._damage)
            return shown, torch.from_numpy(pixels)
        return draws.samples, torch.from_numpy(pixels)

    def _on_device(self, draws: Draws, boxes: Int64) -> Tensor | None:
        """Return the pixels of sound upright images where the decoder makes them on a device."""
        decoder, split = self._decoder, self._split
        if split.orientations is not None or not isinstance(decoder, MakesTensors):
            return None
        if not decoder.makes_tensors:
            return None
        try:
            stored = split.storage.read_batch(draws.samples)
            return decoder.decode_tensor(stored, boxes, self._augmentation.size)
        finally:
            mapped.check()

    def _boxes(self, draws: Draws) -> Int64:
        """Return where the crops lie in the stored images."""
        split, samples = self._split, draws.samples
        boxes = self._augmentation.boxes(samples, draws.views, split.sizes[samples])
        if split.orientations is None:
            return boxes
        return stored_boxes(boxes, split.orientations[samples], split.storage.sizes[samples])

    def _decode(self, draws: Draws, boxes: Int64, pixels: UInt8) -> None:
        """Fill `pixels`."""
        split, samples = self._split, draws.samples
        turns = None if split.orientations is None else split.orientations[samples]
        try:
            stored = split.storage.read_batch(samples)
            self._decoder.decode(stored, boxes, self._augmentation.size, out=pixels, turns=turns)
        finally:  # before what was found is called damaged: the file as a whole may be
            mapped.check()

    def _replace(self, draws: Draws, error: DecodeError, pixels: UInt8, damage: Damage) -> Int64:
        """Fill the places of damaged images with others; return whose images there are."""
        shown = draws.samples.copy()
        for position, reason in error.damaged.items():
            sample, views = int(draws.samples[position]), draws.views[position : position + 1]
            for other in successors(self._split.labels, sample):
                draw = Draws(np.array([other]), views)
                one = np.empty_like(pixels[:, :1])
                try:
                    self._decode(draw, self._boxes(draw), one)
                except DecodeError:
                    continue
                pixels[:, position] = one[:, 0]
                shown[position] = other
                break
            else:
                raise self._damaged(sample, f"{reason}, as every image of its class") from error
            damage.note(
                split=self._split.name,
                sample=sample,
                file=self._split.describe(sample),
                reason=reason,
                replaced_by=int(shown[position]),
            )
        return shown

    def _damaged(self, sample: int, reason: str) -> DataError:
        split = self._split
        return DataError(
            f"{split.describe(sample)} (sample {sample} of {split.name}): {reason}; convert the "
            "dataset again, with --on-error skip to leave such images out"
        )


def parameters_of(batch: HostBatch) -> dict[str, Tensor]:
    """Return the augmentation's parameters of a fetched batch."""
    return {
        name.removeprefix(PARAMETER): values
        for name, values in batch.items()
        if name.startswith(PARAMETER)
    }
