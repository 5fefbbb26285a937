"""Reading and encoding the rows of a source on threads, in order, with bounded memory.

Threads and not processes: encoding and hashing let the other threads run, and what is read need
not be copied from one process to another. A task's images are encoded in one call, so that small
ones do not each pay for it. `docs/datasets.md` has the measurement.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastssd.core.reading import reason_of
from fastssd.data.encode import Encoded, UnequalPixelsError
from fastssd.data.sources.source import Content, SourceSplit
from fastssd.errors import FastssdError

Int64 = NDArray[np.int64]
Encoder = Callable[[Sequence[Content], Sequence[int]], Sequence[Encoded | str]]
"""From contents and their positions among the rows to what is stored of each, or the reason."""

AHEAD = 2
"""Tasks a thread that are read before the first of them is taken."""
MAX_IMAGES = 32
"""Images a task at most: enough to hide the cost of handing it over."""
MAX_BYTES = 4 << 20
"""Bytes that the images of a task have together, if they are like those before and not one."""


@dataclass(frozen=True, slots=True)
class Read:
    """One row of the source: what is stored, and the digest of what was read; or the reason.

    Attributes:
        row: The row.
        encoded: What is stored, or None.
        digest: 32 bytes, SHA-256 of the image's name, label and content.
        reason: Why there is nothing to store; empty where there is.
    """

    row: int
    encoded: Encoded | None = None
    digest: bytes = b""
    reason: str = ""


def read_all(
    split: SourceSplit, rows: Int64, encoder: Encoder, *, threads: int
) -> Generator[Read, None, None]:
    """Yield every row read and encoded, in the order of `rows`.

    No more than ``AHEAD * threads`` tasks are held, each of at most `MAX_BYTES` or of one image:
    images count as large as those before them, so that tasks of small images hold more.

    Args:
        split: Where the rows are.
        rows: (N,) int64.
        encoder: What becomes of the contents of a task.
        threads: That read and encode.

    Raises:
        FastssdError: If the encoder changed an image that it must not change; names the image.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="fastssd-convert")
    pending: deque[Future[list[Read]]] = deque()
    next_row, num_images = 0, 1
    try:
        while pending or next_row < len(rows):
            while len(pending) < AHEAD * threads and next_row < len(rows):
                task = rows[next_row : next_row + num_images].tolist()
                pending.append(pool.submit(_read, split, task, next_row, encoder))
                next_row += num_images
            reads = pending.popleft().result()
            num_images = _images_a_task(reads)
            yield from reads
    except BaseException:
        # Not for a thread that the system or a decoder holds: a signal must end the conversion.
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _images_a_task(reads: list[Read]) -> int:
    largest = max(r.encoded.image.data.nbytes if r.encoded else 0 for r in reads)
    return max(1, min(MAX_IMAGES, MAX_BYTES // max(largest, 1)))


def _read(split: SourceSplit, rows: list[int], first: int, encoder: Encoder) -> list[Read]:
    reads: list[Read] = []
    contents: list[Content] = []
    read_at: list[int] = []  # among the rows
    for at, row in enumerate(rows):
        try:
            contents.append(split.read(row))
        except (OSError, ValueError, MemoryError) as error:
            reads.append(Read(row, reason=reason_of(error)))
            continue
        read_at.append(at)
        reads.append(Read(row))
    try:
        encoded = encoder(contents, [first + at for at in read_at])
    except UnequalPixelsError as error:
        name = split.names[rows[read_at[error.index]]]
        raise FastssdError(
            f"{name}: {error}; that is a fault of fastssd's or of libjpeg's, please report it with "
            "this file, and convert with --jpeg keep"
        ) from error
    for at, content, result in zip(read_at, contents, encoded, strict=True):
        row = rows[at]
        if isinstance(result, str):
            reads[at] = Read(row, reason=result)
        else:
            reads[at] = Read(row, result, _digest(split, row, content))
    return reads


def _digest(split: SourceSplit, row: int, content: Content) -> bytes:
    # The name and label are part of what was read: the same files in other folders are other data.
    head = json.dumps([split.names[row], int(split.labels[row])]).encode()
    digest = hashlib.sha256(head + b"\0")
    digest.update(content if isinstance(content, bytes) else content.tobytes())
    return digest.digest()
