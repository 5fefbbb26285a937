"""What the stages of a run share: config, data, processes, and how to make feeds from them."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import Tensor, nn

from fastssd.augment.augmentation import Augmentation
from fastssd.augment.recipes import build_recipe
from fastssd.collectives import main_says
from fastssd.config import Config, TrainingConfig
from fastssd.data.damage import Damage
from fastssd.data.dataset import Dataset, Split
from fastssd.data.decode.decoder import Decoder
from fastssd.data.decode.decoders import FFCV
from fastssd.data.device_images import FILTER, DeviceFetch, DeviceImages, kept_on_device
from fastssd.data.images import image_fetch
from fastssd.data.loader import Fetch
from fastssd.data.plans import ClassIndex, Plan
from fastssd.evaluation.metrics import ClassCounter
from fastssd.keyed import key_of
from fastssd.models.backbones import Backbone, build_backbone
from fastssd.models.heads import build_head
from fastssd.models.seeding import seeded
from fastssd.stages.evaluate import count_correct
from fastssd.stages.feeds import Feed, Source, TableFetch, Workers, together
from fastssd.stages.stage import Stage
from fastssd.stages.table import Table

if TYPE_CHECKING:
    from fastssd.data.ffcv_loader import FfcvImages

StageKind = TypeVar("StageKind", bound=Stage)

Stream = Literal["features", "distill", "balance", "recalibrate", "test"]
"""Uses of training images that must not share crops: `features` is what stage I trains on,
`distill` what the teacher says and stage III sees, `balance` what stage IV (and the LWS baseline)
sees: no table may be made on the very crops that its network was trained on."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """A run's config and surroundings.

    Attributes:
        config: The recipe.
        dataset: Opened.
        decoder: Of all images.
        workers: This process's share of the work.
        output: The run directory.
        is_main: Whether this process writes what all share.
        autocast: Enters the run's precision.
        reduce: Sums a tensor over processes.
        barrier: Waits for all processes.
        stop_if_asked: Leaves by an exception, on all processes, if a signal asked one of them to
            stop. All call it, where nothing is lost by leaving, and it waits for them.
        interrupted: Whether a signal asked to stop, so that what is made now is not wanted. Waits
            for nobody; `stop_if_asked` follows.
        damage: Where damaged training images are noted, which others replace; None: they are
            errors.
        device_images: The pixels of splits that are kept on the device, by the split's name.
    """

    config: Config
    dataset: Dataset
    decoder: Decoder
    workers: Workers
    output: Path
    is_main: bool
    autocast: Callable[[], AbstractContextManager[object]]
    reduce: Callable[[Tensor], Tensor]
    barrier: Callable[[], None]
    stop_if_asked: Callable[[], None]
    interrupted: Callable[[], bool] = lambda: False
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

    def main_says(self, number: int) -> int:
        """Return the main process's number on all processes, which all call it."""
        device, is_main = self.workers.device, self.is_main
        return main_says(number, is_main=is_main, device=device, reduce=self.reduce)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.dataset.classes)

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

    def backbone(self, part: str) -> Backbone:
        """Return a backbone whose random weights belong to a part of the run."""
        return build_backbone(self.config.model.backbone, seed=key_of(self.config.seed, part))

    def on_device(self, stage: StageKind) -> StageKind:
        """Return the stage on this process's device, its weights laid out channels-last."""
        return stage.to(self.workers.device).to(memory_format=torch.channels_last)

    def head(self, width: int, part: str) -> nn.Module:
        """Return a classifier whose random weights belong to a part of the run."""
        with seeded(self.config.seed, part):
            return build_head(self.config.model.head, width, self.num_classes)

    def augmentation(
        self, stream: Stream, *, key: bool = False, rotate: bool = False
    ) -> Augmentation:
        """Return the training augmentation of one use of the images; of `test` the test view."""
        config = self.config.augment
        query = config.test if stream == "test" else config.query
        return Augmentation(
            build_recipe(query, config.size),
            key=build_recipe(config.key, config.size) if key else None,
            rotate=rotate,
            mean=config.mean,
            std=config.std,
            seed=self.config.seed,
            stream=stream,
        )

    def images(self, split: Split, augmentation: Augmentation) -> Fetch:
        """Return what fetches a split's images for an augmentation, damaged ones replaced."""
        return self._fetch(split, augmentation, self.damage)

    def _fetch(self, split: Split, augmentation: Augmentation, damage: Damage | None) -> Fetch:
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
        self, training: TrainingConfig, *, stream: Stream, part: str, num_views: int | None = None
    ) -> Plan:
        """Return a stage's draws.

        Args:
            training: Sampler and epochs.
            stream: Of the views.
            part: Of the run: parts that share a stream draw in different orders.
            num_views: Views of the stream's table to keep to.
        """
        return Plan(
            index=self.index,
            sampler=training.plan,
            seed=self.config.seed,
            stream=f"{stream}/{part}",
            num_epochs=training.epochs,
            num_views=num_views,
        )

    def feed(
        self,
        training: TrainingConfig,
        plan: Plan,
        augmentation: Augmentation | None,
        table: Table | None = None,
    ) -> Feed:
        """Return a stage's batches: images, a table's logits, or both."""
        if augmentation is not None and self.config.data.decoder == FFCV:
            source = Source(prepare=self.ffcv_images(augmentation).batches)
        else:
            fetches: list[Fetch] = []
            if table is not None:
                fetches.append(TableFetch(table, self.index))
            if augmentation is not None:
                fetches.append(self.images(self.train, augmentation))
            source = self.workers.source(fetches[0] if len(fetches) == 1 else together(*fetches))
        return Feed(
            plan=plan,
            source=source,
            augmentation=augmentation,
            training=training,
            workers=self.workers,
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

    def count(self, stage: Stage, split_name: str) -> dict[str, ClassCounter]:
        """Return correct and seen images per class of a split, by head."""
        split = self.dataset.split(split_name)
        augmentation = self.augmentation("test")
        return count_correct(
            stage,
            num_images=len(split),
            num_classes=self.num_classes,
            # What is measured are the images of the split, and no others in their place.
            fetch=self._fetch(split, augmentation, None),
            augmentation=augmentation,
            workers=self.workers,
            batch_size=self.config.evaluation.batch_size,
            autocast=self.autocast,
            interrupted=self.interrupted,
            reduce=self.reduce,
        )
