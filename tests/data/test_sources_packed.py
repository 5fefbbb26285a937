"""Sources that hold images within other files: WebDataset shards, `.beton`, Hugging Face's."""

import io
import json
import sys
import tarfile

import numpy as np
import pytest

from fastssd.data.convert import convert
from fastssd.data.dataset import open_dataset
from fastssd.data.sources.source import SourceOptions
from fastssd.data.sources.sources import open_source
from fastssd.data.storage.beton import BetonWriter
from fastssd.data.storage.image import JPEG, RAW, StoredImage
from fastssd.errors import ConfigError, DataError


def shard(path, members, **options):
    """Write a .tar file of (name, bytes) members; bytes of None make a link to `../out`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "../out"
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def contents(picture, encoded):
    """Eight files, JPEG and PNG in turn."""
    return [encoded(picture(9, 8, seed=i), "PNG" if i % 2 else "JPEG") for i in range(8)]


def samples(contents, first=0):
    members = []
    for i, content in enumerate(contents):
        kind = "png" if content.startswith(b"\x89PNG") else "jpg"
        members += [
            (f"{first + i:04}.cls", f"{i % 2}\n".encode()),
            (f"{first + i:04}.{kind}", content),
        ]
    return members


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_give_their_images_and_classes(tmp_path, contents, format):
    for part in range(2):
        shard(
            tmp_path / f"a-{part:04}.tar",
            samples(contents[4 * part : 4 * part + 4], 4 * part),
            format=format,
        )
    for origin in (tmp_path, tmp_path / "a-{0000..0001}.tar", tmp_path / "a-*.tar"):
        source = open_source(str(origin))

        train = source.splits["train"]
        assert [train.read(i) for i in range(8)] == contents
        assert train.labels.tolist() == [0, 1] * 4
        assert source.classes == ["0", "1"]
        assert train.names[5] == "a-0001.tar/0005.png"


def test_splits_are_told_by_folders_or_names_or_options(tmp_path, contents):
    shard(tmp_path / "a/train/0.tar", samples(contents[:4]))
    shard(tmp_path / "a/val/0.tar", samples(contents[4:6]))
    shard(tmp_path / "b/set-train-0.tar", samples(contents[:4]))
    shard(tmp_path / "b/set-test-0.tar", samples(contents[4:]))
    other = str(tmp_path / "b/set-test-*.tar")

    def sizes(source):
        return {name: len(split.labels) for name, split in source.splits.items()}

    assert sizes(open_source(str(tmp_path / "a"))) == {"train": 4, "val": 2}
    assert sizes(open_source(str(tmp_path / "b"))) == {"train": 4, "test": 4}
    source = open_source(str(tmp_path / "a/train/0.tar"), options=SourceOptions(val=other))
    assert sizes(source) == {"train": 4, "val": 4}


def test_labels_may_be_in_json_under_a_usual_or_a_named_key(tmp_path, contents):
    members = []
    for i in range(2):
        text = json.dumps({"label": i, "species": ["bee", "ant"][i], "width": 8})
        members += [(f"x/{i}.jpg", contents[0]), (f"x/{i}.json", text.encode())]
    origin = str(shard(tmp_path / "a.tar", members))

    assert open_source(origin).splits["train"].labels.tolist() == [0, 1]
    source = open_source(origin, options=SourceOptions(label_column="species"))
    assert (source.classes, source.splits["train"].labels.tolist()) == (["ant", "bee"], [1, 0])


def test_of_several_images_a_sample_the_named_one_is_taken(tmp_path, contents):
    members = [("0.left.jpg", contents[0]), ("0.right.jpg", contents[2]), ("0.cls", b"0")]
    origin = str(shard(tmp_path / "a.tar", members))
    with pytest.raises(DataError, match=r"a\.tar.*2 images.*--image-column"):
        open_source(origin)
    source = open_source(origin, options=SourceOptions(image_column="right.jpg"))
    assert source.splits["train"].read(0) == contents[2]


def test_names_that_lead_elsewhere_write_nothing_there(tmp_path, contents):
    members = [
        ("../../escape.jpg", contents[0]),
        ("../../escape.cls", b"0"),
        ("/etc/link.jpg", None),
        ("/tmp/absolute.jpg", contents[2]),
        ("/tmp/absolute.cls", b"0"),
    ]
    origin = str(shard(tmp_path / "in/deep/a.tar", members))

    source = open_source(origin)
    convert(source, tmp_path / "in/deep/out")

    assert "links and special members of shards: 1 (a.tar//etc/link.jpg)" in source.notes[0]
    split = open_dataset(tmp_path / "in/deep/out").split("train")
    assert [split.describe(i) for i in range(2)] == [
        "a.tar/../../escape.jpg",
        "a.tar//tmp/absolute.jpg",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert sorted(path.name for path in (tmp_path / "in/deep").iterdir()) == ["a.tar", "out"]


def test_our_own_webdataset_format_is_a_source_again(tmp_path, tree):
    convert(open_source(str(tree)), tmp_path / "first", format="webdataset")
    source = open_source(str(tmp_path / "first"))
    assert {n: np.bincount(s.labels).tolist() for n, s in source.splits.items()} == {
        "train": [8, 6, 5],
        "test": [2, 2, 2],
    }


def test_every_truncation_of_a_shard_is_noticed(tmp_path, contents):
    whole = shard(tmp_path / "a.tar", samples(contents[:2])).read_bytes()
    end = whole.rstrip(b"\0")
    cut = tmp_path / "cut.tar"
    for size in [*range(1, len(end), 97), len(end) // 512 * 512, -(-len(end) // 512) * 512]:
        cut.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"cut\.tar"):
            open_source(str(cut))


def write_beton(path, contents, labels):
    writer = BetonWriter(path, capacity=len(labels))
    for content, label in zip(contents, labels, strict=True):
        if isinstance(content, bytes):
            image = StoredImage(JPEG, np.frombuffer(content, np.uint8))
            writer.append(image, height=9, width=8, label=label)
        else:
            writer.append(StoredImage(RAW, content), height=9, width=8, label=label)
    writer.finish()


def test_a_beton_file_with_its_sibling_is_a_source(tmp_path, contents, picture):
    images = [contents[0], picture(9, 8), contents[2]]
    write_beton(tmp_path / "a_train.beton", images, [1, 0, 2])
    write_beton(tmp_path / "a_test.beton", images[:1], [2])

    source = open_source(str(tmp_path))

    train = source.splits["train"]
    assert (train.read(0), train.read(2)) == (contents[0], contents[2])
    assert np.array_equal(train.read(1), images[1])
    assert train.labels.tolist() == [1, 0, 2]
    assert source.splits["test"].labels.tolist() == [2]
    assert source.classes == ["0", "1", "2"]


def test_ffcvs_own_file_with_other_fields_is_a_source(tmp_path, picture):
    pytest.importorskip("ffcv", reason="ffcv is not installed")
    from ffcv.fields import (
        BytesField,
        FloatField,
        IntField,
        JSONField,
        NDArrayField,
        RGBImageField,
        TorchTensorField,
    )
    from ffcv.writer import DatasetWriter

    torch = pytest.importorskip("torch")
    pictures = [picture(9, 8, seed=i) for i in range(5)]

    class Rows:
        def __len__(self):
            return 5

        def __getitem__(self, i):
            return (
                0.5 * i,
                {"a": "b" * i},
                i % 2,
                pictures[i],
                np.full((3, 2), i, np.float32),
                7 - i,
                np.full(i + 1, i, np.uint8),
                torch.full((2,), i),
            )

    fields = {
        "weight": FloatField(),
        "about": JSONField(),
        "species": IntField(),
        "image": RGBImageField(write_mode="raw"),
        "box": NDArrayField(np.dtype("float32"), (3, 2)),
        "place": IntField(),
        "note": BytesField(),
        "tensor": TorchTensorField(torch.int64, (2,)),
    }
    path = tmp_path / "foreign.beton"
    DatasetWriter(str(path), fields, num_workers=1).from_indexed_dataset(Rows())

    with pytest.raises(ConfigError, match=r"species, place.*--label-column"):
        open_source(str(path))
    source = open_source(str(path), options=SourceOptions(label_column="species"))

    train = source.splits["train"]
    assert train.labels.tolist() == [0, 1, 0, 1, 0]
    assert all(np.array_equal(train.read(i), pictures[i]) for i in range(5))


def test_without_pyarrow_the_package_to_install_is_named(tmp_path, monkeypatch):
    (tmp_path / "state.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install fastssd\[hf\]"):
        open_source(str(tmp_path))


@pytest.fixture
def arrow():
    return pytest.importorskip("pyarrow", reason="pyarrow is not installed")


def image_table(arrow, contents, labels, *, described=True):
    """A table as Hugging Face's library makes it, with its note about the columns."""
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    images = arrow.array([{"bytes": content, "path": None} for content in contents], kind)
    features = {
        "image": {"_type": "Image"},
        "label": {"names": ["ant", "bee"], "_type": "ClassLabel"},
    }
    note = {"huggingface": json.dumps({"info": {"features": features}})} if described else None
    schema = arrow.schema([("image", kind), ("label", arrow.int64())], metadata=note)
    return arrow.table([images, arrow.array(labels)], schema=schema)


