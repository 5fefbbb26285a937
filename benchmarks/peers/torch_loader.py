"""PyTorch's DataLoader: torchvision.io with v2 transforms, or ImageFolder with Pillow.

Settings: as many worker processes as cores, which stay between epochs, the default two batches
ahead of each; `v2.RandomResizedCrop`, antialiased.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, read_file
from torchvision.transforms import v2

from peers.peer import RATIO, SCALE, SIDE, Int64, UInt8

_RGB: int = ImageReadMode.RGB.value


class TorchvisionFiles(Dataset[tuple[Tensor, int]]):
    """Files read and decoded by torchvision.io, then cropped as tensors."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = [str(file) for file in files]
        self._crop = v2.RandomResizedCrop(SIDE, scale=SCALE, ratio=RATIO, antialias=True)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        # The operator of torchvision.io.decode_jpeg, which itself warns at every call since 0.29.
        pixels = torch.ops.image.decode_jpeg(read_file(self._files[row]), _RGB, False)
        return self._crop(pixels), row


def pillow_folder(root: Path) -> Dataset[tuple[Tensor, int]]:
    """Return torchvision's ImageFolder: Pillow decodes and crops, then a tensor is made."""
    crop = v2.RandomResizedCrop(SIDE, scale=SCALE, ratio=RATIO, antialias=True)
    return ImageFolder(str(root), transform=v2.Compose([crop, v2.PILToTensor()]))


class TorchLoader:
    """Random resized crops by a DataLoader.

    Args:
        dataset: Gives (3, 224, 224) uint8 pixels and the row.
        batch_size: Images a batch.
        workers: Processes, which start here.
    """

    def __init__(
        self, dataset: Dataset[tuple[Tensor, int]], *, batch_size: int, workers: int
    ) -> None:
        self._order = _Order()
        self._loader = DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=self._order,
            num_workers=workers,
            persistent_workers=workers > 0,
            drop_last=True,
        )
        if workers:
            # The workers are forked now, before other loaders have threads.
            self._order.rows = np.zeros(batch_size, np.int64)
            next(iter(self._loader))

    def batches(self, samples: Int64) -> Iterator[tuple[UInt8, Int64]]:
        self._order.rows = np.random.default_rng(0).permutation(samples)
        for pixels, rows in self._loader:
            yield pixels.numpy(), rows.numpy()

    def close(self) -> None:
        """End the workers."""
        iterator: Any = self._loader._iterator
        if iterator is not None:
            iterator._shutdown_workers()


class _Order(Sampler[int]):
    """The rows of the next epoch; a DataLoader keeps its sampler, so they change in place."""

    def __init__(self) -> None:
        self.rows: Int64 = np.empty(0, np.int64)

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows.tolist())

    def __len__(self) -> int:
        return len(self.rows)
