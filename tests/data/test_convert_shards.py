import json
import os
import shutil

import numpy as np
import pytest

from fastssd.data.convert import convert
from fastssd.data.dataset import open_dataset
from fastssd.data.merge import merge
from fastssd.data.shards import SHARD_FILE, Shard, parse_shard
from fastssd.data.sources.source import SourceOptions
from fastssd.data.sources.sources import open_source
from fastssd.data.storage.formats import STORAGES
from fastssd.errors import ConfigError, DataError

FORMATS = list(STORAGES)


def files_of(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def shard_all(tree, out, count, **options):
    for index in range(1, count + 1):
        convert(open_source(str(tree)), out, shard=Shard(index, count), **options)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("count", [1, 3, 30])  # 30: more shards than images, so some hold nothing
def test_merged_shards_are_the_unsharded_conversion_byte_by_byte(tmp_path, tree, format, count):
    options = {"format": format, "imbalance": 2, "val_per_class": 1, "seed": 3}
    convert(open_source(str(tree)), tmp_path / "whole", **options)

    shard_all(tree, tmp_path / "out", count, **options)
    meta = merge(tmp_path / "out")

    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert meta == json.loads((tmp_path / "whole/meta.json").read_text())


@pytest.mark.parametrize("format", FORMATS)
def test_images_of_one_size_and_turned_ones_merge_as_they_convert(
    tmp_path, picture, encoded, format
):
    # Each class is of one size, so that a shard's layout in memory is not that of the whole.
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / "source" / name).mkdir(parents=True)
        for i in range(6):
            # Exif with an orientation of 6 for one image.
            exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
            content = encoded(picture(12 + label, 20, i), **({"exif": exif} if i == 4 else {}))
            (tmp_path / "source" / name / f"{i}.jpg").write_bytes(content)
    convert(open_source(str(tmp_path / "source")), tmp_path / "whole", format=format)

    shard_all(tmp_path / "source", tmp_path / "out", 4, format=format)
    meta = merge(tmp_path / "out")

    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert meta["splits"]["train"]["turned"] == (0 if format == "memory" else 2)


def test_the_long_tail_is_chosen_before_the_shards(tmp_path, tree):
    options = {"imbalance": 4, "max_per_class": 8, "seed": 5}
    whole = convert(open_source(str(tree)), tmp_path / "whole", **options)
    shard_all(tree, tmp_path / "out", 2, **options)

    halves = [
        json.loads((tmp_path / f"out.shard-{i}-of-2" / SHARD_FILE).read_text()) for i in (1, 2)
    ]
    counts = np.sum([half["splits"]["train"]["per_class"] for half in halves], axis=0)
    rows = np.concatenate(
        [np.load(tmp_path / f"out.shard-{i}-of-2/train.source_rows.npy") for i in (1, 2)]
    )

    assert counts.tolist() == whole["splits"]["train"]["per_class"] == [8, 4, 2]
    assert np.array_equal(rows, np.load(tmp_path / "whole/train.source_rows.npy"))


