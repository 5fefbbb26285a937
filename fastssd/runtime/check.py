"""What can be known to be wrong before anything is trained: config, dataset and processes."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from torch import nn

from fastssd.augment.augmentation import Augmentation
from fastssd.data.dataset import Split
from fastssd.data.decode.decoders import FFCV
from fastssd.data.sharding import check_batch_size
from fastssd.errors import ConfigError
from fastssd.runtime.build import build
from fastssd.runtime.context import Context
from fastssd.runtime.graph import Graph
from fastssd.runtime.memory import check_memory
from fastssd.tables.kept import given_k


def check_images(context: Context) -> None:
    """Check splits and augmentations, which the identities of a graph's stages follow from.

    Raises:
        ConfigError: Naming the key that does not go with the dataset.
    """
    data = context.config.data
    with _naming("data.train"):
        train = context.train
    with _naming("augment.train"):
        _check_cut(context.augmentation("check", seed=0), train)
    for key, name in (("test", data.test), ("validation", data.validation)):
        if name is not None:
            with _naming(f"data.{key}"):
                split = _measurable(context.dataset.split(name))
            with _naming("augment.test"):
                _check_cut(context.test_augmentation(), split)


def check_run(graph: Graph, context: Context) -> None:
    """Check all that the stages of a run will need, so that none fails after hours of the others.

    Raises:
        ConfigError: Naming the key that does not go with the dataset, the processes or another
            key.
        DataError: If a split's files are damaged.
    """
    config = context.config
    for stage in graph.stages:
        if stage.budget is not None:
            check_batch_size(
                f"{stage.label}.budget",
                batch_size=stage.budget.batch_size,
                accumulate=stage.budget.accumulate,
                num_processes=context.workers.num_processes,
                num_draws=len(context.train),
            )
    for table in graph.tables():
        if table.holds.store == "topk" and isinstance(table.draws, int):
            with _naming(table.folder):
                num_rows = len(context.train) * table.draws
                given_k(table.holds, num_rows=num_rows, num_classes=context.num_classes)
    if config.data.decoder == FFCV:
        _check_ffcv(graph, context)
    _check_networks(graph, context)
    if any("key" in stage.options.slots for stage in graph.stages):
        with _naming("augment.key"):
            _check_cut(context.augmentation("check", seed=0, key=True), context.train)
    check_memory(graph, context)


def _check_networks(graph: Graph, context: Context) -> None:
    """Build every network that stands on no other, so that what can't be built is known now."""
    seen = set()
    for stage in graph.stages:
        known = (stage.kind, repr(stage.options), stage.model)
        if stage.sources or known in seen:
            continue
        seen.add(known)
        with _naming(stage.label):
            method = build(stage, context)
            if context.config.deterministic and context.workers.device.type == "cuda":
                check_repeatable(method)


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


def _check_ffcv(graph: Graph, context: Context) -> None:
    """Refuse what FFCV's Loader, whose crops are its own, can't be combined with."""
    config = context.config
    # What is made of a table has no other way: it is none to train.
    reads = [stage for stage in graph.stages if stage.table is not None]
    remedies = [f"leave {stage.method} out of methods" for stage in reads if stage.budget is None]
    remedies += [f"set {stage.label}.reads=images" for stage in reads if stage.budget is not None]
    remedies += ["set deterministic=false"] if config.deterministic else []
    remedies += ["set log.trace=false"] if config.log.trace else []
    if remedies:
        raise ConfigError(
            "data.decoder=ffcv draws its own unseeded crops, which can be neither tabulated nor "
            f"repeated: {', '.join(remedies)}, or choose another decoder"
        )
    if config.data.on_error == "replace":
        raise ConfigError(
            "data.on_error=replace: FFCV's Loader can't show another image in a damaged one's "
            "place: set data.on_error=raise, or another decoder"
        )
    context.ffcv_images(context.augmentation("check", seed=0))


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
