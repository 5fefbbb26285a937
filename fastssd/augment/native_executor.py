"""Augmentation on the CPU by the native kernels: each image from bytes to result in cache."""

import ctypes
import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from fastssd.augment.executor import Task, UnavailableError
from fastssd.buffers import Buffers
from fastssd.native import library

_MEMORY = -1
_KEPT = 2
"""Results whose memory waits for the next: query and key, or a training batch and its next."""
_FLOATS = ctypes.c_float * 3

_DTYPES = {
    "flip": torch.bool,
    "jitter": torch.float32,
    "order": torch.int64,
    "grayscale": torch.bool,
    "blur": torch.float32,
    "turns": torch.int64,
}


class _Job(ctypes.Structure):
    """`struct fastssd_augmentation` of fastssd/native/src/augment.h."""

    _fields_ = [
        ("num_images", ctypes.c_int64),
        ("side", ctypes.c_int64),
        ("num_steps", ctypes.c_int64),
        ("blur_radius", ctypes.c_int64),
        ("pixels", ctypes.c_void_p),
        ("flip", ctypes.c_void_p),
        ("jitter", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
        ("grayscale", ctypes.c_void_p),
        ("blur", ctypes.c_void_p),
        ("turns", ctypes.c_void_p),
        ("scale", _FLOATS),
        ("shift", _FLOATS),
        ("finished", ctypes.c_void_p),
        ("turned", ctypes.c_void_p),
    ]


class NativeExecutor:
    """Images on as many threads as PyTorch has; an image's bits depend on nothing but itself.

    Within 2e-6 of the pixels' range of PyTorch's own operations.

    Args:
        task: What to do.

    Raises:
        UnavailableError: If the native kernels were not built.
    """

    name: ClassVar[str] = "native kernels"

    def __init__(self, task: Task) -> None:
        if library.library() is None:
            raise UnavailableError(f"{library.problem()}; {library.INSTALL}")
        self._augment = library.function(
            "fastssd_augment",
            arguments=[ctypes.POINTER(_Job), ctypes.c_int],
            result=ctypes.c_int,
        )
        # Fresh memory is cleared by the system, which takes as long as the work itself.
        self._buffers = Buffers(keep=_KEPT)
        self._scale, self._shift = _FLOATS(*task.scale), _FLOATS(*task.shift)
        self._radius = 0 if task.recipe.blur is None else task.recipe.blur.kernel_size // 2

    def finish(
        self, images: Tensor, parameters: Mapping[str, Tensor], turns: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        images = images.contiguous()
        given = dict(parameters) if turns is None else {**parameters, "turns": turns}
        for name, values in given.items():
            if len(values) != len(images):
                raise ValueError(f"{len(values)} {name} for {len(images)} images")
            given[name] = values.to(_DTYPES[name]).contiguous()
        # One behind the other, so that a network can take both as one batch without a copy.
        shape = (1 if turns is None else 2, *images.shape)
        count = math.prod(shape)
        memory = self._buffers.empty(4 * max(1, count))
        both = torch.frombuffer(memory, dtype=torch.float32)[:count].view(shape)
        finished, turned = both[0], None if turns is None else both[1]
        job = _Job(
            num_images=len(images),
            side=images.shape[1],
            num_steps=given["order"].shape[1] if "order" in given else 0,
            blur_radius=self._radius,
            pixels=images.data_ptr(),
            scale=self._scale,
            shift=self._shift,
            finished=finished.data_ptr(),
            turned=None if turned is None else turned.data_ptr(),
            **{name: values.data_ptr() for name, values in given.items()},
        )
        status = self._augment(job, torch.get_num_threads())
        if status == _MEMORY:
            raise MemoryError(f"no memory to augment images of {images.shape[1]} pixels a side")
        if status != 0:
            raise ValueError("the order of a colour jitter is no permutation of its operations")
        turned = None if turned is None else turned.permute(0, 3, 1, 2)
        return finished.permute(0, 3, 1, 2), turned