def test_images_left_out_are_those_of_the_unsharded_conversion(tmp_path, tree):
    (tree / "train/bee/3.JPEG").write_bytes(b"")
    (tree / "train/ant/0.JPEG").write_text("hello")
    (tree / "test/ant/1.JPEG").write_bytes(b"")
    convert(open_source(str(tree)), tmp_path / "whole", on_error="skip")

    shard_all(tree, tmp_path / "out", 3, on_error="skip")
    merge(tmp_path / "out")

    assert len((tmp_path / "out/rejects.jsonl").read_text().splitlines()) == 3
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_class_that_all_shards_together_lost_is_named(tmp_path, tree):
    for file in (tree / "train/cat").iterdir():
        file.write_bytes(b"")
    shard_all(tree, tmp_path / "out", 2, on_error="skip")
    with pytest.raises(DataError, match=r"after 5 damaged images.*'cat'"):
        merge(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_shard_does_not_open_as_a_dataset(tmp_path, tree):
    shard_all(tree, tmp_path / "out", 1)
    with pytest.raises(DataError, match=r"no meta\.json"):
        open_dataset(tmp_path / "out.shard-1-of-1")


def test_shards_may_lie_anywhere_and_be_named_in_any_order(tmp_path, tree):
    convert(open_source(str(tree)), tmp_path / "whole")
    shard_all(tree, tmp_path / "out", 2)
    shutil.move(tmp_path / "out.shard-1-of-2", tmp_path / "first")
    shutil.move(tmp_path / "out.shard-2-of-2", tmp_path / "second")

    merge(tmp_path / "out", [tmp_path / "second", tmp_path / "first"])

    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_finished_shard_is_kept_and_others_are_still_made(tmp_path, tree):
    shard_all(tree, tmp_path / "out", 2)
    before = (tmp_path / "out.shard-1-of-2" / SHARD_FILE).stat().st_mtime_ns
    shutil.rmtree(tmp_path / "out.shard-2-of-2")
    said, calls = [], []
    for index in (1, 2):
        convert(
            open_source(str(tree)),
            tmp_path / "out",
            shard=Shard(index, 2),
            say=said.append,
            progress=lambda *call: calls.append(call),
        )

    assert len(said) == 1
    assert "out.shard-1-of-2 is finished already" in said[0]
    assert (tmp_path / "out.shard-1-of-2" / SHARD_FILE).stat().st_mtime_ns == before
    assert sum(split == "train" for split, _, _ in calls) == 10  # of 19: the second half
    merge(tmp_path / "out")


def test_a_finished_shard_of_other_arguments_is_refused_and_replaced_on_demand(tmp_path, tree):
    source = open_source(str(tree))
    convert(source, tmp_path / "out", shard=Shard(1, 2))
    with pytest.raises(ConfigError, match=r"shard-1-of-2 exists.*another format.*--overwrite"):
        convert(source, tmp_path / "out", shard=Shard(1, 2), format="ffcv")

    convert(source, tmp_path / "out", shard=Shard(1, 2), format="ffcv", overwrite=True)

    assert (tmp_path / "out.shard-1-of-2/train.beton").exists()


def change_label(tree):
    (tree / "train/ant/7.JPEG").rename(tree / "train/bee/7.JPEG")


def add_image(tree):
    shutil.copy(tree / "train/ant/7.JPEG", tree / "train/ant/8.JPEG")


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({"seed": 1}, None, "another conversion setting seed: 0 and 1"),
        ({"format": "ffcv"}, None, "another format: 'memory' and 'ffcv'"),
        ({"short_side": 9}, None, "another conversion setting short_side: None and 9"),
        ({"max_side": 9}, None, "another conversion setting max_side: None and 9"),
        ({"name": "bugs"}, None, "another name: 'source' and 'bugs'"),
        ({}, change_label, "another source"),
        ({}, add_image, "another source"),
    ],
)
def test_a_shard_of_another_conversion_is_refused_and_named(
    tmp_path, tree, options, change, message
):
    convert(open_source(str(tree)), tmp_path / "out", shard=Shard(1, 2))
    if change:
        change(tree)
    convert(open_source(str(tree)), tmp_path / "out", shard=Shard(2, 2), **options)

    with pytest.raises(DataError, match="shard-2-of-2 is not of the same conversion") as caught:
        merge(tmp_path / "out")

    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_shard_of_the_same_images_with_other_labels_is_refused(tmp_path, tree):
    lines = [
        f"train/{name}/{i}.JPEG {k}" for k, name in enumerate(("ant", "bee")) for i in range(4)
    ]
    (tmp_path / "names").write_text("ant\nbee\n")
    for index in (1, 2):
        (tmp_path / "a.txt").write_text("\n".join(lines))
        options = SourceOptions(root=tree, classes=tmp_path / "names")
        source = open_source(str(tmp_path / "a.txt"), options=options)
        convert(source, tmp_path / "out", shard=Shard(index, 2))
        lines[-1] = lines[-1].replace(" 1", " 0")
    with pytest.raises(DataError, match=r"shard-2-of-2 is not .*another source"):
        merge(tmp_path / "out")


