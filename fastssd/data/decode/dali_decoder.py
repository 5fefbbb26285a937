"""NVIDIA DALI as a decoder: the plan's boxes drive its decode, on the CPU or the GPU.

JPEG files are decoded within the part that their boxes need, cut, and resized by DALI; raw images
are cut here and resized by DALI. On the CPU its pixels before resizing are torchvision's, bit for
bit. Its resize differs by rounding, one grey level, and in the outermost rows and columns of the
output, by up to some 30 grey levels when a box is made much smaller: there DALI repeats the box's
edge where Pillow and PyTorch leave the outside out.

A damaged JPEG ends a DALI pipeline. The batch is then decoded by torchvision, which names the
image, and the pipeline is replaced.

A pipeline is not thread-safe and outlives no error, so each call of `decode` takes one of its own
from a pool and puts it back: as many exist as calls ran at once. A lock around one pipeline would
let the loader's threads wait for each other; one pipeline tied to each thread would die with it, at
the end of every epoch.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from fastssd.data.decode.crop import crop
from fastssd.data.decode.decoder import DecodeError, Int64, output_of
from fastssd.data.decode.torchvision_decoder import TorchvisionDecoder
from fastssd.data.jpeg_header import read_frame
from fastssd.data.orientation import turn_batch
from fastssd.data.storage.image import JPEG, StoredImage, UInt8
from fastssd.errors import DataError

CPU, MIXED = "cpu", "mixed"

Taken = TypeVar("Taken")

_GPU_PIPELINES = 2  # one decodes while the pixels of the other are copied out
_HEAD_BYTES = 4096  # most headers end before
_END, _END_WITHIN = b"\xff\xd9", 64  # bytes
_AXES = [0, 1]  # rows, then columns


class DaliDecoder:
    """Decodes batches in DALI pipelines, one for each call that runs at a time.

    Args:
        device: ``cpu``; or ``mixed``: JPEG decode and resize on a GPU, whose pixels are copied
            back by `decode` and stay there with `decode_tensor`. Raw images are resized on the
            CPU in both.
        device_id: Which GPU.
        threads: Of each pipeline. One is right on the CPU, where the loader's threads each decode
            a batch.
    """

    name = "dali"

    def __init__(self, *, device: str = CPU, device_id: int = 0, threads: int = 1) -> None:
        if device not in (CPU, MIXED):
            raise ValueError(f"device {device!r}: choose {CPU} or {MIXED}")
        self.filter = f"triangular-antialias-{device}"
        self._device = device
        self._device_id = device_id if device == MIXED else None
        self.threads = threads
        self._idle: dict[_Graph, list[_Runner]] = {}
        self._lock = threading.Lock()
        self._gpu = threading.BoundedSemaphore(_GPU_PIPELINES)
        self._torchvision = TorchvisionDecoder()
        self._stream: torch.cuda.Stream | None = None  # of the copies that stay on the GPU

    def decode(
        self,
        images: Sequence[StoredImage],
        boxes: Int64,
        size: int,
        *,
        out: UInt8 | None = None,
        turns: NDArray[np.uint8] | None = None,
    ) -> UInt8:
        out = output_of(images, boxes, size, out, turns)
        images = list(images)
        jpegs = [i for i, image in enumerate(images) if image.mode == JPEG]
        damaged: dict[int, str] = {}
        try:
            self._decode(images, boxes, jpegs, out)
        except _RefusedError:
            damaged = self._decode_singly(images, boxes, jpegs, out)
        self._resize(images, boxes, [i for i in range(len(images)) if i not in set(jpegs)], out)
        if turns is not None:
            turn_batch(out, turns)
        if damaged:
            raise DecodeError.of(damaged)
        return out

    @property
    def makes_tensors(self) -> bool:
        """Whether `decode_tensor` leaves the pixels on a GPU."""
        return self._device == MIXED

    def decode_tensor(
        self, images: Sequence[StoredImage], boxes: Int64, size: int
    ) -> Tensor | None:
        """Decode as `decode` does, but leave the pixels where the pipelines made them.

        Returns:
            (V, B, S, S, 3) uint8, whole for whatever stream uses it; None for a batch that has to
            go through `decode`, as it holds raw or damaged images.
        """
        output_of(images, boxes, size, None, None)
        if not len(images) or not boxes.shape[1]:
            return None
        if any(image.mode != JPEG for image in images):
            return None
        try:
            return self._decoded(images, boxes, list(range(len(images))), size, self._tensor)
        except _RefusedError:
            return None

    def _tensor(self, outputs: Sequence[Any]) -> Tensor:
        """Return a copy of a pipeline's outputs, (V, B, S, S, 3), on their device."""
        # Not on the stream that trains: the copy, and this thread, would wait behind its steps.
        with self._lock:
            if self._stream is None and self.makes_tensors:
                self._stream = torch.cuda.Stream(self._device_id)  # type: ignore[no-untyped-call]
        # The device first: a stream that is left goes back to that of the thread's device before,
        # which for a new thread is GPU 0, where any use takes half a gigabyte.
        device = nullcontext() if self._stream is None else torch.cuda.device(self._stream.device)
        with device, torch.cuda.stream(self._stream):
            pixels = torch.stack([from_dlpack(output.as_tensor()) for output in outputs])
        if self._stream is not None:
            self._stream.synchronize()  # the pipeline's memory is its own again after this
        return pixels

    def _decode_singly(
        self, images: Sequence[StoredImage], boxes: Int64, rows: list[int], out: UInt8
    ) -> dict[int, str]:
        """Write the views of JPEG images one by one; return the reasons of those damaged.

        Raises:
            DataError: If DALI's pipelines run for none of several sound images.
        """
        damaged = {}
        failed: list[str] = []
        for i in rows:
            try:
                expected = self._torchvision.decode([images[i]], boxes[i : i + 1], out.shape[2])
            except DecodeError as error:
                damaged[i] = error.reason
                continue
            try:
                self._decode(images, boxes, [i], out)
            except _RefusedError as error:  # sound, but DALI cannot decode it
                out[:, i] = expected[:, 0]
                if error.__cause__ is not None and not isinstance(error.__cause__, ValueError):
                    failed.append(str(error))
        if 1 < len(failed) == len(rows) - len(damaged):
            # Its images are no reason for that, and so no batch will be faster.
            raise DataError(
                f"data.decoder=dali: DALI decodes none of {len(failed)} sound images on "
                f"{'a GPU' if self.makes_tensors else 'the CPU'} ({failed[0]}): set "
                "data.decoder=auto, or look whether DALI fits the driver"
            )
        return damaged

    def _decode(
        self, images: Sequence[StoredImage], boxes: Int64, rows: list[int], out: UInt8
    ) -> None:
        """Write the views of some JPEG images into `out`."""
        if rows and boxes.shape[1]:
            out[:, rows] = self._decoded(images, boxes, rows, out.shape[2], _arrays)

    def _decoded(
        self,
        images: Sequence[StoredImage],
        boxes: Int64,
        rows: list[int],
        size: int,
        take: Callable[[Sequence[Any]], Taken],
    ) -> Taken:
        """Return what `take` makes of the views of some JPEG images, at least one."""
        contents = [images[i].data for i in rows]
        if self.makes_tensors and not all(_ends(content) for content in contents):
            raise _RefusedError("an image without its end")  # which a GPU may fill up with grey
        sizes = np.array([_size(content) for content in contents], dtype=np.int64)
        corners = boxes[rows].copy()
        corners[:, :, 2:] += corners[:, :, :2]
        # The part of the image that holds all its boxes, and no less than its first two columns:
        # libjpeg-turbo upsamples the chroma of the first column alone in another way.
        limits = np.concatenate([sizes[:, ::-1], sizes[:, ::-1]], axis=1)[:, None]
        inside = np.clip(corners, [0, 0, 2, 1], limits - [1, 1, 0, 0])
        start, end = inside[:, :, 1::-1].min(axis=1), inside[:, :, :1:-1].max(axis=1)
        inputs: dict[str, Any] = {"jpeg": contents, "start": start, "shape": end - start}
        for view in range(boxes.shape[1]):
            inputs[f"start{view}"] = corners[:, view, 1::-1] - start
            inputs[f"shape{view}"] = boxes[rows, view, :1:-1]
        graph = _Graph(JPEG, boxes.shape[1], size)
        with self._gpu if self._device == MIXED else nullcontext():
            return self._run(graph, inputs, len(rows), take)

    def _resize(
        self, images: Sequence[StoredImage], boxes: Int64, rows: list[int], out: UInt8
    ) -> None:
        """Write the views of some raw images into `out`."""
        crops, places = [], []
        for i in rows:
            for view, box in enumerate(boxes[i]):
                cut = crop(images[i].data, box)
                if cut.shape == out.shape[2:]:
                    out[view, i] = cut
                else:
                    crops.append(np.ascontiguousarray(cut))
                    places.append((view, i))
        if crops:
            graph = _Graph("raw", 1, out.shape[2])
            pixels = self._run(graph, {"pixels": crops}, len(crops), _arrays)[0]
            out[tuple(np.array(places).T)] = pixels

    def _run(
        self,
        graph: "_Graph",
        inputs: dict[str, Any],
        count: int,
        take: Callable[[Sequence[Any]], Taken],
    ) -> Taken:
        """Run a pipeline of the pool, or a new one, on `count` samples.

        Its outputs are the pipeline's own: `take` makes something else of them.
        """
        with self._lock:
            idle = self._idle.setdefault(graph, [])
            runner = idle.pop() if idle else None
        try:
            if runner is None or runner.capacity < count:
                runner = self._build(graph, capacity=1 << (count - 1).bit_length())
            outputs = runner.run(inputs)
        except RuntimeError as error:
            raise _RefusedError(str(error).partition("\n")[0]) from error
        taken = take(outputs)
        with self._lock:
            idle.append(runner)
        return taken

    def _build(self, graph: "_Graph", *, capacity: int) -> "_Runner":
        on_gpu = self._device == MIXED and graph.kind == JPEG
        make: Any = Pipeline  # has no annotations
        pipeline = make(
            batch_size=capacity,
            num_threads=self.threads,
            device_id=self._device_id if on_gpu else None,
            prefetch_queue_depth=1,
            exec_async=False,
            exec_pipelined=False,
        )
        with pipeline:
            outputs = _jpeg_outputs(graph, self._device) if graph.kind == JPEG else _raw(graph)
            pipeline.set_outputs(*outputs)
        pipeline.build()
        return _Runner(pipeline, capacity)


