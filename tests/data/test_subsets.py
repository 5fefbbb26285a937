from dataclasses import dataclass, field

import numpy as np
import pytest

from fastssd.data.longtail import class_counts
from fastssd.data.subsets import plan_subsets
from fastssd.errors import ConfigError


@dataclass
class ToySplit:
    labels: np.ndarray

    @property
    def names(self):
        return [f"image {row}" for row in range(len(self.labels))]

    def read(self, row):
        return np.full((2, 2, 3), row, np.uint8)


@dataclass
class ToySource:
    splits: dict
    classes: list = field(default_factory=lambda: ["ant", "bee", "cat"])
    name: str = "toy"
    kind: str = "toy"
    origin: str = "toys"
    notes: tuple = ()


def toy(train_counts=(40, 40, 40), **others):
    splits = {"train": np.repeat(np.arange(3), train_counts), **others}
    return ToySource({name: ToySplit(np.array(labels)) for name, labels in splits.items()})


def counts_of(source, subset):
    return np.bincount(source.splits[subset.source_split].labels[subset.rows]).tolist()


def test_without_options_every_image_is_kept_in_order():
    source = toy(test=[0, 1, 2, 2])

    subsets = plan_subsets(source)

    assert list(subsets) == ["train", "test"]
    assert subsets["train"].rows.tolist() == list(range(120))
    assert subsets["test"].rows.tolist() == [0, 1, 2, 3]


def test_the_long_tail_is_cut_from_what_the_held_out_splits_leave():
    source = toy()

    subsets = plan_subsets(source, imbalance=4, val_per_class=5, test_per_class=3)

    assert list(subsets) == ["train", "val", "test"]
    assert counts_of(source, subsets["val"]) == [5, 5, 5]
    assert counts_of(source, subsets["test"]) == [3, 3, 3]
    # 120 images less 3 * 8 held out, over 3 classes
    assert counts_of(source, subsets["train"]) == class_counts(3, 32.0, 4).tolist()
    rows = [set(subset.rows) for subset in subsets.values()]
    assert sum(map(len, rows)) == len(set.union(*rows))


def test_the_held_out_images_do_not_depend_on_the_imbalance():
    plans = [plan_subsets(toy(), imbalance=r, val_per_class=5) for r in (None, 2, 8)]
    assert plans[0]["val"].rows.tolist() == plans[1]["val"].rows.tolist()
    assert plans[0]["val"].rows.tolist() == plans[2]["val"].rows.tolist()


def test_the_seed_changes_every_choice():
    a, b = (plan_subsets(toy(), imbalance=4, val_per_class=5, seed=seed) for seed in (0, 1))
    assert set(a["val"].rows) != set(b["val"].rows)
    assert set(a["train"].rows) != set(b["train"].rows)


def test_a_cap_without_imbalance_cuts_the_large_classes_only():
    source = toy((40, 9, 3))
    assert counts_of(source, plan_subsets(source, max_per_class=9)["train"]) == [9, 9, 3]


def test_a_tail_that_runs_out_of_images_names_the_class_and_what_fits():
    source = toy((40, 12, 40))
    with pytest.raises(
        ConfigError, match=r"class 'bee' has 12 images.* 15;.*class (\d+) fits"
    ) as e:
        plan_subsets(source, imbalance=4)

    fits = int(str(e.value).split("--max-per-class ")[1].split()[0])
    plan_subsets(source, imbalance=4, max_per_class=fits)
    with pytest.raises(ConfigError):
        plan_subsets(source, imbalance=4, max_per_class=fits + 1)


def test_a_class_that_the_imbalance_empties_is_named():
    with pytest.raises(ConfigError, match="no training image: 'cat'"):
        plan_subsets(toy(), imbalance=1000)


def test_a_class_without_images_in_the_source_is_named():
    with pytest.raises(ConfigError, match="no training image: 'bee'"):
        plan_subsets(toy((4, 0, 4)))


def test_holding_out_more_than_a_class_has_is_refused():
    with pytest.raises(ConfigError, match="--val-per-class 3: class 'cat' has only 3"):
        plan_subsets(toy((9, 8, 3)), val_per_class=3)


def test_holding_out_a_split_that_the_source_has_is_refused():
    with pytest.raises(ConfigError, match="--test-per-class: toys has a test split"):
        plan_subsets(toy(test=[0, 1, 2]), test_per_class=1)


def test_an_imbalance_below_one_is_refused():
    with pytest.raises(ConfigError, match=r"--imbalance: imbalance 0.01"):
        plan_subsets(toy(), imbalance=0.01)


def test_an_empty_source_is_refused():
    with pytest.raises(ConfigError, match="holds no images"):
        plan_subsets(toy((0, 0, 0)))
