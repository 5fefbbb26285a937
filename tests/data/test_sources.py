import numpy as np
import pytest
from sklearn.datasets import load_digits

from fastssd.data.sources.source import SourceOptions
from fastssd.data.sources.sources import find_kind, open_source
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
    source = open_source(str(tree / "train"))
    assert list(source.splits) == ["train"]
    assert len(source.splits["train"].labels) == 19


def test_a_test_class_without_training_folder_is_refused(tree):
    (tree / "test/yak").mkdir()
    with pytest.raises(DataError, match="yak are not among the training classes"):
        open_source(str(tree))


def test_a_folder_without_classes_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(ConfigError, match="holds no folders"):
        open_source(str(tmp_path))


def test_a_source_that_is_neither_a_name_nor_a_folder_names_the_sources():
    with pytest.raises(ConfigError, match=r"neither a folder.*did you mean digits"):
        open_source("digitz")


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["train/ant/0.jpg"], "folder"),
        (["ant/0.jpg", "left.tar"], "folder"),
        (["a_train.txt", "images/0.jpg"], "list"),
        (["train.csv", "images/0.jpg"], "csv"),
        (["train2018.json", "val2018.json", "train_val2018/0.jpg"], "inat"),
        (["train", "test", "meta"], "cifar"),
        (["data_batch_1.bin"], "cifar"),
        (["dataset_dict.json", "train/state.json"], "hf"),
        (["data/train-00000-of-00001.parquet"], "hf"),
        (["a-000.tar", "a-001.tar"], "webdataset"),
        (["train/000.tar", "val/000.tar"], "webdataset"),
        (["train.beton", "val.beton"], "beton"),
    ],
)
def test_the_kind_of_a_folder_is_told_by_its_files(tmp_path, files, kind):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert find_kind(str(tmp_path)) == kind


def test_a_folder_that_could_be_two_kinds_asks_for_one(tree):
    (tree / "ImageNet_LT_train.txt").write_text("train/ant/0.JPEG 0\n")
    with pytest.raises(ConfigError, match="could be folder or list: say which with --kind"):
        open_source(str(tree))
    assert open_source(str(tree), kind="folder").classes == ["ant", "bee", "cat"]


def test_an_option_of_another_kind_is_refused(tree):
    with pytest.raises(ConfigError, match=r"--label-column.*kind folder.*csv"):
        open_source(str(tree), options=SourceOptions(label_column="label"))
