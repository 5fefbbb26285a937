import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_jpegs import flat_jpeg

from fastssd.data.convert import convert
from fastssd.data.dataset import open_dataset
from fastssd.data.decode.decoders import build_decoder
from fastssd.data.jpeg_rewrite import transcode
from fastssd.data.sources.sources import open_source
from fastssd.errors import ConfigError, DataError, FastssdError

FORMATS = ["memory", "ffcv"]


def files_of(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def whole(split, size=16):
    """Decode every image of a split, resized to a square."""
    images = [split.storage.read(sample) for sample in range(len(split))]
    boxes = np.array([[[0, 0, w, h]] for h, w in split.sizes], np.int64)
    return build_decoder().decode(images, boxes, size)[0]


@pytest.mark.parametrize("format", FORMATS)
def test_every_image_of_the_tree_is_in_the_dataset(tmp_path, tree, format):
    source = open_source(str(tree))

    convert(source, tmp_path / "out", format=format)

    dataset = open_dataset(tmp_path / "out")
    assert dataset.splits == ["train", "test"]
    for name in dataset.splits:
        split = dataset.split(name)
        rows = np.load(tmp_path / "out" / f"{name}.source_rows.npy")
        assert np.array_equal(rows, np.arange(len(source.splits[name].labels)))
        assert np.array_equal(split.labels, source.splits[name].labels)
        assert [split.describe(i) for i in rows] == source.splits[name].names


def test_kept_jpeg_files_are_byte_by_byte_in_the_ffcv_format_and_others_pixels(tmp_path, tree):
    convert(open_source(str(tree)), tmp_path / "out", format="ffcv", jpeg="keep")

    split = open_dataset(tmp_path / "out").split("train")
    for sample in range(len(split)):
        name, stored = split.describe(sample), split.storage.read(sample)
        if "/2." in name:  # the PNG
            assert stored.mode == "raw"
        else:
            assert stored.data.tobytes() == (tree / name).read_bytes()


def test_both_formats_decode_to_the_same_pixels(tmp_path, tree):
    pixels = []
    for format in FORMATS:
        convert(open_source(str(tree)), tmp_path / format, format=format, imbalance=2)
        split = open_dataset(tmp_path / format).split("train")
        pixels.append((whole(split), split.labels, split.sizes))
    for a, b in zip(*pixels, strict=True):
        assert np.array_equal(a, b)


def test_the_digits_in_memory_are_the_digits(tmp_path):
    source = open_source("digits")

    meta = convert(
        source, tmp_path / "out", imbalance=16, max_per_class=128, val_per_class=10, seed=0
    )

    assert meta["splits"]["train"]["per_class"] == [128, 94, 69, 50, 37, 27, 20, 14, 10, 8]
    assert meta["splits"]["val"]["per_class"] == [10] * 10
    assert meta["splits"]["test"]["per_class"] == [36] * 10
    dataset = open_dataset(tmp_path / "out")
    for name in ("train", "val", "test"):
        split = dataset.split(name)
        origin = source.splits[meta["splits"][name]["source_split"]]
        rows = np.load(tmp_path / "out" / f"{name}.source_rows.npy")
        assert np.array_equal(split.labels, origin.labels[rows])
        for sample, row in enumerate(rows):
            assert np.array_equal(split.storage.read(sample).data, origin.read(row))


def test_the_same_arguments_write_the_same_bytes_whatever_the_threads(tmp_path, tree):
    source = open_source(str(tree))
    for name, threads in (("a", 1), ("b", 5)):
        convert(
            source, tmp_path / name, format="ffcv", imbalance=2, val_per_class=1, threads=threads
        )
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_the_hash_of_the_source_is_of_what_was_read(tmp_path, tree, picture, encoded):
    def sha(name, **options):
        return convert(open_source(str(tree)), tmp_path / name, **options)["source"]["sha256"]

    first = sha("a")
    assert sha("b", format="ffcv") == first
    assert sha("c", imbalance=2) != first
    (tree / "train/bee/0.JPEG").write_bytes(encoded(picture(20, 30, seed=999)))
    assert sha("d") != first


def test_the_meta_says_how_it_was_made(tmp_path, tree):
    convert(open_source(str(tree)), tmp_path / "out", name="insects", imbalance=2, seed=4)

    meta = json.loads((tmp_path / "out/meta.json").read_text())
    assert meta["name"] == "insects"
    assert meta["source"]["origin"] == str(tree)
    assert meta["conversion"]["imbalance"] == 2
    assert meta["conversion"]["seed"] == 4
    assert meta["versions"]["numpy"] == np.__version__
    assert meta["rejected"] == []


def test_progress_counts_to_the_end_of_every_split(tmp_path, tree):
    calls = []
    convert(open_source(str(tree)), tmp_path / "out", progress=lambda *call: calls.append(call))
    assert calls == [
        *(("train", i, 19) for i in range(1, 20)),
        *(("test", i, 6) for i in range(1, 7)),
    ]


@pytest.mark.kernels
@pytest.mark.parametrize("format", ["ffcv", "webdataset"])
@pytest.mark.parametrize("how", [{}, {"jpeg": "restart"}, {"jpeg": "restart", "verify": True}])
def test_jpeg_files_are_rewritten_with_restart_markers_by_default(tmp_path, tree, format, how):
    meta = convert(open_source(str(tree)), tmp_path / "out", format=format, **how)

    split = open_dataset(tmp_path / "out").split("train")
    assert meta["conversion"]["jpeg"] == "restart"
    for sample in range(len(split)):
        name, stored = split.describe(sample), split.storage.read(sample)
        if "/2." in name:  # the PNG
            assert stored.mode == "raw"
            continue
        content = stored.data.tobytes()
        assert b"\xff\xdd\x00\x04" in content
        with Image.open(io.BytesIO(content)) as new, Image.open(tree / name) as old:
            assert np.array_equal(np.asarray(new), np.asarray(old))


def test_a_converted_dataset_converts_to_the_same_bytes_again(tmp_path, tree):
    convert(open_source(str(tree)), tmp_path / "a", format="ffcv")
    first = str(tmp_path / "a/train.beton")

    convert(open_source(first), tmp_path / "b", format="ffcv")

    assert (tmp_path / "b/train.beton").read_bytes() == (tmp_path / "a/train.beton").read_bytes()


@pytest.mark.parametrize("format", ["ffcv", "webdataset"])
def test_every_image_may_be_stored_as_pixels(tmp_path, tree, format):
    convert(open_source(str(tree)), tmp_path / "out", format=format, jpeg="raw")
    convert(open_source(str(tree)), tmp_path / "memory")

    raw, memory = (open_dataset(tmp_path / name).split("train") for name in ("out", "memory"))
    for sample in range(len(raw)):
        stored = raw.storage.read(sample)
        assert stored.mode == "raw"
        assert np.array_equal(stored.data, memory.storage.read(sample).data)


def test_without_the_kernels_jpeg_files_are_kept_and_it_is_said(tmp_path, tree, monkeypatch):
    for module in ("convert", "encode"):
        monkeypatch.setattr(f"fastssd.data.{module}.missing", lambda: "they were not built")
    said = []
    source = open_source(str(tree))

    meta = convert(source, tmp_path / "out", format="ffcv", say=said.append)

    assert meta["conversion"]["jpeg"] == "keep"
    assert len(said) == 1
    assert re.search("kept as they are.*they were not built; install a C compiler", said[0])
    with pytest.raises(ConfigError, match=r"--jpeg restart: they were not built; install"):
        convert(source, tmp_path / "b", format="ffcv", jpeg="restart")
    convert(source, tmp_path / "c", say=said.append)
    assert len(said) == 1  # pixels need no kernel


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jpeg": "restart"}, "--jpeg restart: the memory format holds pixels.*ffcv or webdataset"),
        ({"jpeg": "keep"}, "--jpeg keep: the memory format holds pixels"),
        ({"quality": 80}, "--quality is of images that are made smaller"),
        ({"jpeg": "png"}, "--jpeg png: choose one of restart, keep, raw"),
    ],
)
def test_contradictions_about_jpeg_files_are_told(tmp_path, tree, options, message):
    with pytest.raises(ConfigError, match=message):
        convert(open_source(str(tree)), tmp_path / "out", **options)


