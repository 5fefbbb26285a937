"""FFCV's own Loader in the plan's order, for who wants to compare with it or is used to it.

It follows the plan's samples but draws its own crops, from generators that nobody seeds: the same
draw has other pixels at every visit, so nothing may be tabulated from them. Flip, colour and turn
remain fastssd's own, done on the device. Crops are resized by OpenCV's area interpolation.

FFCV ignores what its JPEG decoder reports and shows an image that it cannot decode as whatever its
buffer held; here the header and the end of every JPEG are looked at, so that truncated and foreign
files are named. Its thread ends silently at an error; here the error is raised where its batch is
awaited.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from queue import Empty, Full
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from fastssd.data.dataset import Dataset, Split
from fastssd.data.draws import Draws, Int64
from fastssd.data.images import LABELS, PARAMETER, PIXELS, ViewParameters
from fastssd.data.jpeg_header import read_frame
from fastssd.data.loader import HostBatch
from fastssd.data.orientation import turn_batch
from fastssd.data.storage.image import JPEG, StoredImage, UInt8
from fastssd.errors import ConfigError, DataError

STORAGE_FORMAT = "ffcv"
NOTICE = (
    "decoder ffcv: FFCV's own Loader draws its own unseeded crops; a run cannot be repeated or "
    "resumed bit for bit, and no tables are made"
)
"""What a run says at its start."""

_TAIL_BYTES = 4096
_END_OF_IMAGE = b"\xff\xd9"  # stands nowhere else behind the header, whatever the pixels


@runtime_checkable
class RandomResized(Protocol):
    """A crop of random area and shape, resized: FFCV's RandomResizedCropRGBImageDecoder."""

    @property
    def scale(self) -> tuple[float, float]: ...

    @property
    def ratio(self) -> tuple[float, float]: ...


@runtime_checkable
class Padded(Protocol):
    """A crop of the image's own size after padding with zeros: FFCV's RandomTranslate."""

    @property
    def padding(self) -> int: ...


