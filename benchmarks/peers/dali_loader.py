"""DALI on the CPU or a GPU: its file reader, `decoders.image_random_crop` and `resize`.

Settings: as many threads as cores, a prefetch queue of 3 (2 to 4, and twice the threads, differ by
less than the noise), no Python a sample, triangular antialiasing as `resize` has by default.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types

from peers.peer import RATIO, SCALE, SIDE, Int64, Pixels

_PREFETCH = 3


CPU, MIXED = "cpu", "mixed"


class DaliLoader:
    """Random resized crops by DALI.

    Args:
        files: A JPEG file for each sample.
        batch_size: Images a batch.
        threads: DALI's.
        device: Where its decoder works: ``cpu``, or ``mixed`` for the current GPU, where the pixels
            are resized and stay.
    """

    def __init__(
        self, files: Sequence[Path], *, batch_size: int, threads: int, device: str = CPU
    ) -> None:
        self._files = files
        self._device = device
        self._batch_size = batch_size
        self._threads = threads
        self._samples: Int64 | None = None
        self._pipeline: Any = None

    def batches(self, samples: Int64) -> Iterator[tuple[Pixels, Int64]]:
        if self._samples is None or not np.array_equal(samples, self._samples):
            self._pipeline, self._samples = self._build(samples), samples
        for _ in range(len(samples) // self._batch_size):
            pixels, labels = self._pipeline.run()
            made = pixels.as_tensor()
            on_gpu = self._device == MIXED
            # What lies there is the pipeline's own until its next run, as on the CPU.
            shown = torch.from_dlpack(made) if on_gpu else np.asarray(made)
            yield shown, np.asarray(labels.as_tensor())[:, 0]

    def close(self) -> None:
        """Free the pipeline and its threads."""
        self._pipeline = None

    def _build(self, samples: Int64) -> Any:  # noqa: ANN401 - DALI's pipelines have no public type
        files = [str(self._files[sample]) for sample in samples]

        @pipeline_def(
            batch_size=self._batch_size,
            num_threads=self._threads,
            device_id=torch.cuda.current_device() if self._device == MIXED else None,
            prefetch_queue_depth=_PREFETCH,
        )
        def crops() -> tuple[Any, Any]:
            content, label = fn.readers.file(
                files=files, labels=samples.tolist(), random_shuffle=True, seed=0
            )
            crop = fn.decoders.image_random_crop(
                content,
                device=self._device,
                output_type=types.DALIImageType.RGB,
                random_aspect_ratio=list(RATIO),
                random_area=list(SCALE),
                num_attempts=10,
                seed=0,
            )
            return fn.resize(crop, size=[SIDE, SIDE]), label

        pipeline: Any = crops()
        pipeline.build()
        return pipeline
