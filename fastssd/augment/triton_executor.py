"""Augmentation on an NVIDIA GPU by Triton kernels, which nothing of the host waits for."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fastssd.augment.executor import Task, UnavailableError
from fastssd.augment.parameters import KeyedDraws, Role, operation_parameters
from fastssd.augment.torch_executor import TorchExecutor
from fastssd.core import counter_rng

_BLOCK = 1024
"""Pixels of a program."""

_TRIAL_IMAGES = 4
_TRIAL_TOLERANCE = 1e-3
"""Of normalised values: a hundredth of a grey level. A kernel that goes wrong is off by more."""


class TritonExecutor:
    """Two passes over an image, one to sum its greys before a contrast; two more where it blurs.

    Parameters stay on the device. Kernels are compiled when the executor is made, and a few images
    compared with those of PyTorch's own operations. Results are within 2e-6 of the pixels' range of
    those; an image's bits depend on nothing but itself.

    Args:
        task: What to do.

    Raises:
        UnavailableError: If Triton is missing, or cannot compile the kernels, or they go wrong.
    """

    name: ClassVar[str] = "Triton kernels"

    def __init__(self, task: Task) -> None:
        try:
            from fastssd.augment import triton_kernels
        except ImportError as error:
            raise UnavailableError(f"Triton cannot be imported ({error})") from error
        self._kernels: Any = triton_kernels
        self._recipe, self._device = task.recipe, task.device
        self._statistics = (*task.scale, *task.shift)
        self._check(task)

    def finish(
        self, images: Tensor, parameters: Mapping[str, Tensor], turns: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        # One behind the other, so that a network can take both as one batch without a copy.
        both = torch.empty((1 if turns is None else 2, *images.shape), device=images.device)
        finished, turned = both[0], None if turns is None else both[1]
        if len(images) > 0:
            # Triton starts kernels on the current device, which need not be the images'.
            with torch.cuda.device_of(images):  # type: ignore[no-untyped-call]
                self._launch(images.contiguous(), parameters, turns, finished, turned)
        upright = finished.permute(0, 3, 1, 2)
        return upright, None if turned is None else turned.permute(0, 3, 1, 2)

    def _launch(
        self,
        images: Tensor,
        parameters: Mapping[str, Tensor],
        turns: Tensor | None,
        finished: Tensor,
        turned: Tensor | None,
    ) -> None:
        """Start the kernels of a batch."""
        batch, side = images.shape[:2]
        num_blocks = -(-side * side // _BLOCK)
        grid = (batch * num_blocks,)
        shape = {"SIDE": side, "BLOCK": _BLOCK, "NUM_BLOCKS": num_blocks}
        # A kernel takes a pointer for what it will not read, too.
        given = {name: values.contiguous() for name, values in parameters.items()}
        flip, jitter, order, grayscale, sigmas = (
            given.get(name, images) for name in ("flip", "jitter", "order", "grayscale", "blur")
        )
        sums, planes, blurred = images, images, images
        num_steps = order.shape[1] if "order" in given else 0
        has_flip, has_blur, has_turns = "flip" in given, "blur" in given, turns is not None
        turns = images if turns is None else turns.contiguous()
        turned = finished if turned is None else turned
        if num_steps:
            sums = torch.empty(grid, device=images.device)
            self._kernels.add_greys[grid](
                images, flip, jitter, order, sums,
                HAS_FLIP=has_flip, NUM_STEPS=num_steps, **shape,
            )  # fmt: skip
        if has_blur:
            planes, blurred = torch.empty((2, *images.shape), device=images.device)
        self._kernels.colour[grid](
            images, flip, jitter, order, sums, grayscale, sigmas, turns, planes, finished, turned,
            *self._statistics,
            HAS_FLIP=has_flip, NUM_STEPS=num_steps, HAS_GRAYSCALE="grayscale" in given,
            HAS_BLUR=has_blur, HAS_TURNS=has_turns, SUMS=_power_of_two(num_blocks), **shape,
        )  # fmt: skip
        if has_blur:
            assert self._recipe.blur is not None
            radius = self._recipe.blur.kernel_size // 2
            self._kernels.blur_along[grid](planes, sigmas, blurred, RADIUS=radius, **shape)
            self._kernels.blur_down[grid](
                blurred, sigmas, turns, finished, turned, *self._statistics,
                HAS_TURNS=has_turns, RADIUS=radius, **shape,
            )  # fmt: skip

    def _check(self, task: Task) -> None:
        """Compile the kernels, and raise UnavailableError if they do not what they should."""
        rows = np.arange(_TRIAL_IMAGES)
        draws = KeyedDraws(0, "trial", rows, rows)
        found = operation_parameters(task.recipe, draws, Role.QUERY)
        parameters = {name: torch.from_numpy(values) for name, values in found.items()}
        shape = (_TRIAL_IMAGES, task.recipe.size, task.recipe.size, 3)
        images = torch.from_numpy(counter_rng.generator("trial").integers(0, 256, shape, np.uint8))
        turns = torch.arange(_TRIAL_IMAGES)
        on_cpu = Task(task.recipe, task.scale, task.shift, torch.device("cpu"))
        expected = TorchExecutor(on_cpu).finish(images, parameters, turns)
        there = {name: values.to(task.device) for name, values in parameters.items()}
        try:
            turned = self.finish(images.to(task.device), there, turns.to(task.device))
            straight = self.finish(images.to(task.device), there, None)
            differences = [
                float((result.cpu() - wanted).abs().max())
                for result, wanted in zip(
                    (*turned, straight[0]), (*expected, expected[0]), strict=True
                )
                if result is not None and wanted is not None
            ]
        # A compiler for any GPU can fail in any way, and augmentation has another to turn to.
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise UnavailableError(
                f"Triton cannot run the kernels ({type(error).__name__}: {reason})"
            ) from error
        # One by one: what a kernel did not write may be NaN, which is no maximum.
        wrong = [each for each in differences if not each < _TRIAL_TOLERANCE]
        if wrong:
            raise UnavailableError(f"Triton's kernels are off by {wrong[0]:.2g}")


def _power_of_two(count: int) -> int:
    """Return the least power of two that is not below `count`."""
    return 1 << (count - 1).bit_length()