def save_to_disk(arrow, folder, tables):
    """Write what `DatasetDict.save_to_disk` writes."""
    folder.mkdir()
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(tables)}))
    for split, table in tables.items():
        (folder / split).mkdir()
        path = str(folder / split / "data-00000-of-00001.arrow")
        with arrow.OSFile(path, "wb") as file, arrow.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split}
        (folder / split / "state.json").write_text(json.dumps(state))
        (folder / split / "dataset_info.json").write_text("{}")


def check_hugging_face(folder, contents, classes=("ant", "bee")):
    source = open_source(str(folder))
    assert source.kind == "hf"
    assert source.classes == list(classes)
    assert list(source.splits) == ["train", "val"]
    assert [source.splits["train"].read(i) for i in range(6)] == contents[:6]
    assert source.splits["train"].labels.tolist() == [0, 1] * 3
    assert source.splits["val"].labels.tolist() == [0, 1]


@pytest.mark.parametrize("described", [True, False])
def test_saved_and_parquet_datasets_give_their_files_and_class_names(
    tmp_path, arrow, contents, described
):
    from pyarrow import parquet

    labels = [0, 1] * 4
    tables = {
        "train": image_table(arrow, contents[:6], labels[:6], described=described),
        "validation": image_table(arrow, contents[6:], labels[6:], described=described),
    }
    save_to_disk(arrow, tmp_path / "saved", tables)
    (tmp_path / "hub/data").mkdir(parents=True)
    for name, table in tables.items():
        half = table.num_rows // 2
        for part, rows in enumerate((table[:half], table[half:])):
            parquet.write_table(rows, tmp_path / f"hub/data/{name}-0000{part}-of-00002.parquet")

    for folder in ("saved", "hub"):
        classes = ["ant", "bee"] if described else ["0", "1"]
        check_hugging_face(tmp_path / folder, contents, classes)
        convert(open_source(str(tmp_path / folder)), tmp_path / f"{folder}-out")