@dataclass(frozen=True, slots=True)
class _Graph:
    """What a pipeline computes: the kind of its input, views, side of the output."""

    kind: str
    num_views: int
    size: int


class _RefusedError(Exception):
    """DALI cannot decode a batch as a whole; its cause is DALI's error, or that of a header."""


@dataclass(frozen=True, slots=True)
class _Runner:
    """A pipeline and the largest batch that it takes."""

    pipeline: Any
    capacity: int

    def run(self, inputs: dict[str, Any]) -> Sequence[Any]:
        for name, values in inputs.items():
            if isinstance(values, np.ndarray):
                values = values.astype(np.int32)
            self.pipeline.feed_input(name, values)
        outputs: Sequence[Any] = self.pipeline.run()  # waits for the GPU
        return outputs


def _arrays(outputs: Sequence[Any]) -> UInt8:
    """Return a copy of a pipeline's outputs, (V, B, S, S, 3), in the host's memory."""
    return np.stack([np.asarray(output.as_cpu().as_tensor()) for output in outputs])


def _jpeg_outputs(graph: _Graph, device: str) -> list[Any]:
    image = fn.decoders.image_slice(
        fn.external_source(name="jpeg", ndim=1, dtype=types.DALIDataType.UINT8),
        device=device,
        start=_numbers("start"),
        shape=_numbers("shape"),
        axes=_AXES,
        output_type=types.DALIImageType.RGB,
        adjust_orientation=False,
        jpeg_fancy_upsampling=True,  # the CPU's way, for the GPU
        # By default a chip's own JPEG engines take a part of each batch: pixels, which differ from
        # the kernels', would depend on what else is in the batch.
        hw_decoder_load=0.0,
    )
    return [
        _resized(
            fn.slice(
                image,
                start=_numbers(f"start{view}"),
                shape=_numbers(f"shape{view}"),
                axes=_AXES,
                out_of_bounds_policy="pad",
                fill_values=0,
            ),
            graph.size,
        )
        for view in range(graph.num_views)
    ]


