"""Sources that list files: text lists, CSV, iNaturalist's JSON."""

import json

import numpy as np
import pytest

from fastssd.data.convert import convert
from fastssd.data.dataset import open_dataset
from fastssd.data.sources.source import SourceOptions
from fastssd.data.sources.sources import open_source
from fastssd.errors import ConfigError, DataError


@pytest.fixture
def images(tmp_path, picture, encoded):
    """Six images in two class folders, one with a blank and one with a letter outside ASCII."""
    names = ["x/ant/0.jpg", "x/ant/a b.jpg", "x/ant/2.jpg", "x/bee/0.jpg", "x/bee/é.jpg", "y/0.jpg"]
    for seed, name in enumerate(names):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(encoded(picture(9, 9, seed=seed)))
    return tmp_path / "images"


LINES = "x/ant/0.jpg 0\nx/ant/a b.jpg 0\n\nx/bee/0.jpg\t1\nx/bee/é.jpg 1\n"


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_list_with_its_siblings_becomes_the_files_in_its_order(tmp_path, images):
    origin = write(tmp_path / "a_train.txt", LINES)
    write(tmp_path / "a_val.txt", "y/0.jpg 1")
    write(tmp_path / "a_test.txt", "﻿x/ant/2.jpg 0\r\n")

    source = open_source(origin, options=SourceOptions(root=images))

    assert source.classes == ["ant", "bee"]
    assert {name: split.labels.tolist() for name, split in source.splits.items()} == {
        "train": [0, 0, 1, 1],
        "val": [1],
        "test": [0],
    }
    train = source.splits["train"]
    assert train.names == ["x/ant/0.jpg", "x/ant/a b.jpg", "x/bee/0.jpg", "x/bee/é.jpg"]
    assert train.read(3) == (images / "x/bee/é.jpg").read_bytes()
    assert "a_val.txt is taken as the val split" in " ".join(source.notes)


def test_named_parts_replace_the_siblings(tmp_path, images):
    origin = write(tmp_path / "a_train.txt", LINES)
    write(tmp_path / "a_val.txt", "y/0.jpg 1")
    other = write(tmp_path / "other.txt", "x/ant/2.jpg 0")

    source = open_source(origin, options=SourceOptions(root=images, test=other))

    assert list(source.splits) == ["train", "test"]
    assert source.splits["test"].names == ["x/ant/2.jpg"]


def test_a_folder_with_one_training_list_is_that_list_and_its_root(images):
    write(images / "z_train.txt", LINES)
    source = open_source(str(images))
    assert (source.kind, source.name) == ("list", "z_train")
    assert source.splits["train"].read(0) == (images / "x/ant/0.jpg").read_bytes()


def test_absolute_paths_stay_as_they_are(tmp_path, images):
    origin = write(tmp_path / "a.txt", f"{images}/x/ant/0.jpg 0\n{images}/x/bee/0.jpg 1\n")
    train = open_source(origin).splits["train"]
    assert train.missing(np.arange(2)) == []
    assert train.read(1) == (images / "x/bee/0.jpg").read_bytes()


def test_file_names_that_are_not_utf_8_reach_the_file_system(tmp_path, images, picture, encoded):
    name = b"x/ant/\xff\xfe.jpg".decode("utf-8", "surrogateescape")
    (images / name).write_bytes(encoded(picture(9, 9)))
    (tmp_path / "a.txt").write_bytes(b"x/ant/\xff\xfe.jpg 0\nx/bee/0.jpg 1\n")

    convert(
        open_source(str(tmp_path / "a.txt"), options=SourceOptions(root=images)), tmp_path / "o"
    )

    assert open_dataset(tmp_path / "o").split("train").describe(0) == name


def test_classes_are_called_after_their_numbers_where_folders_say_nothing(tmp_path, images):
    lines = "x/ant/0.jpg 0\nx/ant/2.jpg 1\n"
    source = open_source(write(tmp_path / "a.txt", lines), options=SourceOptions(root=images))
    assert source.classes == ["0", "1"]

    names = tmp_path / "names"
    write(names, "first\nsecond\n")
    options = SourceOptions(root=images, classes=names)
    assert open_source(str(tmp_path / "a.txt"), options=options).classes == ["first", "second"]


