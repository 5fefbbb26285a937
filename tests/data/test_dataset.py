import json
import os

import numpy as np
import pytest

from fastssd.data.convert import convert
from fastssd.data.dataset import open_dataset
from fastssd.data.sources.sources import open_source
from fastssd.errors import ConfigError, DataError


@pytest.fixture
def path(tmp_path, tree):
    convert(open_source(str(tree)), tmp_path / "out", format="ffcv", val_per_class=1)
    return tmp_path / "out"


def edit_meta(path, **changes):
    """Change a dataset as one that says nothing of checksums, lest they say it all."""
    meta = json.loads((path / "meta.json").read_text())
    del meta["sha256"], meta["files"]
    (path / "meta.json").write_text(json.dumps({**meta, **changes}))


def test_a_dataset_knows_its_classes_and_splits(path):
    dataset = open_dataset(str(path))

    assert (dataset.name, dataset.format) == ("source", "ffcv")
    assert dataset.classes == ["ant", "bee", "cat"]
    assert dataset.splits == ["train", "val", "test"]
    assert dataset.meta["splits"]["val"]["images"] == 3


def test_a_split_has_labels_counts_sizes_and_names(path):
    split = open_dataset(path).split("train")

    assert len(split) == 16
    assert split.labels.dtype == np.int64
    assert split.counts.tolist() == [7, 5, 4] == np.bincount(split.labels).tolist()
    assert split.sizes.shape == (16, 2)
    assert split.describe(0).startswith("train/ant/")
    assert split.describe(15).startswith("train/cat/")


def test_a_name_that_cannot_be_read_becomes_the_directory(path):
    split = open_dataset(path).split("train")
    (path / "train.names.jsonl").write_text("not JSON\n")
    assert split.describe(0) == str(path)


def test_an_unknown_split_names_those_there_are(path):
    with pytest.raises(ConfigError, match="no split 'dev'; it has train, val, test"):
        open_dataset(path).split("dev")


def test_a_path_that_is_not_there_says_how_to_make_one(tmp_path):
    with pytest.raises(DataError, match="convert_dataset"):
        open_dataset(tmp_path / "nothing")


def test_a_folder_without_meta_is_no_dataset(tmp_path):
    with pytest.raises(DataError, match=r"no meta\.json"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', "{}", "[" * 200_000])
def test_a_damaged_meta_is_an_error_that_names_it(path, content):
    (path / "meta.json").write_text(content)
    with pytest.raises(DataError, match=r"meta\.json"):
        open_dataset(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": 99}, "layout 99"),
        ({"format": "zip"}, "'zip' is not known"),
        ({"classes": []}, "classes"),
        ({"splits": {"train": 3}}, "'train' is not an object"),
        ({"splits": {"train": {"images": 3}}}, "lacks 'images' or 'per_class'"),
        ({"splits": {"train": {"images": 3, "per_class": [3]}}}, "counts 1 of 3"),
        ({"name": None}, "'name'"),
        ({"splits": {"../train": {"images": 3, "per_class": [1, 1, 1]}}}, "no name of a split"),
    ],
)
def test_a_contradictory_meta_is_an_error(path, change, message):
    edit_meta(path, **change)
    with pytest.raises(DataError, match=message):
        open_dataset(path)


def test_a_meta_that_is_nested_as_deep_as_can_be_read_is_altered(path):
    meta = json.loads((path / "meta.json").read_text())
    deep = "[" * 900 + "]" * 900
    for depth in range(900, 1000, 10):
        deep = "[" * depth + "]" * depth
        (path / "meta.json").write_text(json.dumps(meta)[:-1] + f', "deep": {deep}}}')
        with pytest.raises(DataError, match=r"meta\.json: (it was altered|.*nested too deep)"):
            open_dataset(path)


@pytest.mark.parametrize("file", ["meta.json", "train.labels.npy", "train.names.jsonl"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(path, file):
    edit_meta(path)
    (path / file).unlink()
    os.mkfifo(path / file)
    with pytest.raises(DataError, match=file):
        open_dataset(path).split("train")


@pytest.mark.parametrize("entry", [[7, 5, 5], [5, 7, 4]])
def test_counts_that_do_not_match_the_labels_are_an_error(path, entry):
    meta = open_dataset(path).meta
    meta["splits"]["train"]["per_class"] = entry
    edit_meta(path, splits=meta["splits"])
    with pytest.raises(DataError, match=r"train\.labels\.npy .* contradicts"):
        open_dataset(path).split("train")


@pytest.mark.parametrize("file", ["train.labels.npy", "train.names.jsonl", "train.beton"])
def test_a_missing_file_is_an_error_that_names_it(path, file):
    (path / file).unlink()
    with pytest.raises(DataError, match=file):
        open_dataset(path).split("train")


def test_labels_beyond_the_classes_are_an_error(path):
    edit_meta(path)
    np.save(path / "train.labels.npy", np.full(16, 3))
    with pytest.raises(DataError, match="labels from 3 to 3 for 3 classes"):
        open_dataset(path).split("train")


def test_labels_of_another_type_are_an_error(path):
    edit_meta(path)
    np.save(path / "train.labels.npy", np.zeros(16, np.float64))
    with pytest.raises(DataError, match="holds float64"):
        open_dataset(path).split("train")


def test_images_of_another_conversion_are_an_error(path):
    edit_meta(path)
    (path / "test.beton").replace(path / "train.beton")
    with pytest.raises(DataError, match="stores 6 images for 16 labels"):
        open_dataset(path).split("train")
