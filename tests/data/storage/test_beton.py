import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastssd.data.storage.beton import BetonStorage, BetonWriter
from fastssd.data.storage.image import StoredImage
from fastssd.errors import DataError

MIB = 1 << 20


def write(path, images, *, capacity=None):
    writer = BetonWriter(path, capacity=capacity or len(images))
    for label, (image, height, width) in enumerate(images):
        writer.append(image, height=height, width=width, label=label * 10)
    writer.finish()


def raw(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return StoredImage("raw", pixels), height, width


def jpeg(content, height, width):
    return StoredImage("jpeg", np.frombuffer(content, np.uint8)), height, width


@pytest.fixture
def mixed(picture, encoded):
    """A JPEG, pixels of another size, and a JPEG again."""
    return [
        jpeg(encoded(picture(20, 30)), 20, 30),
        raw(9, 7),
        jpeg(encoded(picture(16, 16, seed=1), mode="L"), 16, 16),
    ]


def test_the_images_and_labels_come_back(tmp_path, mixed):
    write(tmp_path / "a.beton", mixed)

    storage = BetonStorage(tmp_path / "a.beton")

    assert len(storage) == 3
    assert storage.sizes.tolist() == [[20, 30], [9, 7], [16, 16]]
    assert storage.labels.tolist() == [0, 10, 20]
    for sample, (image, _, _) in enumerate(mixed):
        assert storage.read(sample).mode == image.mode
        assert np.array_equal(storage.read(sample).data, image.data)


def test_the_bytes_of_a_jpeg_lie_in_the_file_as_they_were(tmp_path, mixed):
    write(tmp_path / "a.beton", mixed)
    assert mixed[0][0].data.tobytes() in (tmp_path / "a.beton").read_bytes()


def test_fewer_samples_than_announced_make_a_valid_file(tmp_path, mixed):
    write(tmp_path / "a.beton", mixed, capacity=1000)
    storage = BetonStorage(tmp_path / "a.beton")
    assert storage.labels.tolist() == [0, 10, 20]
    assert np.array_equal(storage.read(1).data, mixed[1][0].data)


def test_the_header_is_laid_out_as_the_format_says(tmp_path, mixed):
    write(tmp_path / "a.beton", mixed)

    content = (tmp_path / "a.beton").read_bytes()
    version, num_fields, page, num_samples, table = struct.unpack_from("<HHIQQ", content)
    first = struct.unpack_from("<BHHQ", content, 24 + 2 * 1041)

    assert (version, num_fields, page, num_samples) == (2, 2, 2 * MIB, 3)
    assert [content[24 + i * 1041] for i in range(2)] == [2, 1]  # RGB image, integer
    assert first[:3] == (0, 30, 20)  # JPEG, width, height
    assert first[3] % page == 0
    assert struct.unpack_from("<QQQ", content, table) == (0, first[3], len(mixed[0][0].data))
    assert len(content) == table + 3 * 24


@settings(max_examples=8, deadline=None)
@given(st.lists(st.sampled_from([1, 300, 700, 1100, 1800]), min_size=1, max_size=8))
def test_no_image_straddles_a_page_even_when_the_pages_grow(tmp_path_factory, sides):
    path = tmp_path_factory.mktemp("pages") / "a.beton"
    images = [raw(side, side, seed=i) for i, side in enumerate(sides)]

    write(path, images)

    storage = BetonStorage(path)
    page = storage.page_size
    table = np.frombuffer(path.read_bytes()[-24 * len(sides) :], "<u8").reshape(-1, 3)
    assert page == max(2 * MIB, 1 << (3 * max(sides) ** 2 - 1).bit_length())
    assert np.array_equal(table[:, 1] // page, (table[:, 1] + table[:, 2] - 1) // page)
    for sample, (image, _, _) in enumerate(images):
        assert np.array_equal(storage.read(sample).data, image.data)


def test_an_image_beyond_the_formats_sides_is_refused(tmp_path):
    writer = BetonWriter(tmp_path / "a.beton", capacity=1)
    image = StoredImage("raw", np.zeros((1, 65_536, 3), np.uint8))
    with pytest.raises(ValueError, match=r"65536 x 1 pixels exceed .* 65535"):
        writer.append(image, height=1, width=65_536, label=0)
    writer.abandon()


def test_a_file_whose_writer_was_stopped_is_an_error(tmp_path, mixed):
    writer = BetonWriter(tmp_path / "a.beton", capacity=3)
    image, height, width = mixed[1]
    writer.append(image, height=height, width=width, label=0)
    writer.abandon()
    with pytest.raises(DataError, match=r"a\.beton: not a complete"):
        BetonStorage(tmp_path / "a.beton")


def test_a_file_that_ffcvs_writer_never_finished_is_an_error(tmp_path, mixed):
    write(tmp_path / "a.beton", mixed)
    content = bytearray((tmp_path / "a.beton").read_bytes())
    content[16:24] = bytes(8)  # its header says no more of it than that there is no table
    (tmp_path / "a.beton").write_bytes(content)
    with pytest.raises(DataError, match="never finished"):
        BetonStorage(tmp_path / "a.beton")


@pytest.mark.parametrize("keep", [0, 10, 24, 1500, 2120, 2 * MIB, 4 * MIB, 4 * MIB + 30, -1])
def test_every_truncation_is_an_error_that_names_the_file(tmp_path, mixed, keep):
    write(tmp_path / "a.beton", mixed)
    content = (tmp_path / "a.beton").read_bytes()
    (tmp_path / "a.beton").write_bytes(content[:keep])
    with pytest.raises(DataError, match=r"a\.beton"):
        BetonStorage(tmp_path / "a.beton")


@pytest.mark.parametrize(
    ("offset", "values", "message"),
    [
        (0, [3], "version 3"),
        (4, [0, 0, 3, 0], "page size"),
        (24, [7], "fields of types"),
        (24 + 1041, [2], "fields of types"),
        (24 + 2 * 1041, [9], "sample 0"),  # mode
        (24 + 2 * 1041 + 24 + 1, [200], "sample 1"),  # width of a raw image
        (24 + 2 * 1041 + 24 + 5, [255] * 8, "sample 1"),  # pointer
        (8, [255] * 6, "metadata"),  # number of samples
    ],
)
def test_a_damaged_header_or_record_is_an_error(tmp_path, mixed, offset, values, message):
    write(tmp_path / "a.beton", mixed)
    content = bytearray((tmp_path / "a.beton").read_bytes())
    content[offset : offset + len(values)] = bytes(values)
    (tmp_path / "a.beton").write_bytes(content)
    with pytest.raises(DataError, match=message):
        BetonStorage(tmp_path / "a.beton")


@settings(max_examples=60, deadline=None)
@given(offset=st.integers(0, 24 + 2 * 1041 + 3 * 24 - 1), value=st.integers(0, 255), data=st.data())
def test_one_damaged_byte_gives_a_data_error_or_a_readable_file(
    tmp_path_factory, offset, value, data
):
    path = tmp_path_factory.mktemp("damage") / "a.beton"
    write(path, [raw(9, 7), raw(3, 3), raw(5, 1)])
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        offset += len(content) - 3 * 24 if offset < 72 else 0  # the table at the end
    content[offset] = value
    path.write_bytes(content)

    try:
        storage = BetonStorage(path)
    except DataError:
        return
    for sample in range(len(storage)):
        storage.read(sample)


def test_a_sample_that_is_not_there_is_an_error_that_names_it(tmp_path, mixed):
    write(tmp_path / "a.beton", mixed)
    for sample in (3, -1):
        with pytest.raises(DataError, match=f"no sample {sample}"):
            BetonStorage(tmp_path / "a.beton").read(sample)


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match=r"no\.beton"):
        BetonStorage(tmp_path / "no.beton")


@pytest.mark.filterwarnings("ignore")  # ffcv's own
def test_ffcvs_loader_opens_our_file_and_sees_the_same_images(tmp_path, picture, encoded):
    pytest.importorskip("ffcv", reason="ffcv is not installed", exc_type=ImportError)
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption

    pictures = [picture(24, 32, seed=i) for i in range(6)]
    contents = [encoded(pixels) for pixels in pictures[::2]]
    images = [
        (StoredImage("raw", pixels), 24, 32) if i % 2 else jpeg(contents[i // 2], 24, 32)
        for i, pixels in enumerate(pictures)
    ]
    write(tmp_path / "a.beton", images)

    loader = Loader(
        str(tmp_path / "a.beton"),
        batch_size=4,
        num_workers=1,
        order=OrderOption.SEQUENTIAL,
        drop_last=False,
        pipelines={"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]},
    )
    batches = [(np.array(pixels), np.array(labels)) for pixels, labels in loader]

    seen = np.concatenate([pixels for pixels, _ in batches])
    assert np.concatenate([labels for _, labels in batches])[:, 0].tolist() == [
        0,
        10,
        20,
        30,
        40,
        50,
    ]
    assert np.array_equal(seen[1::2], np.stack(pictures[1::2]))
    expected = [np.array(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents]
    difference = np.abs(seen[::2].astype(int) - np.stack(expected))
    # FFCV decodes with libjpeg-turbo's fast, less exact transform.
    assert difference.mean() < 2
    assert difference.max() <= 12


@pytest.mark.filterwarnings("ignore")  # ffcv's own
def test_we_open_the_file_of_ffcvs_writer(tmp_path, picture):
    pytest.importorskip("ffcv", reason="ffcv is not installed", exc_type=ImportError)
    from ffcv.fields import FloatField, IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    pictures = [picture(24 + i, 32, seed=i) for i in range(5)]
    fields = {"weight": FloatField(), "label": IntField(), "image": RGBImageField("raw")}
    writer = DatasetWriter(str(tmp_path / "a.beton"), fields, num_workers=1)
    writer.from_indexed_dataset([(0.5, 7 + i, pixels) for i, pixels in enumerate(pictures)])

    storage = BetonStorage(tmp_path / "a.beton")

    assert storage.labels.tolist() == [7, 8, 9, 10, 11]
    assert storage.sizes.tolist() == [[24 + i, 32] for i in range(5)]
    for sample, pixels in enumerate(pictures):
        assert np.array_equal(storage.read(sample).data, pixels)
