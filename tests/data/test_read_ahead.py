import threading

import numpy as np
import pytest

from fastssd.data import read_ahead
from fastssd.data.encode import Encoded
from fastssd.data.read_ahead import read_all
from fastssd.data.storage.image import StoredImage


class Split:
    """Rows whose images are of given sizes, and how many were being read or held at the most."""

    def __init__(self, num_bytes):
        self.num_bytes = num_bytes
        self.labels = np.arange(len(num_bytes))
        self.names = [str(row) for row in range(len(num_bytes))]
        self.lock = threading.Lock()
        self.started, self.taken, self.most = 0, 0, 0

    def read(self, row):
        with self.lock:
            self.started += 1
            self.most = max(self.most, self.started - self.taken)
        if self.num_bytes[row] < 0:
            raise ValueError("bad")
        return bytes(self.num_bytes[row])


def encode(contents, positions):
    images = [StoredImage("jpeg", np.frombuffer(content, np.uint8)) for content in contents]
    return [Encoded(image, 1, 1) for image in images]


def consume(split, threads):
    rows = []
    for read in read_all(split, np.arange(len(split.labels)), encode, threads=threads):
        with split.lock:
            split.taken += 1
        rows.append(read)
    return rows


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_come_in_order_with_the_reason_of_those_that_fail(threads):
    sizes = [3] * 200
    sizes[7] = sizes[150] = -1

    reads = consume(Split(sizes), threads)

    assert [read.row for read in reads] == list(range(200))
    assert [read.row for read in reads if read.reason == "bad"] == [7, 150]
    assert all((read.encoded is None) == bool(read.reason) for read in reads)


@pytest.mark.parametrize(
    ("num_bytes", "images_a_task"),
    [(10, read_ahead.MAX_IMAGES), (read_ahead.MAX_BYTES // 4, 4), (2 * read_ahead.MAX_BYTES, 1)],
)
def test_large_images_are_held_in_smaller_numbers(num_bytes, images_a_task):
    split = Split([num_bytes] * 400 if num_bytes < 100 else [num_bytes] * 40)

    consume(split, threads=2)

    # What is held: the tasks ahead, and the one whose images are being taken.
    assert split.most <= (read_ahead.AHEAD * 2 + 1) * images_a_task


def test_no_rows_are_nothing():
    assert consume(Split([]), threads=2) == []
