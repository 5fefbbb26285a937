import numpy as np
import pytest
from fastssd.runtime.jobs import jobs_of

from fastssd.errors import ConfigError
from fastssd.models.backbones import build_backbone
from fastssd.runtime.check import check_repeatable, check_run


def check(made) -> None:
    check_run(jobs_of(made.config), made)


def test_the_tiny_recipe_is_all_right_and_nothing_is_written(context):
    made = context("features.task=instance")
    check(made)
    assert not list(made.output.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["augment.key=moco"], None),  # rotation has no key
        (["augment.key=moco", "features.task=instance"], r"augment\.key: .*moco_v2"),
        (["distill.plan=nonsense"], r"distill\.plan=nonsense"),
        (["distill.plan=nonsense", "stages=[I,II]"], None),  # which will not run
        (["balance.batch_size=100000", "stages=[I]", "baselines=[CE]"], None),
        (["balance.batch_size=100000"], r"balance\.batch_size=100000"),
        (["data.validation=null"], None),
    ],
)
def test_only_what_the_run_will_need_is_checked(context, overrides, message):
    if message is None:
        check(context(*overrides))
    else:
        with pytest.raises(ConfigError, match=message):
            check(context(*overrides))


def test_batches_must_be_cut_evenly_among_the_processes(context):
    check(context(num_processes=4))
    with pytest.raises(ConfigError, match=r"features\.batch_size=32.*3 equal parts.*3 processes"):
        check(context(num_processes=3))


def test_one_stored_image_of_another_size_is_found_before_training(context, monkeypatch):
    made = context()
    sizes = made.train.sizes.copy()
    sizes[-3] = (9, 8)
    monkeypatch.setattr(made.train, "sizes", sizes)
    with pytest.raises(ConfigError, match=rf"augment\.query: .*sample {len(sizes) - 3}.*8 x 9"):
        check(made)


def test_a_split_without_images_is_refused(context):
    made = context()
    made.dataset.split("val").labels = np.array([], dtype=np.int64)
    with pytest.raises(ConfigError, match=r"data\.validation: .*no images"):
        check(made)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("balance.source=table", "balance.source=images"),
        ("distill.teacher=table", "distill.teacher=online"),
        ("deterministic=true", "deterministic=false"),
        ("log.trace=true", "log.trace=false"),
        ("data.on_error=replace", "data.on_error=raise"),
    ],
)
def test_ffcvs_own_crops_go_with_neither_tables_nor_repetition(context, override, key):
    pytest.importorskip("ffcv")
    settings = ["balance.source=images", "distill.teacher=online", "deterministic=false"]
    made = context("data.decoder=ffcv", *settings, "log.trace=false", override)

    with pytest.raises(ConfigError, match=key):
        check_run(jobs_of(made.config), made)


def test_ffcvs_loader_wants_ffcvs_format(context):
    pytest.importorskip("ffcv")
    settings = ["balance.source=images", "distill.teacher=online", "deterministic=false"]
    made = context("data.decoder=ffcv", *settings, "log.trace=false")

    with pytest.raises(ConfigError, match="--format ffcv"):
        check_run(jobs_of(made.config), made)


def test_networks_whose_gradients_cannot_repeat_on_cuda_are_refused():
    check_repeatable(build_backbone("torchvision/resnet18", seed=0))

    with pytest.raises(ConfigError, match=r"AdaptiveAvgPool2d.*set deterministic=false"):
        check_repeatable(build_backbone("torchvision/vgg11", seed=0))
