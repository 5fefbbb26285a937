"""DALI on the CPU: its file reader, `decoders.image_random_crop` and `resize`.

Settings: as many threads as cores, a prefetch queue of 3 (2 to 4, and twice the threads, differ by
less than the noise), no Python a sample, triangular antialiasing as `resize` has by default.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nvidia.dali import fn, pipeline_def, types

from peers.peer import RATIO, SCALE, SIDE, Int64, UInt8

_PREFETCH = 3


class DaliCpu:
    """Random resized crops by DALI.

    Args:
        files: A JPEG file for each sample.
        batch_size: Images a batch.
        threads: DALI's.
    """

    def __init__(self, files: Sequence[Path], *, batch_size: int, threads: int) -> None:
        self._files = files
        self._batch_size = batch_size
        self._threads = threads
        self._samples: Int64 | None = None
        self._pipeline: Any = None

    def batches(self, samples: Int64) -> Iterator[tuple[UInt8, Int64]]:
        if self._samples is None or not np.array_equal(samples, self._samples):
            self._pipeline, self._samples = self._build(samples), samples
        for _ in range(len(samples) // self._batch_size):
            pixels, labels = self._pipeline.run()
            yield np.asarray(pixels.as_tensor()), np.asarray(labels.as_tensor())[:, 0]

    def close(self) -> None:
        """Free the pipeline and its threads."""
        self._pipeline = None

    def _build(self, samples: Int64) -> Any:  # noqa: ANN401 - DALI's pipelines have no public type
        files = [str(self._files[sample]) for sample in samples]

        @pipeline_def(
            batch_size=self._batch_size,
            num_threads=self._threads,
            device_id=None,
            prefetch_queue_depth=_PREFETCH,
        )
        def crops() -> tuple[Any, Any]:
            content, label = fn.readers.file(
                files=files, labels=samples.tolist(), random_shuffle=True, seed=0
            )
            crop = fn.decoders.image_random_crop(
                content,
                device="cpu",
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
