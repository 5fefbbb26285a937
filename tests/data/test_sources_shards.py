"""Which shards and tables are which split, and whether all of them are there."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from fastssd.data.sources.shard_names import check_complete, shard_name
from fastssd.data.sources.source import SourceOptions
from fastssd.data.sources.sources import find_kind, open_source
from fastssd.data.sources.split_names import parse_split_names
from fastssd.errors import ConfigError, DataError


def shard(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in (("._0.jpg", b"x"), ("0.jpg", b"x"), ("0.cls", b"0")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def table(path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.table({"image": [b"x"], "label": [0]}), path)


def opened(root, *names):
    options = SourceOptions(split_names=parse_split_names(names) if names else None)
    return open_source(str(root), options=options)


def counts(source):
    return {split: len(part.labels) for split, part in source.splits.items()}


def make(root, files):
    for file in files:
        (shard if file.endswith(".tar") else table)(root / file)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["latest-train-0.tar", "latest-train-1.tar"], {"train": 2}),
        (["latest-train-0.tar", "latest-validation-0.tar"], {"train": 1, "val": 1}),
        (["Training/0.tar", "Testing/0.tar", "Testing/1.tar"], {"train": 1, "test": 2}),
        (["interval-0.tar", "contest-0.tar"], {"train": 2}),
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], {"train": 2}),
        (["data/Train.parquet", "data/valid.parquet"], {"train": 1, "val": 1}),
        (["train/0000.parquet", "validation/0000.parquet"], {"train": 1, "val": 1}),
        (["train-00000-of-00001-0123456789abcdef.parquet", "extra.parquet"], {"train": 1}),
    ],
)
def test_a_shard_is_of_the_one_split_that_its_name_speaks_of(tmp_path, files, expected):
    source = opened(make(tmp_path, files))
    assert counts(source) == expected
    assert set(source.taken_from) == set(expected)


@pytest.mark.parametrize(
    ("files", "question", "answer", "expected"),
    [
        (["trainval-0.tar", "test-0.tar"], "'trainval'", ["train=trainval", "test=test"], [1, 1]),
        (["trainval-0.tar", "trainval-1.tar"], "'trainval'", ["train=trainval"], [2]),
        (["train-0.tar", "other-0.tar"], "'other'", ["train=other"], [1]),
        (["train-0.tar", "train_small-0.tar"], "'train', 'train_small'", ["train=train"], [1]),
        (["test-0.tar"], "'test'", ["train=test"], [1]),
        (["train/0.tar", "a-0.tar"], "beside train", ["train=train", "val=a"], [1, 1]),
        (["latest-train.parquet"], "'latest-train'", ["train=latest-train"], [1]),
        (["train.parquet", "trainval.parquet"], "'trainval'", ["train=train"], [1]),
        (["train.parquet", "Train-0.parquet"], "'Train', 'train'", ["train=train"], [1]),
        (["part-0.parquet", "part-1.parquet"], "'part'", ["train=part"], [2]),
    ],
)
def test_shards_of_two_readings_are_asked_about(tmp_path, files, question, answer, expected):
    make(tmp_path, files)
    with pytest.raises(ConfigError) as error:
        opened(tmp_path)
    assert question in str(error.value)
    assert "--split-names train=" in str(error.value)
    assert list(counts(opened(tmp_path, *answer)).values()) == expected


def test_tables_in_two_places_are_asked_about(tmp_path):
    make(tmp_path, ["train.parquet", "data/train.parquet"])
    with pytest.raises(ConfigError, match="data: name one of them"):
        opened(tmp_path)
    assert counts(opened(tmp_path / "data")) == {"train": 1}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["train-00000-of-00002.parquet"], "1 are there; missing is number 1"),
        (["data/train-00001-of-00002.parquet"], "1 are there; missing is number 2"),
        (["train-0-of-9.tar", "train-5-of-9.tar"], "missing is number 1, 2, 3, 4, 6, ..."),
        (["train-0-of-2.tar", "train-1-of-3.tar"], "keep those of one table"),
        (["train-0-of-2.tar", "train-01.tar"], "keep those of one table"),
        (["train-0-of-1-" + 16 * "a" + ".tar", "train-0-of-1.tar"], "both number 0"),
    ],
)
def test_a_shard_without_its_partners_is_refused(tmp_path, files, said):
    with pytest.raises(DataError) as error:
        opened(make(tmp_path, files))
    assert said in str(error.value)


def test_gaps_in_numbers_without_a_total_are_said(tmp_path):
    source = opened(make(tmp_path, ["a-0007.tar", "a-0010.tar", "a-0009.tar"]))
    assert "there is no 8" in " ".join(source.notes)


def test_numbers_of_any_size_are_counted_at_once():
    files = [Path(f"a-{10**200}.tar"), Path("a-3.tar")]
    assert "there is no 4, 5, 6, 7, 8, ..." in check_complete(files)[0]
    with pytest.raises(DataError, match="missing is number 2, 3"):
        check_complete([Path(f"a-1-of-{10**200}.tar")])


@pytest.mark.parametrize(
    ("stem", "name", "index", "count"),
    [
        ("train", "train", None, None),
        ("train2017", "train2017", None, None),
        ("0003", "", 3, None),
        ("set-train_0003", "set-train", 3, None),
        ("train-00001-of-00002", "train", 1, 2),
        ("a-1-b", "a-1-b", None, None),
    ],
)
def test_the_name_of_a_shard_is_read(stem, name, index, count):
    read = shard_name(stem)
    assert (read.name, read.index, read.count) == (name, index, count)


def test_hidden_members_are_left_out_and_listed(tmp_path):
    source = opened(make(tmp_path, ["a-0.tar"]))
    assert "hidden files and folders: 1 (a-0.tar/._0.jpg)" in " ".join(source.notes)


def test_a_saved_dataset_of_other_splits_is_asked_about(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["full", "test"]}))
    for split in ("full", "test"):
        (tmp_path / split).mkdir()
        rows = arrow.table({"image": [b"x"], "label": [0]})
        path = str(tmp_path / split / "data-00000-of-00002.arrow")
        with arrow.OSFile(path, "wb") as file, arrow.ipc.new_stream(file, rows.schema) as stream:
            stream.write_table(rows)
        state = {"_data_files": [{"filename": Path(path).name}], "_split": split}
        (tmp_path / split / "state.json").write_text(json.dumps(state))

    with pytest.raises(ConfigError, match="no train split"):
        opened(tmp_path)
    with pytest.raises(DataError, match="missing is number 1"):
        opened(tmp_path, "train=full")
    for split in ("full", "test"):
        folder = tmp_path / split
        (folder / "data-00000-of-00002.arrow").rename(folder / "data.arrow")
        (folder / "state.json").write_text(
            json.dumps({"_data_files": [{"filename": "data.arrow"}], "_split": split})
        )
    source = opened(tmp_path, "train=full")
    assert counts(source) == {"train": 1}
    assert "parts that are no split: 1 (test)" in " ".join(source.notes)
    assert "is the split 'test', and is taken as the train" in " ".join(
        opened(tmp_path / "test").notes
    )


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (
            ["a_train.txt", "a_valid.txt", "a_Test.txt"],
            {"val": "a_valid.txt", "test": "a_Test.txt"},
        ),
        (["Train.txt", "Val.txt"], {"val": "Val.txt"}),
        (["train2018.txt", "validation2018.txt"], {"val": "validation2018.txt"}),
        (["latest-train.txt", "latest-test.txt"], {"test": "latest-test.txt"}),
        (["trainval.txt", "test.txt"], {}),
    ],
)
def test_siblings_of_a_list_are_found_by_usual_names_or_said(tmp_path, names, parts):
    for i, name in enumerate(names):
        (tmp_path / f"{i}.jpg").touch()
        (tmp_path / name).write_text(f"{i}.jpg 0\n")

    source = open_source(str(tmp_path / names[0]))

    assert find_kind(str(tmp_path)) == "list"
    assert {split: Path(source.taken_from[split]).name for split in source.splits} == {
        "train": names[0],
        **parts,
    }
    for name in names[1:]:
        assert name in " ".join(source.notes)


def test_a_named_part_replaces_the_one_that_is_there_and_this_is_said(tmp_path):
    make(tmp_path, ["in/train-0.tar", "in/val-0.tar", "b-0.tar", "b-1.tar"])
    options = SourceOptions(val=str(tmp_path / "b-*.tar"))
    source = open_source(str(tmp_path / "in"), options=options)
    assert counts(source) == {"train": 1, "val": 2}
    assert "parts that are no split: 1 (val*.tar)" in " ".join(source.notes)


def test_a_sibling_that_is_a_pipe_is_not_opened(tmp_path):
    (tmp_path / "a_train.txt").write_text("0.jpg 0\n")
    os.mkfifo(tmp_path / "a_val.txt")
    source = open_source(str(tmp_path / "a_train.txt"))
    assert list(source.splits) == ["train"]
    assert "not used, beside" in " ".join(source.notes)


def test_two_siblings_that_could_be_one_split_are_asked_about(tmp_path):
    for name in ("a_train.txt", "a_val.txt", "a_valid.txt"):
        (tmp_path / name).write_text("0.jpg 0\n")
    with pytest.raises(ConfigError, match=r"a_val\.txt or .*a_valid\.txt: say which, --val"):
        open_source(str(tmp_path))


def test_values_of_a_csv_column_are_taken_as_splits_by_name(tmp_path):
    rows = ["path,label,split", "0.jpg,0,Main", "1.jpg,0,unused", "2.jpg,0,Later", "3.jpg,0,unused"]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    with pytest.raises(DataError, match=r"line 2: the split 'Main'.*--split-names"):
        open_source(str(tmp_path / "a.csv"))

    source = opened(tmp_path / "a.csv", "train=Main", "val=Later")

    assert counts(source) == {"train": 1, "val": 1}
    assert "2 ('unused' of the column split" in " ".join(source.notes)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("path,label\n0.jpg,cat, striped\n", DataError, "line 2: has more fields"),
        ("path,label,set,split\n0.jpg,0,train,test\n", ConfigError, "could each say the split"),
    ],
)
def test_a_csv_file_of_two_readings_is_refused(tmp_path, text, error, said):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(error, match=said):
        open_source(str(tmp_path / "a.csv"))
