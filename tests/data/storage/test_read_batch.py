"""Batches of stored images: what `read` gives one by one, whatever the format."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastssd.data.storage.formats import STORAGES
from fastssd.data.storage.image import JPEG, RAW, StoredImage
from fastssd.data.storage.memory import EqualStorage, PackedStorage, open_memory
from fastssd.data.storage.webdataset import WebDatasetStorage, WebDatasetWriter
from fastssd.errors import DataError

NUM_IMAGES = 7


def images_of(kind, picture, encoded):
    """Return images with their heights and widths."""
    found = []
    for i in range(NUM_IMAGES):
        height, width = (9, 11) if kind == "equal" else (9 + i, 20 - 2 * i)
        pixels = picture(height, width, seed=i)
        image = StoredImage(RAW, pixels)
        if kind == "mixed" and i % 2:
            image = StoredImage(JPEG, np.frombuffer(bytearray(encoded(pixels)), np.uint8))
        found.append((image, height, width))
    return found


def written(writer, images):
    for image, height, width in images:
        writer.append(image, height=height, width=width, label=0)
    writer.finish()


@pytest.fixture(
    params=[
        ("ffcv", "mixed"),
        ("webdataset", "mixed"),
        ("memory", "packed"),
        ("memory", "equal"),
    ],
    ids="-".join,
)
def storage(request, tmp_path, picture, encoded):
    format, kind = request.param
    images = images_of(kind, picture, encoded)
    written(STORAGES[format].create(tmp_path, "train", NUM_IMAGES), images)
    return STORAGES[format].open(tmp_path, "train")


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(samples=st.lists(st.integers(0, NUM_IMAGES - 1), max_size=12))
def test_a_batch_holds_what_reading_one_by_one_gives(storage, samples):
    wanted = np.array(samples, dtype=np.int64)

    for batch in (storage.read_batch(wanted), storage.locate(wanted)):
        assert len(batch) == len(samples)
        for sample, image in zip(samples, batch, strict=True):
            alone = storage.read(sample)
            assert image.mode == alone.mode
            assert np.array_equal(image.data, alone.data)
        assert batch.sizes.tolist() == storage.sizes[wanted].tolist()


def test_the_images_outlive_the_storage(storage):
    expected = [storage.read(sample).data.copy() for sample in range(NUM_IMAGES)]
    batch = storage.read_batch(np.arange(NUM_IMAGES))
    del storage

    for image, pixels in zip(batch, expected, strict=True):
        assert np.array_equal(image.data, pixels)


@pytest.mark.parametrize("sample", [-1, NUM_IMAGES, 10**9])
def test_a_sample_that_is_not_there_is_named(storage, sample):
    for read in (storage.read_batch, storage.locate):
        with pytest.raises(DataError, match=f"no sample {sample}: it holds {NUM_IMAGES}"):
            read(np.array([0, sample, 1]))


def test_the_two_layouts_of_memory_were_tested(tmp_path, picture, encoded):
    for kind, expected in (("equal", EqualStorage), ("packed", PackedStorage)):
        folder = tmp_path / kind
        folder.mkdir()
        written(
            STORAGES["memory"].create(folder, "train", NUM_IMAGES),
            images_of(kind, picture, encoded),
        )
        assert isinstance(open_memory(folder, "train"), expected)


def test_images_of_several_archives_are_found(tmp_path, picture, encoded):
    images = images_of("mixed", picture, encoded)
    written(WebDatasetWriter(tmp_path, "train", shard_bytes=2000), images)
    assert len(list(tmp_path.glob("*.tar"))) > 2
    order = np.array([6, 0, 3, 3, 5])

    batch = WebDatasetStorage(tmp_path, "train").read_batch(order)

    for sample, image in zip(order, batch, strict=True):
        assert np.array_equal(image.data, images[sample][0].data)


def test_an_archive_of_another_conversion_is_found_at_its_first_use(tmp_path, picture, encoded):
    written(WebDatasetWriter(tmp_path, "train"), images_of("mixed", picture, encoded))
    [shard] = tmp_path.glob("*.tar")
    storage = WebDatasetStorage(tmp_path, "train")
    content = shard.read_bytes()
    assert content.count(b"000000003.jpg") == 1
    with shard.open("r+b") as file:
        file.seek(content.index(b"000000003.jpg"))
        file.write(b"000000004")

    assert len(storage.read_batch(np.array([0, 1, 2]))) == 3
    for _ in range(2):
        with pytest.raises(DataError, match="sample 3 is not where"):
            storage.read_batch(np.array([0, 3]))
