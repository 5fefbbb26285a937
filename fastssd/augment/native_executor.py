"""Augmentation on the CPU by the native kernels: each image from bytes to result in cache."""

import ctypes
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from fastssd.augment.executor import Task, UnavailableError
from fastssd.core.buffers import Buffers
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
        num_images, side = images.shape[:2]
        images = _as(images, torch.uint8)
        given = dict(parameters) if turns is None else {**parameters, "turns": turns}
        for name, values in given.items():
            if values.shape[0] != num_images:
                raise ValueError(f"{values.shape[0]} {name} for {num_images} images")
            given[name] = _as(values, _DTYPES[name])
        # One behind the other, so that a network can take both as one batch without a copy.
        count = 3 * num_images * side * side
        parts = 1 if turns is None else 2
        memory = self._buffers.empty(4 * max(1, parts * count))
        address = memory.ctypes.data
        job = _Job(
            num_images=num_images,
            side=side,
            num_steps=given["order"].shape[1] if "order" in given else 0,
            blur_radius=self._radius,
            pixels=images.data_ptr(),
            scale=self._scale,
            shift=self._shift,
            finished=address,
            turned=None if turns is None else address + 4 * count,
            **{name: values.data_ptr() for name, values in given.items()},
        )
        status = self._augment(job, torch.get_num_threads())
        if status == _MEMORY:
            raise MemoryError(f"no memory to augment images of {side} pixels a side")
        if status != 0:
            raise ValueError("the order of a colour jitter is no permutation of its operations")
        values = torch.frombuffer(memory, dtype=torch.float32)
        shape, strides = (num_images, 3, side, side), (3 * side * side, 1, 3 * side, 3)
        finished = values.as_strided(shape, strides)
        return finished, None if turns is None else values.as_strided(shape, strides, count)


def _as(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return values one behind the other, of a type.

    PyTorch's operations let other threads run Python, and have to wait for them when they are done:
    with small images and loader threads, that is most of their time. So none is called in vain.
    """
    if values.dtype is not dtype:
        values = values.to(dtype)
    return values if values.is_contiguous() else values.contiguous()
