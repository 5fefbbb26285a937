"""CIFAR's published files, made small or of full size, and what a pickle must not do."""

import hashlib
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from fastssd.data.convert import convert
from fastssd.data.dataset import open_dataset
from fastssd.data.sources.plain_pickle import PlainPickleError, load_plain
from fastssd.data.sources.source import SourceOptions
from fastssd.data.sources.sources import open_source
from fastssd.errors import ConfigError, DataError

BATCHES = [f"data_batch_{i}" for i in range(1, 6)]
# methods.md 1.1: images, and the digest of the positions within each class as little-endian int32
PUBLISHED = {
    100: (10_847, "2f421d63fdc8f7e5"),
    50: (12_608, "057d546842016943"),
    10: (19_573, "bfcd8e97aec64e16"),
}


def batch(count, seed, classes):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return random.integers(0, 256, (count, 3072)).astype(np.uint8), random.permutation(labels)


def python_2_pickle(planes, labels, key):
    """A dictionary as Python 2 with NumPy 1 pickled it: protocol 2, text as bytes."""

    def text(value):
        return b"U" + bytes([len(value)]) + value.encode()

    dtype = b"cnumpy\ndtype\n" + text("u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    data = planes.tobytes()
    shape = b"J" + struct.pack("<i", planes.shape[0]) + b"M" + struct.pack("<H", 3072) + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b")
    array += b"\x87R(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(data)) + data + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    entries = text("data") + array + text(key) + numbers
    return b"\x80\x02}(" + entries + text("batch_label") + text("made") + b"u."


def cifar10_python(folder, count=20):
    """The python files of CIFAR-10 with `count` images each; all planes and labels in order."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [batch(count, seed, 10) for seed in range(6)]
    for name, (planes, labels) in zip([*BATCHES, "test_batch"], parts, strict=True):
        (folder / name).write_bytes(python_2_pickle(planes, labels, "labels"))
    names = [f"class {i}" for i in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, 2))
    return parts


def binary_records(planes, *labels):
    columns = [np.array(column, np.uint8)[:, None] for column in labels]
    return np.concatenate([*columns, planes], 1).tobytes()


def hwc(planes):
    return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def check(source, parts):
    train, test = source.splits["train"], source.splits["test"]
    planes = np.concatenate([part[0] for part in parts[:-1]])
    assert train.labels.tolist() == np.concatenate([part[1] for part in parts[:-1]]).tolist()
    assert test.labels.tolist() == parts[-1][1].tolist()
    for split, expected in ((train, hwc(planes)), (test, hwc(parts[-1][0]))):
        assert np.array_equal([split.read(i) for i in range(len(split.labels))], expected)


def test_python_files_of_cifar_10_give_the_images_in_the_order_of_the_batches(tmp_path):
    parts = cifar10_python(tmp_path / "cifar-10-batches-py")

    source = open_source(str(tmp_path / "cifar-10-batches-py"))

    check(source, parts)
    assert source.classes == [f"class {i}" for i in range(10)]
    assert source.splits["train"].names[21] == "data_batch_2[1]"


def test_an_archive_is_read_without_unpacking_it(tmp_path):
    parts = cifar10_python(tmp_path / "made" / "cifar-10-batches-py")
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "made" / "cifar-10-batches-py", "cifar-10-batches-py")
    before = sorted(tmp_path.rglob("*"))

    check(open_source(str(archive)), parts)

    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("classes", [10, 100])
def test_binary_files_give_the_fine_labels(tmp_path, classes):
    parts = [batch(200, seed, classes) for seed in range(6 if classes == 10 else 2)]
    names = BATCHES if classes == 10 else ["train"]
    for name, (planes, labels) in zip(
        [*names, "test_batch" if classes == 10 else "test"], parts, strict=True
    ):
        columns = [labels] if classes == 10 else [labels // 5, labels]
        (tmp_path / f"{name}.bin").write_bytes(binary_records(planes, *columns))
    meta = "batches.meta.txt" if classes == 10 else "fine_label_names.txt"
    (tmp_path / meta).write_text("".join(f"class {i}\n" for i in range(classes)) + "\n")

    source = open_source(str(tmp_path))

    check(source, parts)
    assert len(source.classes) == classes


@pytest.fixture(scope="module")
def cifar100(tmp_path_factory):
    """CIFAR-100's python files in full size; each image's first pixel is its row and label."""
    folder = tmp_path_factory.mktemp("cifar") / "cifar-100-python"
    folder.mkdir()
    for name, count, seed in (("train", 50_000, 1), ("test", 10_000, 2)):
        labels = np.random.default_rng(seed).permutation(np.arange(count) % 100)
        planes = np.zeros((count, 3072), np.uint8)
        planes[:, 0], planes[:, 1024] = labels, np.arange(count) % 251
        content = {b"data": planes, b"fine_labels": labels.tolist(), b"coarse_labels": []}
        (folder / name).write_bytes(pickle.dumps(content, 2))
    names = [f"class {i}" for i in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": names}, 2))
    return folder


@pytest.mark.parametrize("imbalance", PUBLISHED)
def test_cifar_100_lt_by_name_is_the_published_subset(tmp_path, cifar100, imbalance):
    name = f"cifar100_lt_{imbalance}"
    source = open_source(name, options=SourceOptions(root=cifar100.parent))

    if imbalance == 100:  # the images too, once
        meta = convert(source, tmp_path / "out")
        dataset = open_dataset(tmp_path / "out")
        rows = np.load(tmp_path / "out/train.source_rows.npy")
        pixels = np.array([dataset.split("train").storage.read(i).data[0, 0] for i in range(500)])
        assert np.array_equal(pixels[:, 0], dataset.split("train").labels[:500])
        assert np.array_equal(pixels[:, 1], rows[:500] % 251)
        assert (meta["name"], meta["conversion"]["imbalance"]) == (name, 100)
        assert meta["splits"]["test"]["per_class"] == [100] * 100
    else:
        from fastssd.data.subsets import plan_subsets

        rows = plan_subsets(source, imbalance=source.imbalance)["train"].rows

    labels = source.splits["train"].labels
    positions = np.empty(len(labels), "<i4")
    for label in range(100):
        positions[labels == label] = np.arange(500)
    total, digest = PUBLISHED[imbalance]
    assert len(rows) == total
    assert hashlib.sha256(positions[rows].tobytes()).hexdigest()[:16] == digest


def test_an_imbalance_against_the_name_is_refused(tmp_path, cifar100):
    source = open_source("cifar100-ir50", options=SourceOptions(root=cifar100))
    with pytest.raises(ConfigError, match="--imbalance 10: cifar100-ir50 asks for 50"):
        convert(source, tmp_path / "out", imbalance=10)


@pytest.mark.parametrize("label", [-1, 10, 2**70, 256**2000], ids=["-1", "10", "2**70", "long"])
def test_a_label_that_is_no_class_is_named_with_its_image(tmp_path, label):
    cifar10_python(tmp_path, count=2)
    content = {"data": np.zeros((2, 3072), np.uint8), "labels": [3, label]}
    (tmp_path / "data_batch_4").write_bytes(pickle.dumps(content, 2))

    with pytest.raises(DataError, match=r"data_batch_4: label .* of image 1 is not one of the 10"):
        open_source(str(tmp_path))


def test_another_number_of_images_than_published_is_refused_by_name_only(tmp_path):
    cifar10_python(tmp_path / "cifar-10-batches-py")
    open_source(str(tmp_path / "cifar-10-batches-py"))
    with pytest.raises(DataError, match=r"cifar-10-batches-py: .*100 train images for 50,000"):
        open_source("cifar10", options=SourceOptions(root=tmp_path))


def test_missing_files_are_listed_with_what_is_wanted(tmp_path):
    cifar10_python(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py/data_batch_3").unlink()
    (tmp_path / "cifar-10-batches-py/test_batch").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_3, test_batch; cifar-10-python"):
        open_source("cifar10", options=SourceOptions(root=tmp_path))
    with pytest.raises(DataError, match=r"cifar-100-python\.tar\.gz.*cifar-100-binary"):
        open_source("cifar100", options=SourceOptions(root=tmp_path))


class Evil:
    """Asks, when unpickled, for a function to be called."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "evil",
    [
        Evil(os.mkdir, "made-by-a-pickle"),
        Evil(eval, "__import__('os').mkdir('made-by-a-pickle')"),
        Evil(np.load, "made-by-a-pickle", None, True),
        Evil(getattr, "text", "upper"),
        Path("made-by-a-pickle"),
        np.array([Evil(os.mkdir, "made-by-a-pickle")], dtype=object),
        np.zeros(2, dtype="O"),
        np.zeros(2, dtype=[("a", "u1")]),
        np.ma.zeros(2),
        range(3),
        load_plain,
    ],
    ids=range(11),
)
def test_a_pickle_that_asks_for_more_than_data_runs_nothing(tmp_path, monkeypatch, evil, protocol):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PlainPickleError):
        load_plain(pickle.dumps({"data": evil, "labels": [1]}, protocol))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        # the state of a function: that of this module's own
        b"\x80\x02c_codecs\nencode\n}U\x01aK\x01sb.",
        # a codec that unpacks to gigabytes
        b"c_codecs\nencode\n(Vabc\nVzip\ntR.",
        # more items than bytes
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01J\xff\xff\xff\x7f\x85cnumpy\ndtype\nU\x02u1\x85R\x89U\x01at" + b"b.",
        b"",
        b"hello",
        b"\x80\x02",
    ],
    ids=["function state", "codec", "too few bytes", "empty", "text", "cut"],
)
def test_a_crafted_or_damaged_pickle_is_refused(content):
    with pytest.raises(PlainPickleError):
        load_plain(content)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, "text", ("b", b"\xff")]},
        {"a": np.arange(12, dtype=">i4").reshape(3, 4)},
        {"a": np.asfortranarray(np.arange(12.0).reshape(3, 4))},
        {"a": np.zeros((0, 3), np.uint8)},
        {"a": np.float32(1.5)},
    ],
    ids=range(5),
)
def test_plain_data_come_back_as_pickle_gives_them(value, protocol):
    content = pickle.dumps(value, protocol)
    expected, result = pickle.loads(content)["a"], load_plain(content)["a"]
    assert (
        np.array_equal(result, expected)
        if isinstance(expected, np.ndarray)
        else (result == expected)
    )
    if isinstance(expected, np.ndarray | np.generic):
        assert result.dtype.str[1:] == expected.dtype.str[1:]  # but for the order of bytes
