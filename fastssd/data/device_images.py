"""Pixels that live on the device: `memory` splits kept there, each draw's crops gathered by box.

Only boxes, labels and parameters cross the bus. A box of the output's size is copied, as on the
host. Others are resized by the host's filter, antialiased bilinear, in one step of float32 where
the host rounds to bytes between columns and rows: pixels differ by one grey level at most.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fastssd.data.dataset import Split
from fastssd.data.draws import Draws, Int64
from fastssd.data.images import CHECKSUMS, LABELS, PARAMETER, PIXELS, ViewParameters, checksums_of
from fastssd.data.loader import HostBatch
from fastssd.data.storage.memory import EqualStorage, PackedStorage
from fastssd.errors import ConfigError
from fastssd.native import mapped

FILTER = "bilinear-antialias-float"
"""How a box is brought to the output size where it has another."""

SHARE = 0.5
"""Of the device's memory that images may take: the rest is left to networks and their batches. Not
of what is free at the moment: a resumed run, and every process, must choose alike, as resized crops
differ by a grey level from the host's."""

_SAMPLES, _BOXES, _TAPS = "device.samples", "device.boxes", "device.taps"
_CHUNK_PIXELS = 1 << 23  # of the output at a time: bounds what gathering needs beside it
_UPLOAD_BYTES = 1 << 28