@pytest.mark.filterwarnings("ignore")
def test_what_the_library_itself_saved_is_read(tmp_path, contents):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["ant", "bee"])
    )
    info = datasets.DatasetInfo(features=features)
    rows = {"image": [{"bytes": c, "path": None} for c in contents], "label": [0, 1] * 4}
    # With a fingerprint of ours: making one fails in datasets 5.2 with dill 0.4.
    parts = datasets.DatasetDict(
        {
            name: datasets.Dataset(
                datasets.table.InMemoryTable.from_pydict(
                    {key: column[part] for key, column in rows.items()},
                    schema=features.arrow_schema,
                ),
                info=info,
                fingerprint=name,
            )
            for name, part in (("train", slice(0, 6)), ("validation", slice(6, 8)))
        }
    )
    parts.save_to_disk(str(tmp_path / "saved"))
    check_hugging_face(tmp_path / "saved", contents)


def test_a_damaged_arrow_file_is_named_by_its_folder(tmp_path, arrow, contents):
    table = image_table(arrow, contents, [0, 1] * 4)
    save_to_disk(arrow, tmp_path / "saved", {"train": table})
    file = tmp_path / "saved/train/data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(DataError, match=r"data-00000-of-00001\.arrow: damaged"):
        open_source(str(tmp_path / "saved"))
    file.unlink()
    with pytest.raises(DataError, match=r"data-00000-of-00001\.arrow"):
        open_source(str(tmp_path / "saved"))