def test_a_missing_shard_is_named(tmp_path, tree):
    shard_all(tree, tmp_path / "out", 4)
    shutil.rmtree(tmp_path / "out.shard-2-of-4")
    shutil.rmtree(tmp_path / "out.shard-4-of-4")
    with pytest.raises(DataError, match=r"shard 2, 4 of 4 is missing .*--shard 2/4"):
        merge(tmp_path / "out")


def test_shards_of_two_divisions_do_not_mix(tmp_path, tree):
    shard_all(tree, tmp_path / "out", 2)
    convert(open_source(str(tree)), tmp_path / "out", shard=Shard(1, 3))
    with pytest.raises(DataError, match=r"shard-1-of-3 is not of .*number of shards: 2 and 3"):
        merge(tmp_path / "out")


def test_a_shard_given_twice_is_refused(tmp_path, tree):
    shard_all(tree, tmp_path / "out", 2)
    first = tmp_path / "out.shard-1-of-2"
    with pytest.raises(DataError, match="both shard 1 of 2"):
        merge(tmp_path / "out", [first, first])


def test_no_shards_at_all_are_a_mistake_of_the_user(tmp_path):
    with pytest.raises(ConfigError, match="no shards beside"):
        merge(tmp_path / "out")


def damaged_manifest(shard):
    (shard / SHARD_FILE).write_text('{"shard": {"index": 1, "count": 2}}')


def counts_that_do_not_fit(shard):
    meta = json.loads((shard / SHARD_FILE).read_text())
    meta["splits"]["train"]["images"] -= 1
    (shard / SHARD_FILE).write_text(json.dumps(meta))


def short_pixels(shard):
    os.truncate(shard / "train.pixels.bin", 500)


def lost_names(shard):
    (shard / "train.names.jsonl").write_text('"a"\n')


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (lambda shard: (shard / SHARD_FILE).unlink(), "shard-1-of-2: not a finished shard"),
        (damaged_manifest, "shard.json: damaged"),
        (counts_that_do_not_fit, "shard.json: damaged"),
        (short_pixels, "train.pixels.bin"),
        (lost_names, "train.names.jsonl"),
        (lambda shard: (shard / "train.digests.npy").write_bytes(b""), "train.digests.npy"),
    ],
)
def test_a_damaged_shard_is_named_and_nothing_is_written(tmp_path, tree, damage, file):
    shard_all(tree, tmp_path / "out", 2)
    damage(tmp_path / "out.shard-1-of-2")
    before = sorted(path.name for path in tmp_path.iterdir())

    with pytest.raises(DataError, match=file):
        merge(tmp_path / "out")

    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_may_differ_between_machines_is_said(tmp_path, tree):
    shard_all(tree, tmp_path / "out", 2)
    file = tmp_path / "out.shard-2-of-2" / SHARD_FILE
    meta = json.loads(file.read_text())
    meta["versions"]["pillow"] = "1.0"
    file.write_text(json.dumps(meta))
    said = []

    merged = merge(tmp_path / "out", say=said.append)

    assert len(said) == 1
    assert "shard-2-of-2 has 1.0 for versions pillow" in said[0]
    assert merged["versions"]["pillow"] != "1.0"


def test_shards_cover_every_row_once():
    for count in (1, 2, 3, 7):
        for num_rows in (0, 1, 5, 19):
            spans = [Shard(i, count).span(num_rows) for i in range(1, count + 1)]
            assert [row for span in spans for row in range(*span)] == list(range(num_rows))
            sizes = [end - start for start, end in spans]
            assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", "1/٢"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(ValueError, match="not I/N"):
        parse_shard(text)
