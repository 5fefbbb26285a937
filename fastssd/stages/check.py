"""What can be known to be wrong before anything is trained: config, dataset and processes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from torch import nn

from fastssd.augment.augmentation import Augmentation
from fastssd.config import TrainingConfig
from fastssd.data.dataset import Split
from fastssd.data.decode.decoders import FFCV
from fastssd.data.plans import check_sampler
from fastssd.data.sharding import check_batch_size
from fastssd.errors import ConfigError
from fastssd.stages.context import Context
from fastssd.stages.jobs import Job
from fastssd.stages.memory import check_memory


def check_run(jobs: Sequence[Job], context: Context) -> None:
    """Check all that the jobs of a run will need, so that none fails after hours of the others.

    Raises:
        ConfigError: Naming the key that does not go with the dataset, the processes or another
            key.
        DataError: If a split's files are damaged.
    """
    config = context.config
    for job in jobs:
        training: TrainingConfig = getattr(config, job.kind)
        check_sampler(training.plan, key=f"{job.kind}.plan", num_epochs=training.epochs)
        check_batch_size(
            job.kind,
            batch_size=training.batch_size,
            accumulate=training.accumulate,
            num_processes=context.workers.num_processes,
            num_draws=len(context.train),
        )
    if config.data.decoder == FFCV:
        _check_ffcv(context)
    with _naming("model.backbone"):
        backbone = context.backbone("check")
        if config.deterministic and context.workers.device.type == "cuda":
            check_repeatable(backbone)
    with _naming("augment.query"):
        _check_cut(context.augmentation("features"), context.train)
    if any(job.task == "instance" for job in jobs):
        with _naming("augment.key"):
            _check_cut(context.augmentation("features", key=True), context.train)
    for key, name in (("test", config.data.test), ("validation", config.data.validation)):
        if name is not None:
            with _naming(f"data.{key}"):
                split = _measurable(context.dataset.split(name))
            with _naming("augment.test"):
                _check_cut(context.augmentation("test"), split)
    check_memory(jobs, context)


def check_repeatable(backbone: nn.Module) -> None:
    """Refuse a network with a layer whose gradient has no algorithm on CUDA that repeats its bits.

    Of what backbones are made of that is pooling to a given size above one pixel (VGG, AlexNet), as
    `torch.use_deterministic_algorithms` lists it.

    Raises:
        ConfigError: Naming the layer.
    """
    for name, layer in backbone.named_modules():
        averages = isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size not in (1, (1, 1))
        if averages or isinstance(layer, nn.AdaptiveMaxPool2d):
            raise ConfigError(
                f"layer {name}, {layer}, has no gradient on CUDA whose bits repeat: set "
                "deterministic=false, or choose another backbone"
            )


def _check_ffcv(context: Context) -> None:
    """Refuse what FFCV's Loader, whose crops are its own, can't be combined with."""
    config = context.config
    for key, contradicts, remedy in (
        ("balance.source", config.balance.source == "table", "images"),
        ("distill.teacher", config.distill.teacher == "table", "online"),
        ("deterministic", config.deterministic, "false"),
        ("log.trace", config.log.trace, "false"),
    ):
        if contradicts:
            raise ConfigError(
                f"data.decoder=ffcv draws its own unseeded crops, which can be neither tabulated "
                f"nor repeated: set {key}={remedy}, or another decoder"
            )
    if config.data.on_error == "replace":
        raise ConfigError(
            "data.on_error=replace: FFCV's Loader can't show another image in a damaged one's "
            "place: set data.on_error=raise, or another decoder"
        )
    context.ffcv_images(context.augmentation("features"))


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Put the config's key before the message of a ConfigError."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error


def _measurable(split: Split) -> Split:
    if not len(split):
        raise ConfigError(f"split {split.name!r} has no images: nothing could be measured")
    return split


def _check_cut(augmentation: Augmentation, split: Split) -> None:
    """Let the augmentation refuse an image that it can't cut from: one of another size, if any."""
    odd = (split.sizes != augmentation.size).any(axis=1)
    row = np.array([odd.argmax()], dtype=np.int64)
    augmentation.boxes(row, np.zeros_like(row), split.sizes[row])
