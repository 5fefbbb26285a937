import io
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastssd.data.storage import tar_layout
from fastssd.data.storage.image import StoredImage
from fastssd.data.storage.webdataset import WebDatasetStorage, WebDatasetWriter
from fastssd.errors import DataError


def write(folder, images, *, shard_bytes=1 << 30):
    writer = WebDatasetWriter(folder, "train", shard_bytes=shard_bytes)
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


@pytest.mark.parametrize("shard_bytes", [1 << 30, 4000, 1])
def test_the_images_come_back_from_any_number_of_shards(tmp_path, mixed, shard_bytes):
    images = mixed * 3
    write(tmp_path, images, shard_bytes=shard_bytes)

    storage = WebDatasetStorage(tmp_path, "train")

    num_shards = len(list(tmp_path.glob("train-*.tar")))
    assert num_shards in {1 << 30: [1], 4000: range(2, 9), 1: [9]}[shard_bytes]
    assert len(storage) == 9
    assert storage.sizes.tolist() == [[20, 30], [9, 7], [16, 16]] * 3
    assert storage.sizes.dtype == np.int32
    for sample in (8, 0, 4, 1, 7, 2):
        stored, image = storage.read(sample), images[sample][0]
        assert stored.mode == image.mode
        assert np.array_equal(stored.data, image.data)


def test_a_shard_is_an_archive_that_everyone_reads(tmp_path, mixed):
    write(tmp_path, mixed)

    with tarfile.open(tmp_path / "train-000000.tar") as archive:
        contents = {m.name: archive.extractfile(m).read() for m in archive.getmembers()}

    assert list(contents) == [
        f"{i:09d}.{s}" for i, s in enumerate(("jpg", "ppm", "jpg")) for s in ("cls", s)
    ]
    assert [contents[f"{i:09d}.cls"] for i in range(3)] == [b"0", b"10", b"20"]
    assert contents["000000000.jpg"] == mixed[0][0].data.tobytes()
    with Image.open(io.BytesIO(contents["000000001.ppm"])) as image:
        assert np.array_equal(np.asarray(image), mixed[1][0].data)


@given(st.integers(0, 10**10), st.sampled_from(["jpg", "cls"]), st.integers(0, 8**11 - 1))
def test_a_members_header_is_the_standard_librarys(sample, suffix, size):
    info = tarfile.TarInfo(f"{sample:09d}.{suffix}")
    info.size = size
    assert tar_layout.member_header(sample, suffix, size) == info.tobuf(tarfile.USTAR_FORMAT)


