"""What makes two datasets one, and what tells them apart."""

import copy
import json

import pytest

from fastssd.data.identity import DatasetIdentity

META = {
    "layout": 1,
    "name": "pets",
    "format": "memory",
    "classes": ["cat", "dog", "eel"],
    "splits": {
        "train": {"images": 6, "per_class": [3, 2, 1]},
        "test": {"images": 3, "per_class": [1, 1, 1]},
    },
    "source": {"origin": "/here", "sha256": "12"},
    "conversion": {"seed": 0},
    "versions": {"numpy": "2"},
    "files": {
        f"{split}.{what}": {"bytes": 9, "xxh3_128": f"{split}{what}"}
        for split in ("train", "test")
        for what in ("images.npy", "labels.npy", "names.jsonl", "source_rows.npy")
    },
}


def changed(*path_and_value):
    *path, last, value = path_and_value
    meta = copy.deepcopy(META)
    place = meta
    for key in path:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return meta


@pytest.mark.parametrize(
    "meta",
    [
        META,
        changed("name", "animals"),
        changed("source", "origin", "/there"),
        changed("conversion", "verify", True),
        changed("versions", "numpy", "3"),
        changed("files", "train.names.jsonl", "xxh3_128", "x"),
        changed("files", "train.source_rows.npy", "xxh3_128", "x"),
    ],
)
def test_where_a_dataset_came_from_is_of_no_account(meta):
    one, other = DatasetIdentity.of(META), DatasetIdentity.of(meta)
    assert one == other
    assert one.digest == other.digest
    assert one.differences(other) == []


@pytest.mark.parametrize(
    ("meta", "told"),
    [
        (changed("files", "train.images.npy", "xxh3_128", "x"), "split 'train' has other images"),
        (changed("files", "test.labels.npy", "xxh3_128", "x"), "split 'test' has other images"),
        (changed("splits", "test", "images", 4), "split 'test' had 3 images, now 4"),
        (changed("splits", "test", None), "split 'test' is gone"),
        (changed("splits", "val", META["splits"]["test"]), "split 'val' is new"),
        (changed("classes", ["dog", "cat", "eel"]), "class 0 was 'cat', now 'dog'"),
        (changed("classes", ["cat", "dog"]), "the classes were 3, now 2"),
        (changed("format", "ffcv"), "the format was memory, now ffcv"),
    ],
)
def test_what_networks_see_otherwise_is_named(meta, told):
    one, other = DatasetIdentity.of(META), DatasetIdentity.of(meta)
    assert one.digest != other.digest
    assert told in "; ".join(one.differences(other))
    assert len(one.differences(other)) == 1


def test_a_dataset_of_an_early_version_is_known_by_its_source():
    early = changed("files", None)
    assert DatasetIdentity.of(early) == DatasetIdentity.of(copy.deepcopy(early))
    for key in ("source", "conversion"):
        other = {**early, key: {"sha256": "other"}}
        assert DatasetIdentity.of(early).differences(DatasetIdentity.of(other))


def test_an_identity_is_read_back_from_json():
    identity = DatasetIdentity.of(META)
    assert DatasetIdentity.from_json(json.loads(json.dumps(identity.to_json()))) == identity