@pytest.mark.kernels
def test_a_rewriter_that_changes_pixels_stops_the_conversion_even_where_damage_is_skipped(
    tmp_path, tree, monkeypatch
):
    def wrong(files, *, rewrite):
        made = transcode(files, rewrite=rewrite)
        return [dataclasses.replace(one, content=made[0].content) for one in made]

    monkeypatch.setattr("fastssd.data.encode.transcode", wrong)
    with pytest.raises(FastssdError, match=r"train/.*JPEG: .*other pixels.*--jpeg keep") as error:
        convert(
            open_source(str(tree)),
            tmp_path / "out",
            format="ffcv",
            verify=True,
            on_error="skip",
        )
    assert error.value.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_image_stops_the_conversion_and_nothing_is_left(tmp_path, tree, format):
    file = tree / "train/bee/3.JPEG"
    file.write_bytes(file.read_bytes()[:-40])

    with pytest.raises(
        DataError, match=r"train/bee/3\.JPEG .*(Premature end|truncated).*--on-error skip"
    ):
        convert(open_source(str(tree)), tmp_path / "out", format=format)

    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.kernels
@pytest.mark.parametrize("verify", [False, True])
def test_a_jpeg_that_no_decoder_takes_is_skipped_too(tmp_path, tree, verify):
    (tree / "train/ant/0.JPEG").write_bytes(flat_jpeg([0x31, 0x21, 0x11], size=(40, 60)))
    options = {"format": "ffcv", "verify": verify}

    with pytest.raises(DataError, match=r"train/ant/0\.JPEG .*fraction.*--on-error skip"):
        convert(open_source(str(tree)), tmp_path / "out", **options)
    meta = convert(open_source(str(tree)), tmp_path / "out", on_error="skip", **options)

    assert [reject["name"] for reject in meta["rejected"]] == ["train/ant/0.JPEG"]
    assert whole(open_dataset(tmp_path / "out").split("train")).shape[0] == 18


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_images_are_skipped_and_listed(tmp_path, tree, format):
    file = tree / "train/bee/3.JPEG"
    file.write_bytes(file.read_bytes()[:-40])
    (tree / "train/ant/0.JPEG").write_text("hello")
    (tree / "test/cat/1.JPEG").write_bytes(b"")

    meta = convert(open_source(str(tree)), tmp_path / "out", format=format, on_error="skip")

    dataset = open_dataset(tmp_path / "out")
    train = dataset.split("train")
    assert meta["splits"]["train"]["per_class"] == train.counts.tolist() == [7, 5, 5]
    names = [train.describe(sample) for sample in range(len(train))]
    assert "train/bee/3.JPEG" not in names
    assert names[7] == "train/bee/0.JPEG"
    rows = np.load(tmp_path / "out/train.source_rows.npy")
    assert rows.tolist() == [row for row in range(19) if row not in (0, 11)]
    assert whole(train).shape[0] == 17
    rejects = [
        json.loads(line) for line in (tmp_path / "out/rejects.jsonl").read_text().splitlines()
    ]
    assert rejects == meta["rejected"]
    assert [(r["split"], r["name"]) for r in rejects] == [
        ("train", "train/ant/0.JPEG"),
        ("train", "train/bee/3.JPEG"),
        ("test", "test/cat/1.JPEG"),
    ]
    assert all(r["reason"] for r in rejects)