def test_the_same_images_make_the_same_bytes(tmp_path, mixed):
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, mixed)
        contents.append({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]


def test_the_text_index_is_that_of_dalis_own_tool(tmp_path, mixed):
    pytest.importorskip("wds2idx", reason="nvidia-dali is not installed")
    write(tmp_path, mixed * 2)
    made = tmp_path / "made.idx"

    subprocess.run(
        [sys.executable, "-m", "wds2idx", tmp_path / "train-000000.tar", made],
        check=True,
        capture_output=True,
    )

    assert (tmp_path / "train-000000.idx").read_text() == made.read_text()


def test_dalis_own_reader_opens_the_shards_and_sees_the_same_images(tmp_path, mixed):
    pytest.importorskip("nvidia.dali", reason="nvidia-dali is not installed")
    from nvidia.dali import Pipeline, fn

    write(tmp_path, mixed * 2, shard_bytes=4000)
    shards = sorted(tmp_path.glob("train-*.tar"))
    assert len(shards) > 1
    pipeline = Pipeline(batch_size=6, num_threads=1, device_id=None)
    with pipeline:
        content, label = fn.readers.webdataset(
            paths=[str(path) for path in shards],
            index_paths=[str(path.with_suffix(".idx")) for path in shards],
            ext=["jpg;ppm", "cls"],
        )
        pixels = fn.decoders.image(content)
        pipeline.set_outputs(content, label, pixels)

    contents, labels, decoded = pipeline.run()

    assert [bytes(labels.at(i)) for i in range(6)] == [b"0", b"10", b"20", b"30", b"40", b"50"]
    for i in range(6):
        image = mixed[i % 3][0]
        if image.mode == "jpeg":
            assert bytes(contents.at(i)) == image.data.tobytes()
        else:
            assert np.array_equal(decoded.at(i), image.data)


def test_writing_to_what_was_read_leaves_the_archive_alone(tmp_path, mixed):
    write(tmp_path, mixed)
    WebDatasetStorage(tmp_path, "train").read(1).data[:] = 0
    again = WebDatasetStorage(tmp_path, "train").read(1)
    assert np.array_equal(again.data, mixed[1][0].data)


def test_a_split_without_images_has_no_shard(tmp_path):
    write(tmp_path, [])
    storage = WebDatasetStorage(tmp_path, "train")
    assert len(storage) == 0
    assert storage.sizes.shape == (0, 2)


def test_a_sample_that_is_not_there_is_an_error_that_names_it(tmp_path, mixed):
    write(tmp_path, mixed)
    for sample in (3, -1):
        with pytest.raises(DataError, match=f"no sample {sample}"):
            WebDatasetStorage(tmp_path, "train").read(sample)


def test_a_split_whose_writer_was_stopped_is_an_error(tmp_path, mixed):
    writer = WebDatasetWriter(tmp_path, "train")
    image, height, width = mixed[1]
    writer.append(image, height=height, width=width, label=0)
    writer.abandon()
    with pytest.raises(DataError, match=r"train\.index\.npy"):
        WebDatasetStorage(tmp_path, "train")


@pytest.mark.parametrize("file", ["train-000000.tar", "train.index.npy"])
@pytest.mark.parametrize("part", [None, 0, 0.1, 0.5, 0.999])
def test_a_missing_or_truncated_file_is_an_error_that_names_it(tmp_path, mixed, file, part):
    write(tmp_path, mixed)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).unlink()
    if part is not None:
        (tmp_path / file).write_bytes(content[: int(part * len(content))])

    with pytest.raises(DataError, match=file.replace(".", r"\.")):
        WebDatasetStorage(tmp_path, "train")


def test_an_archive_of_another_conversion_is_an_error_that_names_file_and_sample(tmp_path, mixed):
    for name, images in (("a", mixed), ("b", mixed[::-1])):
        (tmp_path / name).mkdir()
        write(tmp_path / name, images)
    archive = (tmp_path / "b" / "train-000000.tar").read_bytes()
    (tmp_path / "a" / "train-000000.tar").write_bytes(archive)

    with pytest.raises(DataError, match=r"train-000000\.tar.*(complete|sample \d)"):
        [WebDatasetStorage(tmp_path / "a", "train").read(sample) for sample in range(3)]


@settings(max_examples=100, deadline=None)
@given(
    row=st.integers(0, 2),
    column=st.integers(0, 5),
    value=st.sampled_from([-1, 0, 1, 2, 7, 512, 600, 1 << 31, 1 << 62, -(1 << 63), (1 << 63) - 1])
    | st.integers(0, 9000),
)
def test_a_damaged_index_gives_a_data_error_or_a_readable_split(
    tmp_path_factory, row, column, value
):
    folder = tmp_path_factory.mktemp("damage")
    write(folder, [raw(9, 7), raw(3, 3), raw(5, 1)])
    index = np.load(folder / "train.index.npy")
    index[row, column] = value
    np.save(folder / "train.index.npy", index)

    try:
        storage = WebDatasetStorage(folder, "train")
        for sample in range(3):
            storage.read(sample)
    except DataError:
        return


@settings(max_examples=60, deadline=None)
@given(offset=st.integers(0, 3 * 2048 + 1024), value=st.integers(0, 255))
def test_one_damaged_byte_of_an_archive_gives_a_data_error_or_a_readable_split(
    tmp_path_factory, offset, value
):
    folder = tmp_path_factory.mktemp("damage")
    write(folder, [raw(9, 7), raw(3, 3), raw(5, 1)])
    path = folder / "train-000000.tar"
    content = bytearray(path.read_bytes())
    content[offset] = value
    path.write_bytes(content)

    try:
        storage = WebDatasetStorage(folder, "train")
        for sample in range(3):
            storage.read(sample)
    except DataError:
        return
