"""FFCV's Loader with the pipeline of FFCV's own CIFAR example, on the CPU.

Source: libffcv/ffcv:examples/cifar/train_cifar.py, with 4 pixels of padding as ours, without
Cutout, and in float32: half precision is slower on a CPU. It is normalised as there, by torchvision
after a conversion, or by FFCV's own table of the 256 values (`NormalizeImage`), as in
libffcv/ffcv-imagenet.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision import transforms

from peers.peer import Int64

PADDING = 4


class FfcvCifar:
    """Normalised batches of small raw images.

    Args:
        beton: With raw images of one size.
        batch_size: Images a batch.
        threads: FFCV's workers.
        mean: Of the channels, in [0, 255].
        std: Of the channels, in [0, 255].
        by_table: Whether FFCV's table normalises, or torchvision.
    """

    def __init__(
        self,
        beton: Path,
        *,
        batch_size: int,
        threads: int,
        mean: list[float],
        std: list[float],
        by_table: bool,
    ) -> None:
        from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import (
            Convert,
            NormalizeImage,
            RandomHorizontalFlip,
            RandomTranslate,
            Squeeze,
            ToDevice,
            ToTensor,
            ToTorchImage,
        )

        cpu = torch.device("cpu")
        image = [SimpleRGBImageDecoder(), RandomHorizontalFlip(), RandomTranslate(padding=PADDING)]
        if by_table:
            image.append(NormalizeImage(np.array(mean), np.array(std), np.float32))
        image += [ToTensor(), ToDevice(cpu, non_blocking=True), ToTorchImage()]
        if not by_table:
            image += [Convert(torch.float32), transforms.Normalize(mean, std)]
        label = [IntDecoder(), ToTensor(), ToDevice(cpu), Squeeze()]
        self._loader = Loader(
            str(beton),
            batch_size=batch_size,
            num_workers=threads,
            order=OrderOption.RANDOM,
            os_cache=True,
            drop_last=True,
            pipelines={"image": image, "label": label},
            seed=0,
        )

    def batches(self) -> Iterator[tuple[Tensor, Int64]]:
        """Yield (B, 3, S, S) float32 images and the samples' labels of one epoch."""
        for images, labels in self._loader:
            yield images, labels.numpy()