def test_labels_that_are_names_are_sorted_into_classes(tmp_path, images):
    lines = "x/bee/0.jpg bee\nx/ant/0.jpg ant\n"
    source = open_source(write(tmp_path / "a.txt", lines), options=SourceOptions(root=images))
    assert (source.classes, source.splits["train"].labels.tolist()) == (["ant", "bee"], [1, 0])


def test_an_image_listed_twice_is_kept_once_and_said(tmp_path, images):
    origin = write(tmp_path / "a_train.txt", LINES + "x/ant/0.jpg 0\n")
    write(tmp_path / "a_test.txt", "x/ant/0.jpg 0\n")

    source = open_source(origin, options=SourceOptions(root=images))

    assert len(source.splits["train"].labels) == 4
    notes = " ".join(source.notes)
    assert "1 images are listed more than once" in notes
    assert "line 6" in notes
    assert "1 images are in train and in test, such as x/ant/0.jpg" in notes


def test_missing_files_are_found_before_any_is_read(tmp_path, images):
    origin = write(tmp_path / "a.txt", LINES + "x/bee/gone.jpg 1\nnowhere/1.jpg 0\n")
    source = open_source(origin, options=SourceOptions(root=images))
    calls = []

    with pytest.raises(DataError, match=r"2 of 6 files.*x/bee/gone\.jpg, nowhere/1\.jpg"):
        convert(source, tmp_path / "out", progress=lambda *call: calls.append(call))

    assert not calls
    meta = convert(source, tmp_path / "out", on_error="skip")
    assert [reject["name"] for reject in meta["rejected"]] == ["x/bee/gone.jpg", "nowhere/1.jpg"]


def test_a_csv_file_with_splits_in_a_column(tmp_path, images):
    rows = [
        "id,Label,path,split",
        "0,ant,x/ant/0.jpg,train",
        "1,bee,x/bee/0.jpg,training",
        '2,bee,"x/ant/a b.jpg",valid',
        "3,ant,x/ant/2.jpg,TEST",
    ]
    source = open_source(
        write(tmp_path / "a.csv", "\n".join(rows)), options=SourceOptions(root=images)
    )

    assert {name: split.names for name, split in source.splits.items()} == {
        "train": ["x/ant/0.jpg", "x/bee/0.jpg"],
        "val": ["x/ant/a b.jpg"],
        "test": ["x/ant/2.jpg"],
    }
    assert source.splits["val"].labels.tolist() == [1]


def test_columns_of_other_names_are_named(tmp_path, images):
    origin = write(tmp_path / "train.csv", "where,what\nx/ant/0.jpg,ant\nx/bee/0.jpg,bee\n")
    write(tmp_path / "test.csv", "where,what\nx/ant/2.jpg,bee\n")
    with pytest.raises(ConfigError, match=r"where, what.*--image-column"):
        open_source(origin)

    options = SourceOptions(root=images, image_column="where", label_column="what")
    source = open_source(origin, options=options)

    assert source.splits["test"].labels.tolist() == [1]


def annotations(names, categories, classes=(3, 7)):
    return {
        "images": [{"id": 10 + i, "file_name": name} for i, name in enumerate(names)],
        # In another order than the images, as COCO's form allows.
        "annotations": [
            {"id": i, "image_id": 10 + i, "category_id": categories[i]}
            for i in reversed(range(len(names)))
        ],
        "categories": [{"id": number, "name": f"species {number}"} for number in classes],
    }


def test_inaturalist_files_are_joined_by_number_and_val_is_the_test_split(images):
    train = annotations(["x/bee/0.jpg", "x/ant/0.jpg"], [7, 3])
    write(images / "train2018.json", json.dumps(train))
    write(images / "val2018.json", json.dumps(annotations(["y/0.jpg"], [7])))

    source = open_source(str(images))

    assert source.kind == "inat"
    assert source.classes == ["species 3", "species 7"]
    assert source.splits["train"].names == ["x/bee/0.jpg", "x/ant/0.jpg"]
    assert source.splits["train"].labels.tolist() == [1, 0]
    assert list(source.splits) == ["train", "test"]
    assert "val2018.json is taken as the test split" in " ".join(source.notes)
