import gc

import numpy as np
import pytest

from fastssd.data.storage.image import JPEG, RAW, StoredBatch, StoredImage

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
CONTENT = np.arange(11, dtype=np.uint8)
IMAGES = [StoredImage(JPEG, CONTENT), StoredImage(RAW, PIXELS), StoredImage(JPEG, CONTENT[:0])]


def test_a_batch_gives_back_the_images_that_it_was_made_of():
    batch = StoredBatch.of(IMAGES)

    assert len(batch) == 3
    assert [image.mode for image in batch] == [JPEG, RAW, JPEG]
    assert all(
        np.array_equal(seen.data, image.data) and seen.data.shape == image.data.shape
        for seen, image in zip(batch, IMAGES, strict=True)
    )
    assert batch.num_bytes.tolist() == [11, 105, 0]
    assert batch.sizes.tolist() == [[0, 0], [7, 5], [0, 0]]


def test_images_are_not_copied_unless_they_have_gaps():
    batch = StoredBatch.of([IMAGES[1], StoredImage(RAW, PIXELS[:, 1:3])])
    assert np.shares_memory(batch[0].data, PIXELS)
    assert np.array_equal(batch[1].data, PIXELS[:, 1:3])


def test_a_part_of_a_batch_is_a_batch():
    part = StoredBatch.of(IMAGES)[1:]
    assert isinstance(part, StoredBatch)
    assert [image.mode for image in part] == [RAW, JPEG]
    assert np.array_equal(part[-2].data, PIXELS)


def test_a_batch_is_taken_as_it_is():
    batch = StoredBatch.of(IMAGES)
    assert StoredBatch.of(batch) is batch
    assert len(StoredBatch.of([])) == 0


def test_there_is_no_image_behind_the_last():
    batch = StoredBatch.of(IMAGES)
    with pytest.raises(IndexError):
        batch[3]


def test_an_images_memory_outlives_its_batch():
    memory = np.arange(100, 130, dtype=np.uint8)
    image = StoredBatch(
        addresses=np.array([memory.ctypes.data + 10], np.uint64),
        num_bytes=np.array([5]),
        raw=np.array([False]),
        sizes=np.zeros((1, 2), np.int32),
        owner=memory,
    )[0]
    del memory
    gc.collect()
    assert image.data.tolist() == [110, 111, 112, 113, 114]


def test_arrays_that_do_not_belong_together_are_refused():
    arrays = {
        "addresses": np.zeros(2, np.uint64),
        "num_bytes": np.array([30, 31]),
        "raw": np.array([False, True]),
        "sizes": np.array([[0, 0], [2, 5]], np.int32),
    }
    with pytest.raises(ValueError, match="whose size is not that of its bytes"):
        StoredBatch(**arrays, owner=None)
    with pytest.raises(ValueError, match="of the shapes"):
        StoredBatch(**arrays | {"raw": np.array([False])}, owner=None)
