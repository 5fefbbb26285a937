"""Reading ahead: files leave the system's cache and come back, and warm ones cost little."""

import os
from pathlib import Path

import numpy as np
import pytest

from fastssd.data.storage.advise import ReadAhead
from fastssd.data.storage.files import map_bytes
from fastssd.data.storage.image import StoredBatch
from fastssd.data.storage.storage import address_of

SMAPS = Path("/proc/self/smaps")
PART, NUM_PARTS = 50_000, 40


@pytest.fixture
def cold(tmp_path):
    """A file that is on the disk alone, and what locates its parts."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(np.random.default_rng(0).bytes(PART * NUM_PARTS))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    content = map_bytes(path)

    def locate(parts=range(NUM_PARTS)):
        starts = np.array(parts) * PART
        return StoredBatch(
            addresses=(starts + address_of(content)).astype(np.uint64),
            num_bytes=np.full(len(starts), PART),
            raw=np.zeros(len(starts), dtype=bool),
            sizes=np.zeros((len(starts), 2), dtype=np.int32),
            owner=content,
        )

    return locate


def read_ahead(locate, *, may_look=True):
    return ReadAhead([locate().owner], num_images=NUM_PARTS, may_look=may_look)


def reads_alone(address):
    """Whether Linux has been told that this memory is read in no order: `rr` in its flags."""
    within = False
    with SMAPS.open() as file:
        for line in file:
            first, _, rest = line.partition("-")
            if first and all(digit in "0123456789abcdef" for digit in first):
                within = int(first, 16) <= address < int(rest.split()[0], 16)
            elif within and line.startswith("VmFlags:"):
                return "rr" in line.split()
    raise AssertionError("not mapped")


@pytest.mark.kernels
@pytest.mark.skipif(not SMAPS.exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("large", "memory", "expected"),
    [
        (PART, 1 << 40, True),  # images are large
        (PART + 1, 1 << 40, False),  # small images in a file that fits
        (PART + 1, PART * NUM_PARTS, True),  # in one that does not
    ],
)
def test_neighbours_are_not_read_where_they_only_take_room(
    cold, monkeypatch, large, memory, expected
):
    monkeypatch.setattr("fastssd.data.storage.advise._LARGE", large)
    monkeypatch.setattr("fastssd.data.storage.advise.usable_memory", lambda: memory)
    batch = cold()
    ahead = read_ahead(cold)
    assert not reads_alone(int(batch.addresses[-1]))  # another reader may go through it in order

    ahead.announce(cold)

    assert reads_alone(int(batch.addresses[0])) == expected
    assert reads_alone(int(batch.addresses[-1])) == expected


@pytest.mark.kernels
def test_what_is_on_the_disk_alone_is_asked_for_until_it_is_in_memory(cold):
    ahead = read_ahead(cold)
    ahead.announce(cold)
    if ahead.num_absent == 0:
        pytest.skip("this file system keeps its files in memory")
    assert ahead.num_absent > NUM_PARTS // 2
    assert ahead.num_images == NUM_PARTS

    for _ in range(100_000):  # the disk works on
        before = ahead.num_absent
        ahead.announce(cold)
        if ahead.num_absent == before:
            break
    else:
        pytest.fail("never read")


@pytest.mark.kernels
def test_files_in_memory_are_looked_at_now_and_then_only(cold):
    assert cold().owner.any()  # reads it
    ahead, located = read_ahead(cold), []

    def locate():
        located.append(True)
        return cold()

    for _ in range(400):
        ahead.announce(locate)

    assert ahead.num_absent == 0
    assert 20 < len(located) < 60


@pytest.mark.kernels
def test_where_the_system_does_not_tell_everything_is_asked_for(cold):
    assert cold().owner.any()
    ahead = read_ahead(cold, may_look=False)

    for _ in range(50):
        ahead.announce(cold)

    assert ahead.num_absent == ahead.num_images == 50 * NUM_PARTS


def test_without_kernels_nothing_is_done(monkeypatch, cold):
    monkeypatch.setattr("fastssd.native.library.library", lambda: None)
    ahead = read_ahead(cold)

    ahead.announce(lambda: pytest.fail("was located"))

    assert ahead.num_images == 0
