import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastssd.data.storage.image import StoredImage
from fastssd.data.storage.memory import EqualStorage, MemoryWriter, PackedStorage, open_memory
from fastssd.errors import DataError

EQUAL = [(4, 6)] * 3
MIXED = [(4, 6), (7, 2), (4, 6)]


def write(folder, sizes):
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (h, w, 3)).astype(np.uint8) for h, w in sizes]
    writer = MemoryWriter(folder, "train", len(images))
    for image in images:
        height, width, _ = image.shape
        writer.append(StoredImage("raw", image), height=height, width=width, label=0)
    writer.finish()
    return images


@pytest.mark.parametrize(("sizes", "kind"), [(EQUAL, EqualStorage), (MIXED, PackedStorage)])
def test_the_images_come_back_whatever_their_sizes(tmp_path, sizes, kind):
    images = write(tmp_path, sizes)

    storage = open_memory(tmp_path, "train")

    assert isinstance(storage, kind)
    assert len(storage) == 3
    assert storage.sizes.tolist() == [list(size) for size in sizes]
    assert storage.sizes.dtype == np.int32
    for sample, image in enumerate(images):
        stored = storage.read(sample)
        assert stored.mode == "raw"
        assert np.array_equal(stored.data, image)


def test_equal_images_are_an_ordinary_npy_file(tmp_path):
    images = write(tmp_path, EQUAL)
    assert np.array_equal(np.load(tmp_path / "train.images.npy"), np.stack(images))


@given(shape=st.tuples(*[st.integers(1, 10**n) for n in (8, 5, 5)]))
def test_the_reserved_gap_fits_the_header_of_any_split(shape):
    from fastssd.data.storage.memory import _npy_header

    assert len(_npy_header((*shape, 3))) == 128


def test_writing_to_what_was_read_leaves_the_file_alone(tmp_path):
    for sizes in (EQUAL, MIXED):
        images = write(tmp_path, sizes)
        open_memory(tmp_path, "train").read(0).data[:] = 0
        assert np.array_equal(open_memory(tmp_path, "train").read(0).data, images[0])
        (tmp_path / "train.images.npy").unlink(missing_ok=True)


@pytest.mark.parametrize("sizes", [EQUAL, MIXED])
def test_a_sample_that_is_not_there_is_an_error_that_names_it(tmp_path, sizes):
    write(tmp_path, sizes)
    for sample in (3, -1):
        with pytest.raises(DataError, match=f"no sample {sample}"):
            open_memory(tmp_path, "train").read(sample)


def test_a_jpeg_is_not_stored(tmp_path):
    writer = MemoryWriter(tmp_path, "train", 1)
    with pytest.raises(ValueError, match="not pixels"):
        writer.append(StoredImage("jpeg", np.zeros(9, np.uint8)), height=1, width=1, label=0)
    writer.abandon()


@pytest.mark.parametrize(
    ("sizes", "file"),
    [
        (EQUAL, "train.images.npy"),
        (MIXED, "train.pixels.bin"),
        (MIXED, "train.offsets.npy"),
        (MIXED, "train.sizes.npy"),
    ],
)
@pytest.mark.parametrize("keep", [None, 0, 40, -1])
def test_a_missing_or_truncated_file_is_an_error_that_names_it(tmp_path, sizes, file, keep):
    write(tmp_path, sizes)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).unlink()
    if keep is not None:
        (tmp_path / file).write_bytes(content[:keep])

    missing = file if keep is not None or file != "train.pixels.bin" else "train.images.npy"
    with pytest.raises(DataError, match=missing):
        open_memory(tmp_path, "train")


def test_an_array_of_other_things_is_an_error(tmp_path):
    np.save(tmp_path / "train.images.npy", np.zeros((2, 4, 4, 3), np.float32))
    with pytest.raises(DataError, match="holds float32"):
        open_memory(tmp_path, "train")


def test_offsets_and_sizes_of_different_conversions_are_an_error(tmp_path):
    write(tmp_path, MIXED)
    np.save(tmp_path / "train.sizes.npy", np.ones((5, 2), np.int32))
    with pytest.raises(DataError, match="do not belong together"):
        open_memory(tmp_path, "train")


@pytest.mark.parametrize(
    ("offsets", "sizes"),
    [
        ([-12, 0, 12, 24], [[2, 2]] * 3),  # before the file
        ([128, 140, 152, 164], [[2, 2], [-2, -2], [2, 2]]),
        ([128, 140, 140, 152], [[2, 2], [0, 2], [2, 2]]),
        ([0, -(1 << 62), 0, 12], [[-(1 << 31), -(1 << 31)], [1 << 30, 1 << 30], [2, 2]]),
    ],
)
def test_offsets_that_lead_out_of_the_file_are_an_error(tmp_path, offsets, sizes):
    write(tmp_path, MIXED)
    np.save(tmp_path / "train.offsets.npy", np.array(offsets, np.int64))
    np.save(tmp_path / "train.sizes.npy", np.array(sizes, np.int32))
    with pytest.raises(DataError, match=r"pixels\.bin: .* do not match"):
        open_memory(tmp_path, "train")
