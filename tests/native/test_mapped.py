"""Mapped files that are cut short while they are read: an error that names them, and no SIGBUS."""

import gc
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from fastssd.data.storage.files import map_bytes, map_pixels
from fastssd.errors import DataError
from fastssd.native import mapped
from fastssd.tables.files import HEADER_BYTES, Column, TableFiles

pytestmark = pytest.mark.kernels

PAGE = os.sysconf("SC_PAGE_SIZE")
ANOTHER = """
import mmap, os, sys
import numpy as np
from fastssd.native import mapped
path = sys.argv[1]
with open(path, "rb") as file:
    ours, other = (mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) for _ in range(2))
mapped.guard(ours, np.frombuffer(ours, np.uint8).__array_interface__["data"][0], path)
os.truncate(path, 0)
bytes(ours)
print("read", flush=True)
bytes(other)
"""


@pytest.fixture(autouse=True)
def all_is_forgotten_with_its_mapping():
    yield
    gc.collect()
    mapped.check()


def test_what_was_cut_off_is_zero_and_the_file_is_named(tmp_path):
    path, other = tmp_path / "train.beton", tmp_path / "val.beton"
    for file in (other, path):
        file.write_bytes(b"\x01" * (3 * PAGE + 7))
    content, whole = map_bytes(path), map_bytes(other)
    assert int(content.sum()) == 3 * PAGE + 7
    mapped.check()

    os.truncate(path, PAGE)

    assert int(content.sum(dtype=np.int64)) == PAGE
    assert int(whole.sum(dtype=np.int64)) == 3 * PAGE + 7
    for _ in range(2):  # and stays so
        with pytest.raises(DataError, match=r"train\.beton: it was cut short"):
            mapped.check()


def test_pixels_and_tables_are_looked_after_too(tmp_path):
    path = tmp_path / "train.images.npy"
    np.save(path, np.ones((40, 8, 16, 3), np.uint8))
    pixels = map_pixels(path)
    files = TableFiles(tmp_path, [Column("logits", "float32", 4)], num_rows=1000, block_rows=1000)
    files.create()
    files.write(0, {"logits": np.ones((1000, 4), np.float32)})
    column = files.map(files.columns[0])
    assert column.read(np.array([0, 999])).sum() == 8

    os.truncate(path, 128)
    assert pixels[-1].sum() == 0
    with pytest.raises(DataError, match=r"train\.images\.npy"):
        mapped.check()
    del pixels
    gc.collect()
    os.truncate(tmp_path / "logits.npy", HEADER_BYTES)
    with pytest.raises(DataError, match=r"logits\.npy"):
        column.read(np.array([999]))


def test_a_mapping_that_is_not_ours_ends_the_process_as_it_always_did(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 2 * PAGE)
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER, path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, "read\n"), done.stderr
