"""FFCV's Loader over a pass-through `.beton`: the stored JPEG bytes as they are.

Settings: RANDOM order, `os_cache=True`, as many workers as cores, three batches ahead, compiled;
crops by `RandomResizedCropRGBImageDecoder`, as in libffcv/ffcv-imagenet. For files larger than
memory, as FFCV's documentation has it, QUASI_RANDOM order and `os_cache=False`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from peers.peer import RATIO, SCALE, SIDE, Int64, UInt8


class FfcvLoader:
    """Random resized crops by FFCV.

    Args:
        beton: The file.
        batch_size: Images a batch.
        threads: FFCV's workers, all at one batch.
        num_pipelines: Crops of each image; every one is a pipeline over the same field.
        os_cache: Whether the system's page cache is used, or FFCV's own.
    """

    def __init__(
        self,
        beton: Path,
        *,
        batch_size: int,
        threads: int,
        num_pipelines: int = 1,
        os_cache: bool = True,
    ) -> None:
        from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.pipeline import PipelineSpec

        pipelines: dict[str, Any] = {"image": None, "label": [IntDecoder()]}
        for number in range(num_pipelines):
            decoder = RandomResizedCropRGBImageDecoder((SIDE, SIDE), SCALE, RATIO)
            pipelines[f"crop{number}"] = PipelineSpec("image", decoder=decoder)
        self._loader = Loader(
            str(beton),
            batch_size=batch_size,
            num_workers=threads,
            order=OrderOption.RANDOM if os_cache else OrderOption.QUASI_RANDOM,
            os_cache=os_cache,
            pipelines=pipelines,
            seed=0,
        )

    def batches(self, samples: Int64) -> Iterator[tuple[UInt8, Int64]]:
        for labels, *crops in self._epoch(samples):
            yield crops[0], labels[:, 0]

    def crops(self, samples: Int64) -> Iterator[tuple[list[UInt8], Int64]]:
        """Yield all crops of each batch's images, one array a pipeline."""
        for labels, *crops in self._epoch(samples):
            yield crops, labels[:, 0]

    def whole_epoch(self) -> Iterator[tuple[UInt8, Int64]]:
        """Yield the batches of the whole file, in FFCV's own random order."""
        for labels, *crops in iter(self._loader):
            yield crops[0], labels[:, 0]

    def close(self) -> None:
        """Do nothing: FFCV's threads end with an epoch."""

    def _epoch(self, samples: Int64) -> Iterator[tuple[UInt8, ...]]:
        # A new Loader would be compiled again; this one gets other indices, as it would have had.
        loader = self._loader
        order = samples.astype(np.uint64)
        loader.indices = loader.traversal_order.indices = loader.first_traversal_order = order
        return iter(loader)
