"""fastssd's own loader as training uses it, behind the interface of the peers."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from peers.peer import RATIO, SCALE, SIDE, Int64, Pixels

from fastssd.augment.augmentation import Augmentation
from fastssd.augment.boxes import ResizedCrop
from fastssd.augment.recipe import Recipe
from fastssd.config import DataConfig
from fastssd.data.dataset import Split
from fastssd.data.decode.decoders import build_decoder
from fastssd.data.draws import Draws, pack_view
from fastssd.data.images import PIXELS, MakesTensors, image_fetch
from fastssd.data.loader import HostBatch
from fastssd.data.plans import running_count
from fastssd.data.workers import Workers

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's channels, in [0, 1]."""


def random_resized_crops(*, views: int = 1) -> Augmentation:
    """Return one or two random resized crops of 224 pixels a side, and nothing else."""
    recipe = Recipe(name="crop", size=SIDE, crop=ResizedCrop(scale=SCALE, ratio=RATIO))
    key = recipe if views == 2 else None
    return Augmentation(recipe, key=key, mean=MEAN, std=STD, seed=0, stream="benchmark")


@dataclass(frozen=True, slots=True)
class OurLoader:
    """A split's images by a decoder, prefetched in threads, as a stage's feed makes them.

    Attributes:
        split: Where the images are.
        decoder: A key of the decoders' registry.
        augmentation: Decides the crops.
        batch_size: Images a batch.
        threads: Of the loader; `data.threads` of a config.
    """

    split: Split
    decoder: str
    augmentation: Augmentation
    batch_size: int
    threads: int

    def batches(self, samples: Int64) -> Iterator[tuple[Pixels, Int64]]:
        for draws, batch in self.host_batches(shuffled(samples)):
            pixels = batch[PIXELS][0]
            yield pixels if pixels.is_cuda else pixels.numpy(), draws.samples

    def host_batches(self, draws: Draws) -> Iterator[tuple[Draws, HostBatch]]:
        """Yield full batches of the draws, in their order, with all that was fetched."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        decoder = build_decoder(self.decoder, threads=self.threads, device=device)
        # Pixels that are made on a GPU stay there; the others are delivered to the host, as by all.
        stays = isinstance(decoder, MakesTensors) and decoder.makes_tensors
        workers = workers_for(self.threads, device if stays else CPU)
        fetch = image_fetch(self.split, decoder, self.augmentation, buffers=workers.buffers())
        starts = range(0, len(draws) - self.batch_size + 1, self.batch_size)
        parts = (draws[start : start + self.batch_size] for start in starts)
        yield from workers.batches(parts, workers.source(fetch))

    def close(self) -> None:
        """Do nothing: the threads end with an iteration."""


def workers_for(threads: int, device: torch.device = CPU) -> Workers:
    """Return what prepares batches in the only process there is, with a config's defaults."""
    config = DataConfig(path="unused")
    return Workers(
        rank=0,
        num_processes=1,
        threads=threads,
        prefetch=config.prefetch,
        device=device,
        read_ahead=config.read_ahead,
    )


def shuffled(samples: Int64) -> Draws:
    """Return draws of these samples in a random order, every repetition another view."""
    order = np.random.default_rng(0).permutation(samples)
    return Draws(order, pack_view(0, running_count(order)))
