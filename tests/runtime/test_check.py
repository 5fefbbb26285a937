import numpy as np
import pytest

from fastssd.errors import ConfigError
from fastssd.models.backbones import build_backbone
from fastssd.runtime import memory
from fastssd.runtime.check import check_images, check_repeatable, check_run

INSTANCE = "ssd.I.task={kind: instance, queue: 64, embedding: 16}"


@pytest.fixture
def check(context, graph_of):
    """Return what checks the tiny recipe under overrides."""

    def run(*overrides, made=None, **share) -> None:
        made = made or context(*overrides, **share)
        check_images(made)
        check_run(graph_of(made), made)

    return run


def test_the_tiny_recipe_is_all_right_and_nothing_is_written(context, check):
    made = context(INSTANCE)

    check(made=made)

    assert not list(made.output.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["augment.key=moco"], None),  # rotation has no key
        (["augment.key=moco", INSTANCE], r"augment\.key: .*moco_v2"),
        (["budgets.classifier.batch_size=100000", "methods=[ce]"], None),
        (["budgets.classifier.batch_size=100000"], r"lws\.model\.budget\.batch_size=100000"),
        (["model.backbone=torchvision/resnet"], r"ce\.model: .*Did you mean"),
        (["data.validation=null"], None),
        (["methods=[tau_norm]", "data.validation=null"], None),
    ],
)
def test_only_what_the_run_will_need_is_checked(check, overrides, message):
    if message is None:
        check(*overrides)
    else:
        with pytest.raises(ConfigError, match=message):
            check(*overrides)


def test_batches_must_be_cut_evenly_among_the_processes(check):
    check(num_processes=4)
    wrong = r"ce\.model\.budget\.batch_size=32.*3 equal parts.*3 processes"
    with pytest.raises(ConfigError, match=wrong):
        check(num_processes=3)


def test_one_stored_image_of_another_size_is_found_before_training(context, check, monkeypatch):
    made = context()
    sizes = made.train.sizes.copy()
    sizes[-3] = (9, 8)
    monkeypatch.setattr(made.train, "sizes", sizes)
    with pytest.raises(ConfigError, match=rf"augment\.train: .*sample {len(sizes) - 3}.*8 x 9"):
        check(made=made)


def test_a_split_without_images_is_refused(context, check):
    made = context()
    made.dataset.split("val").labels = np.array([], dtype=np.int64)
    with pytest.raises(ConfigError, match=r"data\.validation: .*no images"):
        check(made=made)


FFCV = (
    "data.decoder=ffcv",
    "deterministic=false",
    "log.trace=false",
    *(f"{label}.reads=images" for label in ("lws.model", "ssd.II", "ssd.III", "ssd.IV")),
)


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("ssd.II.reads=T", "ssd.II.reads=images"),
        ("ssd.III.reads=T", "ssd.III.reads=images"),
        ("methods=[ce, ncm]", "leave ncm out of methods"),
        ("deterministic=true", "deterministic=false"),
        ("log.trace=true", "log.trace=false"),
        ("data.on_error=replace", "data.on_error=raise"),
        ("seed=0", "--format ffcv"),
    ],
)
def test_ffcvs_own_crops_go_with_neither_tables_nor_repetition(check, override, remedy):
    if remedy == "--format ffcv":
        pytest.importorskip("ffcv")
    settings = [
        text for text in FFCV if "ncm" not in override or not text.startswith(("lws", "ssd"))
    ]

    with pytest.raises(ConfigError, match=remedy):
        check(*settings, override)


def test_networks_whose_gradients_cannot_repeat_on_cuda_are_refused():
    check_repeatable(build_backbone("torchvision/resnet18", seed=0))

    with pytest.raises(ConfigError, match=r"AdaptiveAvgPool2d.*set deterministic=false"):
        check_repeatable(build_backbone("torchvision/vgg11", seed=0))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["augment.size=4096", "augment.train=imagenet", "augment.test=center"],
            r"5 batches of 32 images of 4096 x 4096 pixels need at least 8\.1 GB of memory, and "
            r"there are 1\.0 GB: lower augment\.size, ce\.model\.budget\.batch_size or "
            r"data\.prefetch",
        ),
        (
            [
                "data.prefetch=1000",
                "augment.size=300",
                "augment.train=imagenet",
                "augment.test=center",
            ],
            r"1001 batches of 32 images .* 8\.6 GB",
        ),
        (
            ["methods=[ssd]", "ssd.I.task={kind: instance, queue: 16777216, embedding: 16}"],
            r"ssd\.I: task\.queue=16777216 keys of task\.embedding=16 need at least 1\.1 GB",
        ),
        (
            [
                "data.prefetch=1000",
                "augment.size=64",
                "augment.train=imagenet",
                "augment.test=center",
            ],
            r"lower augment\.size, evaluation\.batch_size or data\.prefetch",
        ),
    ],
)
def test_what_the_machine_has_no_memory_for_is_said_by_key(check, monkeypatch, overrides, said):
    monkeypatch.setattr(memory, "usable_memory", lambda: 10**9)

    with pytest.raises(ConfigError, match=said):
        check(*overrides)