def _raw(graph: _Graph) -> list[Any]:
    pixels = fn.external_source(name="pixels", ndim=3, dtype=types.DALIDataType.UINT8, layout="HWC")
    return [_resized(pixels, graph.size)]


def _resized(pixels: Any, size: int) -> Any:  # noqa: ANN401 - DALI's nodes have no public type
    return fn.resize(
        pixels,
        size=[size, size],
        interp_type=types.DALIInterpType.INTERP_TRIANGULAR,
        antialias=True,
    )


def _numbers(name: str) -> Any:  # noqa: ANN401
    return fn.external_source(name=name, ndim=1, dtype=types.DALIDataType.INT32)


def _ends(content: UInt8) -> bool:
    """Return whether a JPEG file's end marker is where it ends, or a few bytes before."""
    return _END in content[-_END_WITHIN:].tobytes()


def _size(content: UInt8) -> tuple[int, int]:
    """Return the height and width that a JPEG's header tells.

    Raises:
        _RefusedError: If it tells none, or of a kind that decoders treat differently.
    """
    try:
        try:
            frame = read_frame(content[:_HEAD_BYTES].tobytes())
        except ValueError:
            frame = read_frame(content.tobytes())
    except ValueError as error:
        raise _RefusedError from error
    if not frame.common or min(frame.height, frame.width) < 1:
        raise _RefusedError
    return frame.height, frame.width
