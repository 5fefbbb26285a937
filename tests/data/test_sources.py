import numpy as np
import pytest
from sklearn.datasets import load_digits

from fastssd.data.sources.image_folder import open_image_folder
from fastssd.data.sources.sources import open_source
from fastssd.errors import ConfigError, DataError


def test_the_digits_are_those_of_scikit_learn_with_the_last_36_of_each_class_for_test():
    source = open_source("digits")
    images, labels = load_digits().images, load_digits().target

    train, test = source.splits["train"], source.splits["test"]

    assert (len(train.labels), len(test.labels)) == (1797 - 360, 360)
    assert np.bincount(test.labels).tolist() == [36] * 10
    for split in (train, test):
        rows = [int(name[len("digits[") : -1]) for name in split.names]
        assert np.array_equal(split.labels, labels[rows])
        grey = np.array([split.read(i)[..., 0] for i in range(len(rows))])
        assert np.abs(grey - images[rows] * 255 / 16).max() <= 0.5
        assert (grey.min(), grey.max()) == (0, 255)
    for label in range(10):
        last_trained = train.names[np.flatnonzero(train.labels == label)[-1]]
        first_tested = test.names[np.flatnonzero(test.labels == label)[0]]
        assert int(last_trained[7:-1]) < int(first_tested[7:-1])


def test_a_digit_is_grey_rgb():
    pixels = open_source("digits").splits["train"].read(0)
    assert pixels.shape == (8, 8, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == pixels[..., :1]).all()


def test_a_tree_with_splits_is_listed_by_class_and_name(tree):
    source = open_source(str(tree))

    assert source.classes == ["ant", "bee", "cat"]
    assert list(source.splits) == ["train", "test"]
    train = source.splits["train"]
    assert np.bincount(train.labels).tolist() == [8, 6, 5]
    assert train.names[:2] == ["train/ant/0.JPEG", "train/ant/1.JPEG"]
    assert train.read(9) == (tree / "train/bee/1.JPEG").read_bytes()
    assert not source.notes


def test_a_tree_of_class_folders_is_one_training_split(tree):
    source = open_image_folder(str(tree / "train"))
    assert list(source.splits) == ["train"]
    assert len(source.splits["train"].labels) == 19


def test_images_in_folders_within_a_class_and_behind_links_are_found(tree):
    (tree / "train/ant/more").mkdir()
    (tree / "train/ant/0.JPEG").rename(tree / "train/ant/more/0.jpg")
    (tree / "train/dog").symlink_to(tree / "train/cat")

    train = open_image_folder(str(tree)).splits["train"]

    assert np.bincount(train.labels).tolist() == [8, 6, 5, 5]
    assert "train/ant/more/0.jpg" in train.names


def test_what_is_left_aside_is_noted(tree):
    (tree / "extra").mkdir()
    (tree / ".cache").mkdir()
    (tree / "train/ant/readme.txt").write_text("hello")

    notes = " ".join(open_image_folder(str(tree)).notes)

    assert "extra" in notes
    assert "1 files" in notes
    assert "cache" not in notes


def test_a_test_class_without_training_folder_is_refused(tree):
    (tree / "test/yak").mkdir()
    with pytest.raises(DataError, match="yak are not among the training classes"):
        open_image_folder(str(tree))


def test_a_tree_with_a_test_split_alone_is_refused(tree):
    (tree / "train").rename(tree / "training")
    with pytest.raises(ConfigError, match="has test but no train"):
        open_image_folder(str(tree))


def test_a_folder_without_classes_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(ConfigError, match="holds no folders"):
        open_image_folder(str(tmp_path))


def test_a_source_that_is_neither_a_name_nor_a_folder_names_the_sources():
    with pytest.raises(ConfigError, match=r"neither a folder.*digits"):
        open_source("digitz")