def test_a_file_that_vanishes_is_a_damaged_image(tmp_path, tree):
    source = open_source(str(tree))
    (tree / "train/ant/0.JPEG").unlink()
    with pytest.raises(DataError, match=r"train/ant/0\.JPEG .*No such file"):
        convert(source, tmp_path / "out")


def test_a_class_that_loses_all_its_images_is_named(tmp_path, tree):
    for file in (tree / "train/cat").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"after 5 damaged images.*'cat'"):
        convert(open_source(str(tree)), tmp_path / "out", on_error="skip")
    assert not (tmp_path / "out").exists()


def test_an_image_that_the_format_cannot_hold_is_named(tmp_path, tree, encoded):
    strip = np.zeros((1, 65_536, 3), np.uint8)
    (tree / "train/ant/0.JPEG").write_bytes(encoded(strip, "PNG"))
    with pytest.raises(DataError, match=r"train/ant/0\.JPEG .*65536 x 1 pixels exceed"):
        convert(open_source(str(tree)), tmp_path / "out", format="ffcv")


def test_an_interruption_leaves_nothing(tmp_path, tree):
    def interrupt(split, done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(open_source(str(tree)), tmp_path / "out", progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_existing_directory_is_refused_before_any_image_is_read(tmp_path, tree):
    (tmp_path / "out").mkdir()
    calls = []
    with pytest.raises(ConfigError, match="--overwrite"):
        convert(open_source(str(tree)), tmp_path / "out", progress=lambda *c: calls.append(c))
    assert not calls


@pytest.mark.parametrize(
    ("option", "value"), [("format", "zip"), ("imbalance_type", "linear"), ("on_error", "ignore")]
)
def test_an_unknown_choice_names_the_choices(tmp_path, tree, option, value):
    with pytest.raises(ConfigError, match=f"{value}: choose one of"):
        convert(open_source(str(tree)), tmp_path / "out", **{option: value})


def test_a_full_disk_leaves_nothing(tmp_path, tree, monkeypatch):
    def full(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        convert(open_source(str(tree)), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
