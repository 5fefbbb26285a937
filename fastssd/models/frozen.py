"""Networks that no longer learn, and where their BatchNorm layers take statistics from."""

from collections.abc import Iterable
from itertools import chain

import torch
from torch import Tensor, nn

from fastssd.core.registry import unknown_choice

BATCHNORM_MODES = ("frozen", "recalibrated", "batch")
"""Running statistics as trained; running statistics refreshed first (`recalibrate`); each batch's
own, as in the reference implementations, whose frozen networks stay in train mode."""

_BatchNorm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def freeze(module: nn.Module) -> None:
    """Let a module learn no more: no gradient for its parameters, everything in eval mode.

    `train()` on a module that contains it sets it back to train mode: call `set_batchnorm_mode`
    after each.
    """
    module.requires_grad_(False)
    module.eval()


def set_batchnorm_mode(module: nn.Module, mode: str) -> None:
    """Set where a frozen module's BatchNorm layers take their statistics from.

    Everything else in it, dropout above all, is put into eval mode.

    Args:
        module: In either mode.
        mode: One of `BATCHNORM_MODES`. ``recalibrated`` is ``frozen`` after `recalibrate`, which
            it does not call. Under ``batch`` the running statistics, which evaluation uses, drift
            to the batches seen.

    Raises:
        ConfigError: If there is no such mode.
    """
    if mode not in BATCHNORM_MODES:
        raise unknown_choice("BatchNorm mode", mode, BATCHNORM_MODES)
    module.eval()
    if mode == "batch":
        for layer in _batchnorm_layers(module):
            layer.train()


@torch.no_grad()
def recalibrate(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of BatchNorm layers by averages over batches of images.

    Every batch counts alike: a mean of the batch means and of the unbiased batch variances, so
    leave a smaller last batch out. Every layer sees what the layers before it put out in train
    mode. The module ends in eval mode; momenta stay as they are.

    Args:
        module: Applied to each batch; dropout is off.
        batches: Images as the module takes them, on its device. Several processes must be given
            the same ones, or average the buffers afterwards.

    Raises:
        ValueError: If there are no batches; the statistics are then as before.
    """
    module.eval()
    layers = [layer for layer in _batchnorm_layers(module) if layer.track_running_stats]
    if not layers:
        return
    iterator = iter(batches)
    try:
        first = next(iterator)
    except StopIteration:
        raise ValueError("recalibration needs at least one batch of images") from None
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.train()
        for number, images in enumerate(chain([first], iterator), start=1):
            for layer in layers:
                # The mean over batches. With momentum None PyTorch makes the same, but asks the
                # device for the number, at every layer.
                layer.momentum = 1 / number
            module(images)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()


def _batchnorm_layers(
    module: nn.Module,
) -> list[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm]:
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
