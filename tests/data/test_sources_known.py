"""Datasets by their usual names, on made lists with the published counts."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fastssd.data.sources.known import LISTS, Expected, find_known
from fastssd.data.sources.source import SourceOptions
from fastssd.data.sources.sources import open_source
from fastssd.errors import ConfigError, DataError


def counts_of(classes, total, largest, smallest):
    """Any counts per class with these properties."""
    counts = np.full(classes, smallest)
    counts[0] = largest
    left = total - counts.sum()
    for label in range(1, classes - 1):
        more = min(left, largest - smallest)
        counts[label] += more
        left -= more
    assert counts.sum() == total
    return counts


def write_list(path, folder, counts, shift=0):
    with path.open("w") as file:
        for label, count in enumerate(counts):
            lines = (f"{folder}/c{label}/{label}-{shift + i}.jpg {label}\n" for i in range(count))
            file.writelines(lines)


def make(name, root):
    """The lists of a dataset by name, with the right counts and empty image folders."""
    root.mkdir(parents=True, exist_ok=True)
    known = LISTS[name]
    expected = known.expected
    for split, file in known.lists.items():
        total = expected.images[split]
        folder = "val" if split == "test" else "train"
        if split == "train":
            counts = counts_of(expected.classes, total, expected.largest, expected.smallest)
        else:
            counts = np.full(expected.classes, total // expected.classes)
        write_list(root / file, folder, counts, shift=100_000 if split == "val" else 0)
        (root / folder).mkdir(exist_ok=True)
    return root


@pytest.mark.parametrize(
    ("text", "key", "imbalance"),
    [
        ("cifar10", "cifar10", None),
        ("CIFAR100", "cifar100", None),
        ("cifar100_lt_100", "cifar100", 100),
        ("CIFAR10-LT-50", "cifar10", 50),
        ("cifar100_ir10", "cifar100", 10),
        ("ImageNet-LT", "imagenet_lt", None),
        ("imagenetlt", "imagenet_lt", None),
        ("Places_LT", "places_lt", None),
        ("iNat18", "inat18", None),
        ("inaturalist2018", "inat18", None),
    ],
)
def test_usual_names_are_known(text, key, imbalance):
    assert (find_known(text).key, find_known(text).imbalance) == (key, imbalance)


@pytest.mark.parametrize("text", ["cifar", "cifar100_lt_0", "imagenet", "cifar1000_lt_10", "x/y"])
def test_other_names_are_not(text):
    assert find_known(text) is None


@pytest.mark.parametrize("name", ["imagenet_lt", "places_lt"])
def test_lists_with_the_published_counts_are_taken_and_compared(tmp_path, name):
    source = open_source(name, options=SourceOptions(root=make(name, tmp_path)))

    expected = LISTS[name].expected
    assert {split: len(part.labels) for split, part in source.splits.items()} == expected.images
    assert len(source.classes) == expected.classes
    assert (source.name, source.origin) == (name, name)
    remarks = [note for note in source.notes if "git blob" in note]
    assert len(remarks) == len(expected.images)  # made lists are not the published files


def test_a_list_that_was_cut_short_names_every_count_that_is_wrong(tmp_path):
    root = make("places_lt", tmp_path)
    text = (root / "Places_LT_train.txt").read_text().splitlines()
    (root / "Places_LT_train.txt").write_text("\n".join(text[:-1]))
    with pytest.raises(
        DataError,
        match=r"places_lt.*62,499 train images for 62,500; 4 images in the smallest class for 5",
    ):
        open_source("places_lt", options=SourceOptions(root=root))


def test_missing_lists_are_listed_with_where_they_were_looked_for(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "ImageNet_LT_val.txt").touch()
    with pytest.raises(DataError) as error:
        open_source("imagenet_lt", options=SourceOptions(root=tmp_path))
    message = str(error.value)
    assert "missing are ImageNet_LT_train.txt, ImageNet_LT_test.txt, looked for" in message
    assert "classifier-balancing" in message
    assert "--lists DIR" in message


def test_lists_may_lie_in_a_folder_of_their_own(tmp_path):
    make("places_lt", tmp_path / "lists")
    images = tmp_path / "images"
    (images / "train").mkdir(parents=True)
    options = SourceOptions(root=images, lists=tmp_path / "lists")

    with pytest.raises(DataError, match=r"lacks the folders val .*places365standard_easyformat"):
        open_source("places_lt", options=options)
    (images / "val").mkdir()
    assert open_source("places_lt", options=options).splits["train"].root == images


def test_imagenets_validation_folder_may_be_flat(tmp_path):
    root = make("imagenet_lt", tmp_path)
    (root / "val/0-0.jpg").touch()
    test = open_source("imagenet_lt", options=SourceOptions(root=root)).splits["test"]
    assert test.names[0] == "val/0-0.jpg"


def test_without_a_root_the_files_that_are_wanted_are_listed():
    with pytest.raises(ConfigError, match=r"--root.*Places_LT_train\.txt.*places365standard"):
        open_source("places_lt")


def test_inat18_is_made_of_its_json_files_too(tmp_path, monkeypatch):
    # A fiftieth of it: writing and reading half a million records takes seconds.
    expected = Expected(classes=163, images={"train": 8_750, "test": 489}, largest=1000, smallest=2)
    monkeypatch.setitem(LISTS, "inat18", replace(LISTS["inat18"], expected=expected))
    for file, total in (("train2018.json", 8_750), ("val2018.json", 489)):
        counts = counts_of(163, total, 1000, 2) if file.startswith("train") else np.full(163, 3)
        labels = np.repeat(np.arange(163), counts).tolist()
        images = [{"id": i, "file_name": f"{file}/{i}.jpg"} for i in range(total)]
        notes = [{"image_id": i, "category_id": label} for i, label in enumerate(labels)]
        categories = [{"id": i, "name": f"n{i}"} for i in range(163)]
        content = {"images": images, "annotations": notes, "categories": categories}
        (tmp_path / file).write_text(json.dumps(content))

    source = open_source("inat18", options=SourceOptions(root=tmp_path))

    assert {name: len(split.labels) for name, split in source.splits.items()} == expected.images
    assert source.classes[:2] == ["n0", "n1"]