class FfcvImages:
    """A split's images through one FFCV Loader, which is compiled once, at the first batch.

    Args:
        dataset: Of format `ffcv`.
        split: Of the dataset.
        augmentation: Gives the size and all parameters but the boxes.
        crops: Of each view: V values that are `RandomResized` or `Padded`.
        threads: Of FFCV, all at work on one batch.
        pin_memory: Page-lock the arrays, so that they are copied to a GPU without waiting.

    Raises:
        ConfigError: If the dataset has another format, or FFCV has no such crop.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        augmentation: ViewParameters,
        crops: Sequence[object],
        *,
        threads: int,
        pin_memory: bool = False,
    ) -> None:
        if dataset.format != STORAGE_FORMAT:
            raise ConfigError(
                f"data.decoder=ffcv reads .beton files, but {dataset.path} has the format "
                f"{dataset.format}: convert it with --format ffcv, or choose another decoder"
            )
        _check_crops(crops, split, augmentation.size)
        self._path = dataset.path / f"{split.name}.beton"
        self._split = split
        self._augmentation = augmentation
        self._crops = crops
        self._threads = threads
        self._pin_memory = pin_memory
        self._loader: Any = None

    def batches(self, shares: Iterable[Draws]) -> Generator[tuple[Draws, HostBatch], None, None]:
        """Yield each batch's draws with its pixels, labels and parameters, in order.

        The batch is that of `image_fetch`, but for its crops. When the iteration is closed or
        abandoned, FFCV's thread ends.

        Args:
            shares: The draws of each batch, all of one length; taken as needed, in FFCV's thread.

        Yields:
            (draws, batch) pairs.

        Raises:
            DataError: If an image is damaged at its header or end, or FFCV's labels are others
                than the dataset's; names the file and the sample.
            RuntimeError: If FFCV fails.
        """
        shares = iter(shares)
        first = next(shares, None)
        if first is None:
            return
        compute_threads = torch.get_num_threads()
        # Compiling takes seconds, so the epochs share a loader: only the order is new.
        if self._loader is None or self._loader.batch_size != len(first):
            self._loader = _loader(
                self._path, len(first), self._crops, self._augmentation.size, self._threads
            )
        iterator = _surfacing_iterator(self._loader, chain([first], shares))
        try:
            for number in count():
                values = next(iterator, None)
                # Importing FFCV sets PyTorch's threads to 1, its own thread sets them to its own.
                torch.set_num_threads(compute_threads)
                if iterator.error is not None and values is None:
                    raise RuntimeError(
                        f"FFCV's Loader stopped at batch {number}: {iterator.error!r}"
                    ) from iterator.error
                if values is None:
                    return
                draws = iterator.drawn.popleft()
                yield draws, self._batch(draws, values)
        finally:
            iterator.end()

    def _batch(self, draws: Draws, values: tuple[UInt8, ...]) -> HostBatch:
        labels, *views = values
        expected = self._split.labels[draws.samples]
        different = np.flatnonzero(labels[:, 0] != expected)
        if len(different):
            sample = int(draws.samples[different[0]])
            raise DataError(
                f"{self._path}: sample {sample} has another label than {self._split.name}"
                ".labels.npy says; convert the dataset again"
            )
        for sample in draws.samples:
            reason = _damage(self._split.storage.read(int(sample)))
            if reason:
                raise DataError(
                    f"{self._split.describe(int(sample))} (sample {sample} of "
                    f"{self._split.name}): {reason}; convert the dataset again, with --on-error "
                    "skip to leave such images out"
                )
        # A copy: FFCV fills its buffers anew some batches later.
        pixels = np.stack(views)
        if self._split.orientations is not None:
            turn_batch(pixels, self._split.orientations[draws.samples])
        batch = {PIXELS: torch.from_numpy(pixels), LABELS: torch.from_numpy(expected)}
        parameters = self._augmentation.parameters(draws.samples, draws.views)
        batch |= {PARAMETER + name: torch.from_numpy(value) for name, value in parameters.items()}
        if self._pin_memory:
            batch = {name: value.pin_memory() for name, value in batch.items()}
        return batch


def _check_crops(crops: Sequence[object], split: Split, size: int) -> None:
    for crop in crops:
        if isinstance(crop, RandomResized):
            continue
        if not isinstance(crop, Padded):
            raise ConfigError(
                f"data.decoder=ffcv: FFCV's Loader has no crop like {crop}; choose recipes with "
                "random resized or padded crops, or another decoder"
            )
        if not (split.sizes == size).all():
            raise ConfigError(
                f"data.decoder=ffcv: a padded crop needs stored images of {size} x {size} pixels; "
                "choose a recipe with random resized crops"
            )


def _loader(path: Path, batch_size: int, crops: Sequence[object], size: int, threads: int) -> Any:  # noqa: ANN401 - FFCV has no types
    from ffcv.fields.decoders import (
        IntDecoder,
        RandomResizedCropRGBImageDecoder,
        SimpleRGBImageDecoder,
    )
    from ffcv.loader import Loader
    from ffcv.pipeline import PipelineSpec
    from ffcv.transforms import RandomTranslate

    pipelines: dict[str, Any] = {"image": None, "label": [IntDecoder()]}
    for view, crop in enumerate(crops):
        if isinstance(crop, RandomResized):
            decoder = RandomResizedCropRGBImageDecoder((size, size), crop.scale, crop.ratio)
            spec = PipelineSpec("image", decoder=decoder)
        else:
            assert isinstance(crop, Padded)
            spec = PipelineSpec(
                "image",
                decoder=SimpleRGBImageDecoder(),
                transforms=[RandomTranslate(padding=crop.padding)],
            )
        pipelines[f"view{view}"] = spec
    return Loader(
        str(path),
        batch_size=batch_size,
        num_workers=threads,
        os_cache=True,
        pipelines=pipelines,
        seed=0,  # of an order that it does not make; without it FFCV draws from NumPy's generator
    )


def _surfacing_iterator(loader: Any, shares: Iterator[Draws]) -> Any:  # noqa: ANN401
    """Return FFCV's iterator, over batches of draws, whose thread keeps its error.

    `next` gives (labels, view 0, view 1, ...) and ends early where `error` is set; `drawn` holds
    the draws of the batches made so far; `end` ends the thread.
    """
    from ffcv.loader.epoch_iterator import EpochIterator

    class Surfacing(EpochIterator):  # type: ignore[misc] # FFCV has no types
        def __init__(self) -> None:
            self.error: BaseException | None = None
            self.drawn: deque[Draws] = deque()
            super().__init__(loader, np.empty(0, np.int64))
            self.iter_ixes = self._rows()
            super().start()

        def start(self) -> None:
            """Do nothing: FFCV starts the thread before the order can be set."""

        def _rows(self) -> Iterator[Int64]:
            for draws in shares:
                if self.terminate_event.is_set():  # FFCV asks only while its queue is full
                    return
                if len(draws) != loader.batch_size:
                    raise ValueError(
                        f"batches of different sizes: {loader.batch_size}, {len(draws)}"
                    )
                self.drawn.append(draws)
                yield draws.samples

        def run(self) -> None:
            try:
                super().run()
            except BaseException as error:
                self.error = error
                while not self.terminate_event.is_set():
                    with suppress(Full):
                        self.output_queue.put(None, timeout=0.5)
                        return

        def end(self) -> None:
            self.close()
            while self.is_alive():  # it may wait for room in the queue
                with suppress(Empty):
                    self.output_queue.get_nowait()
                self.join(timeout=0.05)

    return Surfacing()


def _damage(image: StoredImage) -> str:
    """Return what is visibly wrong with a stored image, without decoding it; or nothing."""
    if image.mode != JPEG:
        return ""
    try:
        frame = read_frame(image.data[:_TAIL_BYTES].tobytes())
    except ValueError:
        try:
            frame = read_frame(image.data.tobytes())
        except ValueError as error:
            return str(error)
    if not frame.common:
        return "it is a JPEG of a kind that FFCV does not decode"
    if _END_OF_IMAGE not in image.data[-_TAIL_BYTES:].tobytes():
        return "it ends within its pixels"
    return ""
