"""What the stages of a run share: recipe, data and processes, and how images are read from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from fastssd.augment.augmentation import Augmentation
from fastssd.augment.recipes import build_recipe
from fastssd.config import Config
from fastssd.core.processes import Processes
from fastssd.data.damage import Damage
from fastssd.data.dataset import Dataset, Split
from fastssd.data.decode.decoder import Decoder
from fastssd.data.device_images import FILTER, DeviceFetch, DeviceImages, kept_on_device
from fastssd.data.images import image_fetch
from fastssd.data.loader import Fetch
from fastssd.data.plans import ClassIndex, Plan
from fastssd.data.workers import Workers
from fastssd.evaluation.metrics import ClassCounter
from fastssd.methods.method import Method
from fastssd.runtime.graph import Facts
from fastssd.tables.reader import Reader
from fastssd.training.counting import count_correct

if TYPE_CHECKING:
    from fastssd.data.ffcv_loader import FfcvImages

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Context:
    """A run's recipe and surroundings.

    Attributes:
        config: The recipe.
        dataset: Opened.
        decoder: Of all images.
        workers: This process's share of the work.
        processes: What all of them do together.
        output: The run directory.
        damage: Where damaged training images are noted, which others replace; None: they are
            errors.
        device_images: The pixels of splits that are kept on the device, by the split's name.
    """

    config: Config
    dataset: Dataset
    decoder: Decoder
    workers: Workers
    output: Path
    processes: Processes = field(default_factory=Processes)
    damage: Damage | None = None
    device_images: Mapping[str, DeviceImages] = field(default_factory=dict)

    @cached_property
    def train(self) -> Split:
        """The split that is trained on."""
        return self.dataset.split(self.config.data.train)

    @cached_property
    def index(self) -> ClassIndex:
        """Its labels."""
        return ClassIndex(self.train.labels, self.num_classes)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.dataset.classes)

    @property
    def is_main(self) -> bool:
        """Whether this process writes what all share."""
        return self.processes.is_main

    def facts(self) -> Facts:
        """Return what stages' identities follow from beside the recipe."""
        return Facts(
            dataset={"digest": self.dataset.identity.digest},
            decoder=self.decoder.name,
            filter=self.filter(self.augmentation("check", seed=0)),
        )

    def with_images_on_device(self) -> tuple["Context", str]:
        """Return the context with the images where the networks are, if they fit there.

        Whoever looks at images as the run does, to measure its networks or to audit its tables,
        needs it: resized pixels differ from the host's by a grey level.

        Returns:
            The context, and what a person is told of it; empty if there was nothing to choose.
        """
        data = self.config.data
        names = dict.fromkeys((data.train, data.validation, data.test))
        splits = [self.dataset.split(name) for name in names if name is not None]
        images, line = kept_on_device(splits, self.workers.device, data.device_images)
        return replace(self, device_images=images), line

    def on_device(self, module: Module) -> Module:
        """Return the module on this process's device, its weights laid out channels-last."""
        return module.to(self.workers.device).to(memory_format=torch.channels_last)

    def augmentation(
        self,
        stream: str,
        *,
        seed: int,
        transform: str = "train",
        key: bool = False,
        rotate: bool = False,
    ) -> Augmentation:
        """Return the augmentation of one use of the images.

        Args:
            stream: Uses that must not share crops differ in it.
            seed: Of the run.
            transform: `train` or `test`.
            key: Whether a second crop is wanted, by the recipe's `augment.key`.
            rotate: Whether turned copies are wanted.
        """
        config = self.config.augment
        return Augmentation(
            build_recipe(config.test if transform == "test" else config.train, config.size),
            key=build_recipe(config.key, config.size) if key else None,
            rotate=rotate,
            mean=config.mean,
            std=config.std,
            seed=seed,
            stream=stream,
        )

    def test_augmentation(self) -> Augmentation:
        """Return the augmentation of images that are measured, in which nothing is random."""
        return self.augmentation("test", seed=self.config.seed, transform="test")

    def reader(self, split: Split, augmentation: Augmentation) -> Reader:
        """Return a split's images for a network; damaged ones of training are replaced."""
        damage = self.damage if split is self.train else None
        return Reader(
            split=split,
            augmentation=augmentation,
            fetch=self.fetch(split, augmentation, damage),
            workers=self.workers,
            processes=self.processes,
            batch_size=self.config.evaluation.batch_size,
        )

    def fetch(self, split: Split, augmentation: Augmentation, damage: Damage | None) -> Fetch:
        """Return what makes batches of a split in the host's memory, or on the device."""
        checksums = self.config.log.trace
        if split.name in self.device_images:
            kept = self.device_images[split.name]
            return DeviceFetch(split, kept, augmentation, checksums=checksums)
        return image_fetch(
            split,
            self.decoder,
            augmentation,
            checksums=checksums,
            buffers=self.workers.buffers(),
            damage=damage,
        )

    def filter(self, augmentation: Augmentation) -> str:
        """Return what brings training images to the size of an augmentation."""
        cut_only = all(crop.needs_stored_side for crop in augmentation.crops)
        if self.train.name in self.device_images and not cut_only:
            return FILTER
        return self.decoder.filter

    def plan(
        self,
        sampler: str,
        *,
        stream: str,
        order: str,
        seed: int,
        epochs: int,
        num_views: int | None = None,
    ) -> Plan:
        """Return draws of the training images.

        Args:
            sampler: With its options.
            stream: Of the views.
            order: Uses that share a stream draw in different orders.
            seed: Of the run.
            epochs: That will be drawn.
            num_views: Views of each image to keep to: those of a table.
        """
        return Plan(
            index=self.index,
            sampler=sampler,
            seed=seed,
            stream=f"{stream}/{order}",
            num_epochs=epochs,
            num_views=num_views,
        )

    def ffcv_images(self, augmentation: Augmentation) -> "FfcvImages":
        """Return the training images through FFCV's own Loader.

        Raises:
            ConfigError: If the dataset's format or the augmentation's crop is not FFCV's.
        """
        from fastssd.data.ffcv_loader import FfcvImages  # needs the extra, and seconds to compile

        return FfcvImages(
            self.dataset,
            self.train,
            augmentation,
            augmentation.crops,
            threads=self.workers.threads,
            pin_memory=self.workers.pin_memory,
        )

    def count(self, method: Method, split_name: str) -> dict[str, ClassCounter]:
        """Return correct and seen images per class of a split, by head."""
        split = self.dataset.split(split_name)
        augmentation = self.test_augmentation()
        reader = replace(
            self.reader(split, augmentation),
            # What is measured are the images of the split, and no others in their place.
            fetch=self.fetch(split, augmentation, None),
        )
        return count_correct(method, reader, self.num_classes)
