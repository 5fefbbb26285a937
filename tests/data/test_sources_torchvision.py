import io
import json

import numpy as np
import pytest
from PIL import Image

from fastssd.data.convert import convert
from fastssd.data.dataset import open_dataset
from fastssd.data.sources.source import SourceOptions
from fastssd.data.sources.sources import open_source
from fastssd.errors import ConfigError, DataError


def jpeg(seed):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def food(tmp_path):
    """Food-101's published layout with two dishes."""
    base = tmp_path / "food-101"
    (base / "meta").mkdir(parents=True)
    parts = {"train": {}, "test": {}}
    for number, dish in enumerate(("pho", "pizza")):
        (base / "images" / dish).mkdir(parents=True)
        for i in range(4):
            (base / "images" / dish / f"{i}.jpg").write_bytes(jpeg(10 * number + i))
        parts["train"][dish] = [f"{dish}/{i}" for i in range(3)]
        parts["test"][dish] = [f"{dish}/3"]
    for split, content in parts.items():
        (base / "meta" / f"{split}.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def mnist(tmp_path):
    """MNIST's published idx files with a few images."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = {}
    for name, number in (("train", 20), ("t10k", 10)):
        pixels = np.random.default_rng(number).integers(0, 256, (number, 28, 28)).astype(np.uint8)
        shape = b"".join(n.to_bytes(4, "big") for n in pixels.shape)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + shape + pixels.tobytes())
        labels = np.arange(number, dtype=np.uint8) % 10
        head = b"\0\0\x08\x01" + number.to_bytes(4, "big")
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
        images[name] = pixels
    return tmp_path, images


def test_files_are_kept_as_they_are_with_torchvisions_labels_and_names(food):
    source = open_source("torchvision:Food101", options=SourceOptions(root=food))

    assert list(source.classes) == ["pho", "pizza"]
    assert source.splits["train"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.splits["test"].names[1] == "food-101/images/pizza/3.jpg"
    assert source.splits["train"].read(4) == jpeg(11)

    convert(source, food / "out", format="ffcv", jpeg="keep")
    assert open_dataset(food / "out").split("train").storage.read(4).data.tobytes() == jpeg(11)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("Caltech101", "caltech101/101_ObjectCategories/{}/image_{:04d}.jpg"),
        ("Caltech256", "caltech256/256_ObjectCategories/{}/{}_{:04d}.jpg"),
    ],
)
def test_torchvision_opens_no_image_itself(tmp_path, monkeypatch, name, place):
    classes = ["accordion", "yin_yang"] if name == "Caltech101" else ["001.ak47", "002.flag"]
    for label, each in enumerate(classes):
        for number in (1, 2):
            parts = (each, number) if name == "Caltech101" else (each, each[:3], number)
            file = tmp_path / place.format(*parts)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(jpeg(10 * label + number))
    if name == "Caltech101":
        (tmp_path / "caltech101/101_ObjectCategories/BACKGROUND_Google").mkdir()
        (tmp_path / "caltech101/Annotations").mkdir()

    def never(*arguments, **options):
        raise AssertionError("Pillow opened an image of any kind")

    monkeypatch.setattr(Image, "open", never)
    train = open_source(f"torchvision:{name}", options=SourceOptions(root=tmp_path)).splits["train"]

    assert train.labels.tolist() == [0, 0, 1, 1]
    assert [train.read(row) for row in range(4)] == [jpeg(seed) for seed in (1, 2, 11, 12)]


@pytest.mark.parametrize("content", ["[" * 100_000, "{", '{"pho": 3}'])
def test_a_damaged_list_is_no_missing_split(food, content):
    (food / "food-101/meta/test.json").write_text(content)

    with pytest.raises(DataError, match="torchvision:Food101: not found in"):
        open_source("torchvision:Food101", options=SourceOptions(root=food))


def test_a_file_that_is_gone_is_missing_by_name(food):
    (food / "food-101/images/pho/1.jpg").unlink()
    source = open_source("torchvision:Food101", options=SourceOptions(root=food))

    assert source.splits["train"].missing(np.arange(6)) == ["food-101/images/pho/1.jpg"]


def test_a_list_that_names_files_elsewhere_is_refused(food):
    (food / "food-101/meta/test.json").write_text(json.dumps({"pho": ["../../../pho/0"]}))
    with pytest.raises(DataError, match="lies outside of"):
        open_source("torchvision:Food101", options=SourceOptions(root=food))


def test_arrays_become_rgb_pixels(mnist):
    root, images = mnist
    source = open_source("torchvision:MNIST", options=SourceOptions(root=root))

    assert set(source.splits) == {"train", "test"}
    assert source.splits["train"].labels.tolist() == [*range(10), *range(10)]
    pixels = source.splits["test"].read(7)
    np.testing.assert_array_equal(pixels, np.repeat(images["t10k"][7][..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("text", "root", "error", "words"),
    [
        ("torchvision:food101", True, ConfigError, "did you mean torchvision:Food101"),
        ("torchvision:CIFAR10", True, ConfigError, "choose one of"),
        ("torchvision:Food101", False, ConfigError, "--root"),
        ("torchvision:Flowers102", True, DataError, "not found in"),
    ],
)
def test_what_is_wrong_is_said(food, text, root, error, words):
    with pytest.raises(error, match=words):
        open_source(text, options=SourceOptions(root=food if root else None))