class DeviceImages:
    """The pixels of one split on a device.

    Args:
        storage: Of the `memory` format.
        device: Where they shall lie; on the CPU it is the mapped file.
    """

    def __init__(self, storage: EqualStorage | PackedStorage, device: torch.device) -> None:
        pixels = torch.from_numpy(storage.pixels)
        if device.type != "cpu":
            pixels = _uploaded(pixels, device)
        self._pixels = pixels
        sizes = torch.from_numpy(storage.sizes.astype(np.int64))
        areas = sizes.prod(dim=1)
        self._starts = (areas.cumsum(0) - areas).to(device)
        self._sizes = sizes.to(device)

    def gather(self, samples: Tensor, boxes: Tensor, taps: Tensor, size: int) -> Tensor:
        """Return the crops of some draws; nothing waits for the device.

        Args:
            samples: (B,) int64.
            boxes: (B, V, 4) int64 x, y, width, height; what lies outside the image is zero.
            taps: 0, 1, ... (K,) int64, see `num_taps`; none where every box has the output's size.
            size: Side of the output, S.

        Returns:
            (V, B, S, S, 3) uint8.
        """
        num_views = boxes.shape[1]
        of_draws = samples.repeat(num_views)
        starts, sizes = self._starts[of_draws], self._sizes[of_draws]
        flat = boxes.transpose(0, 1).reshape(-1, 4)
        out = torch.empty(len(flat), size, size, 3, dtype=torch.uint8, device=flat.device)
        step = max(1, _CHUNK_PIXELS // size**2)
        for first in range(0, len(flat), step):
            rows = slice(first, first + step)
            if len(taps):
                out[rows] = self._resized(starts[rows], sizes[rows], flat[rows], taps, size)
            else:
                out[rows] = self._copied(starts[rows], sizes[rows], flat[rows], size)
        return out.view(num_views, len(samples), size, size, 3)

    def _copied(self, starts: Tensor, sizes: Tensor, boxes: Tensor, size: int) -> Tensor:
        places = torch.arange(size, device=boxes.device)
        y, x = boxes[:, 1, None] + places, boxes[:, 0, None] + places
        pixels = self._at(starts, sizes, y, x)
        inside = _inside(y, sizes[:, :1])[:, :, None] & _inside(x, sizes[:, 1:])[:, None]
        return pixels * inside[..., None]

    def _resized(
        self, starts: Tensor, sizes: Tensor, boxes: Tensor, taps: Tensor, size: int
    ) -> Tensor:
        y, row_weights = _weights(boxes[:, 1], boxes[:, 3], sizes[:, 0], taps, size)
        x, column_weights = _weights(boxes[:, 0], boxes[:, 2], sizes[:, 1], taps, size)
        total = torch.zeros(len(boxes), size, size, 3, device=boxes.device)
        for i in range(len(taps)):
            for j in range(len(taps)):
                pixels = self._at(starts, sizes, y[..., i], x[..., j])
                weights = row_weights[:, :, None, i] * column_weights[:, None, :, j]
                total.addcmul_(pixels.float(), weights[..., None])
        return total.add_(0.5).clamp_(0, 255).to(torch.uint8)

    def _at(self, starts: Tensor, sizes: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Return (B, rows, columns, 3) pixels of (B, rows) and (B, columns) places, clipped."""
        heights, widths = sizes[:, :1], sizes[:, 1:]
        y, x = y.clamp(min=0).minimum(heights - 1), x.clamp(min=0).minimum(widths - 1)
        return self._pixels[(starts[:, None] + y * widths)[:, :, None] + x[:, None]]


class DeviceFetch:
    """Makes batches of draws whose pixels are gathered on the device, as `image_fetch` does there.

    Args:
        split: Of the images.
        images: Its pixels.
        augmentation: Decides the crops.
        checksums: Whether to add them; they are brought to the host for it.
    """

    def __init__(
        self,
        split: Split,
        images: DeviceImages,
        augmentation: ViewParameters,
        *,
        checksums: bool = False,
    ) -> None:
        self._split = split
        self._images = images
        self._augmentation = augmentation
        self._checksums = checksums

    def __call__(self, draws: Draws) -> HostBatch:
        """Return what the device needs for some draws."""
        split, samples = self._split, draws.samples
        boxes = self._augmentation.boxes(samples, draws.views, split.sizes[samples])
        batch = {
            _SAMPLES: torch.from_numpy(samples),
            _BOXES: torch.from_numpy(boxes),
            _TAPS: torch.arange(num_taps(boxes, self._augmentation.size)),
            LABELS: torch.from_numpy(split.labels[samples]),
        }
        for name, values in self._augmentation.parameters(samples, draws.views).items():
            batch[PARAMETER + name] = torch.from_numpy(values)
        return batch

    def complete(self, batch: HostBatch) -> HostBatch:
        """Return the batch, which is on the device, with its pixels."""
        batch = dict(batch)
        samples, boxes, taps = (batch.pop(name) for name in (_SAMPLES, _BOXES, _TAPS))
        batch[PIXELS] = self._images.gather(samples, boxes, taps, self._augmentation.size)
        mapped.check()  # on the CPU they are the file's own
        if self._checksums:
            sums = checksums_of(batch[PIXELS].cpu().numpy())
            batch[CHECKSUMS] = torch.from_numpy(sums).to(boxes.device)
        return batch


def num_taps(boxes: Int64, size: int) -> int:
    """Return how many pixels of a row or column the filter looks at for one of the output.

    0 where every box (..., 4) has the output's size.
    """
    longest = int(boxes[..., 2:].max(initial=0))
    if longest == size and int(boxes[..., 2:].min(initial=size)) == size:
        return 0
    return 2 * int(np.ceil(max(longest / size, 1.0))) + 1


def kept_on_device(
    splits: Sequence[Split], device: torch.device, wanted: Literal["auto", "never", "always"]
) -> tuple[Mapping[str, DeviceImages], str]:
    """Return the splits whose pixels are put on the device, and what a run says of it.

    Args:
        splits: The training split first. All of them are kept, or it alone, or none.
        device: Of the networks.
        wanted: `data.device_images`.

    Returns:
        Images by the split's name, and a line that gives the reason; empty where there was nothing
        to choose.

    Raises:
        ConfigError: If they must be kept there but can't.
    """
    if wanted == "never":
        return {}, ""
    possible = [split for split in splits if _keepable(split)]
    if splits[0] not in possible:
        if wanted == "always":
            raise ConfigError(
                "data.device_images=always: only pixels of the format `memory`, stored upright, "
                "can be kept on the device: convert the dataset with --format memory, or set auto"
            )
        return {}, ""
    if device.type == "cpu" and wanted == "auto":
        return {}, ""  # the mapped file is where the networks are
    on_gpu = device.type == "cuda"
    free, room = torch.cuda.mem_get_info(device) if on_gpu else (0, 0)
    for chosen in (possible, possible[:1]):
        total = sum(_num_bytes(split) for split in chosen)
        if wanted == "always" or not on_gpu or total <= SHARE * room:
            names = ", ".join(split.name for split in chosen)
            if on_gpu and total > free:
                raise ConfigError(
                    f"data.device_images={wanted}: {_gigabytes(total)} of {names} belong on the "
                    f"device, of whose {_gigabytes(room)} only {_gigabytes(free)} are free: end "
                    "what else uses it, or set data.device_images=never"
                )
            images = {split.name: DeviceImages(_storage(split), device) for split in chosen}
            of_room = f" of its {_gigabytes(room)}" if on_gpu else ""
            return images, f"images of {names} on the device: {_gigabytes(total)}{of_room}"
    return {}, (
        f"images stay on the host: {_gigabytes(total)} of {splits[0].name} are more than "
        f"{SHARE:.0%} of the device's {_gigabytes(room)}"
    )


def _keepable(split: Split) -> bool:
    is_memory = isinstance(split.storage, EqualStorage | PackedStorage)
    return is_memory and split.orientations is None


def _storage(split: Split) -> EqualStorage | PackedStorage:
    assert isinstance(split.storage, EqualStorage | PackedStorage)
    return split.storage


def _num_bytes(split: Split) -> int:
    return int(_storage(split).pixels.nbytes)


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.2f} GB"


def _uploaded(pixels: Tensor, device: torch.device) -> Tensor:
    """Return a copy on the device, made in parts: the mapped file is not read as a whole."""
    copy = torch.empty(pixels.shape, dtype=pixels.dtype, device=device)
    step = max(1, _UPLOAD_BYTES // pixels.shape[1])
    for first in range(0, len(pixels), step):
        copy[first : first + step].copy_(pixels[first : first + step])
    mapped.check()
    return copy


def _inside(places: Tensor, length: Tensor) -> Tensor:
    return (places >= 0) & (places < length)


def _weights(
    start: Tensor, length: Tensor, image_length: Tensor, taps: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Return where the filter looks along one axis, and the weights, 0 outside the image.

    Args:
        start: (D,) first pixel of each box.
        length: (D,) its pixels.
        image_length: (D,) pixels of its image.
        taps: (K,) 0, 1, ...
        size: Pixels of the output, S.

    Returns:
        (D, S, K) int64 pixels of the image, which may lie outside of it, and float32 weights.

    Source:
        Pillow's `Resample.c` and PyTorch's antialiased interpolation with the triangle filter.
    """
    scale = length.double()[:, None] / size
    support = scale.clamp(min=1)
    center = (torch.arange(size, device=start.device) + 0.5) * scale
    first = (center - support + 0.5).long().clamp(min=0)
    end = (center + support + 0.5).long().minimum(length[:, None])
    places = first[..., None] + taps
    weights = (1 - ((places - center[..., None] + 0.5) / support[..., None]).abs()).clamp(min=0)
    weights = torch.where(places < end[..., None], weights, 0)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    places = places + start[:, None, None]
    return places, (weights * _inside(places, image_length[:, None, None])).float()
