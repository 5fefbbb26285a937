"""Augmentation by PyTorch's own operations: on every device, and the reference of the kernels."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from fastssd.augment import blur, colour
from fastssd.augment.executor import Task
from fastssd.augment.geometry import flip_chosen, turn_quarters

_CPU_CHUNK_PIXELS = 2**17
"""Pixels that a CPU takes at once, so that intermediate results stay in its cache: of 2**14 to
2**19, measured on 2 cores with images of 32 and 224 pixels a side."""


class TorchExecutor:
    """Each operation over the whole batch, an image left as it was by neutral parameters.

    Args:
        task: What to do.
    """

    name: ClassVar[str] = "PyTorch"

    def __init__(self, task: Task) -> None:
        self._recipe, self._device = task.recipe, task.device
        # Sent to the device once, as sending waits for it.
        self._scale = torch.tensor(task.scale, device=task.device)
        self._shift = torch.tensor(task.shift, device=task.device)
        self._taps: Tensor | None = None
        if task.recipe.blur is not None:
            self._taps = blur.reflected_taps(
                task.recipe.size, task.recipe.blur.kernel_size, device=task.device
            )

    def finish(
        self, images: Tensor, parameters: Mapping[str, Tensor], turns: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        finished = torch.empty(images.shape, device=images.device)
        chunk = max(1, len(images))
        if images.device.type == "cpu":
            chunk = max(1, _CPU_CHUNK_PIXELS // self._recipe.size**2)
        # Half precision has fewer steps than a byte: autocast must not reach the blur.
        with torch.autocast(images.device.type, enabled=False):
            for first in range(0, len(images), chunk):
                rows = slice(first, first + chunk)
                of_rows = {name: values[rows] for name, values in parameters.items()}
                self._finish_chunk(images[rows], of_rows, out=finished[rows])
        upright = finished.permute(0, 3, 1, 2)
        return upright, None if turns is None else turn_quarters(upright, turns)

    def _finish_chunk(
        self, images: Tensor, parameters: Mapping[str, Tensor], *, out: Tensor
    ) -> None:
        """Write (B, S, S, 3) normalised images of as many bytes to `out`."""
        if "flip" in parameters:
            images = flip_chosen(images, parameters["flip"])
        if not self._recipe.recolours:
            torch.addcmul(self._shift, images.float(), self._scale / 255, out=out)
            return
        planes = images.permute(3, 0, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        planes = planes.div_(255)
        if "jitter" in parameters:
            planes = colour.jitter(planes, parameters["jitter"], parameters["order"])
        if "grayscale" in parameters:
            planes = colour.grayscale(planes, parameters["grayscale"])
        if self._taps is not None:
            planes = blur.blur(planes, parameters["blur"], self._taps)
        torch.addcmul(self._shift, planes.permute(1, 2, 3, 0), self._scale, out=out)
