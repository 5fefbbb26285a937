"""The recipes of the paper's datasets: what they say, and that two steps of each can be run."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastssd.data.convert import convert
from fastssd.data.convert_arguments import parse_arguments
from fastssd.data.sources.sources import open_source
from fastssd.recipe_file import differences, load_config
from fastssd.training.learning_rate import learning_rate

ROOT = Path(__file__).parents[1]
CIFAR = {
    "cifar100_lt_100": (10_847, "CE 39.1 | LWS 42.3 | SSD IV 46.0"),
    "cifar100_lt_50": (12_608, "CE 44.0 | LWS 46.0 | SSD IV 50.5"),
    "cifar100_lt_10": (19_573, "CE 55.8 | LWS 58.1 | SSD IV 62.3"),
}
IMAGENET = {
    "imagenet_lt_90_epochs": (90, ["LWS 61.1 / 48.0 / 31.5 / 50.7", "64.2 / 50.8 / 34.5 / 53.8"]),
    "imagenet_lt_135_epochs": (135, ["CE 67.9 / 39.5 / 9.5 / 46.3", "66.8 / 53.1 / 35.4 / 56.0"]),
}
INAT = {
    "inat18_90_epochs": (90, "LWS 66.6 | SSD IV 69.3"),
    "inat18_200_epochs": (200, "LWS 69.5 | SSD IV 71.5"),
}
LONGER = {
    "imagenet_lt_135_epochs": "imagenet_lt_90_epochs",
    "inat18_200_epochs": "inat18_90_epochs",
}
LARGE = set(LONGER.values())
NAMES = [*CIFAR, *IMAGENET, *INAT]
SSD = {"SSD I", "SSD II", "SSD III-hard", "SSD III-soft", "SSD IV"}

every_recipe = pytest.mark.parametrize("name", NAMES)


def path_of(name: str) -> Path:
    return ROOT / "configs" / f"{name}.yaml"


def header_of(name: str) -> list[str]:
    lines = path_of(name).read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in lines if line.startswith("#")]


def command_of(name: str, tool: str) -> list[list[str]]:
    """Return the arguments of every command of the header that runs a tool."""
    words = [shlex.split(line) for line in header_of(name) if tool in line]
    return [line[line.index(tool) + 1 :] for line in words]


def training(section) -> dict[str, object]:
    names = "epochs batch_size lr momentum nesterov weight_decay schedule milestones warmup_epochs"
    return {name: getattr(section, name) for name in names.split()}


LWS = {
    "epochs": 5,
    "batch_size": 512,
    "lr": 0.2,
    "momentum": 0.9,
    "nesterov": False,
    "schedule": "cosine",
    "milestones": [],
    "warmup_epochs": 0,
}


# What they say


@every_recipe
def test_the_header_tells_how_to_convert_and_train_and_its_commands_are_valid(name):
    (arguments,) = command_of(name, "tools/convert_dataset.py")
    options = parse_arguments(arguments)

    config = load_config(path_of(name))
    assert str(options.out) == config.data.path
    assert options.source == re.sub(r"_\d+_epochs", "", name)
    commands = command_of(name, "fastssd/train.py")
    assert commands
    for recipe, *overrides in commands:
        assert ROOT / recipe == path_of(name)
        load_config(ROOT / recipe, overrides)


@pytest.mark.parametrize(("name", "numbers"), [(n, v[1]) for n, v in (CIFAR | INAT).items()])
def test_the_header_has_the_papers_overall_accuracies(name, numbers):
    assert numbers in header_of(name)


@pytest.mark.parametrize(("name", "numbers"), [(n, v[1]) for n, v in IMAGENET.items()])
def test_the_header_has_the_papers_accuracies_by_frequency(name, numbers):
    for row in numbers:
        assert any(row in line for line in header_of(name))


@every_recipe
def test_a_recipe_runs_all_stages_on_equal_budgets_and_the_papers_weights(name):
    config = load_config(path_of(name))

    assert config.stages == ["I", "II", "III", "IV"]
    assert config.baselines == ["CE", "LWS"]
    assert training(config.features) == training(config.distill)
    assert config.features.task_weight == 1
    assert (config.distill.hard_weight, config.distill.soft_weight) == (1, 1)
    assert config.distill.temperature == 2
    assert config.features.plan == config.distill.plan == "instance"
    assert config.balance.plan == "class_aware"
    assert {key: training(config.balance)[key] for key in LWS} == LWS
    assert config.output == f"runs/{name}"


@pytest.mark.parametrize(("name", "num_images"), [(n, v[0]) for n, v in CIFAR.items()])
def test_cifar_trains_as_bbn_does(name, num_images):
    config = load_config(path_of(name))

    assert config.model.backbone == "resnet32"
    assert (config.features.task, config.augment.query) == ("rotation", "cifar")
    assert config.augment.mean == [0.4914, 0.4822, 0.4465]
    assert config.augment.std == [0.2023, 0.1994, 0.2010]
    assert (config.features.batch_size, config.features.nesterov) == (128, True)
    assert (config.features.weight_decay, config.balance.weight_decay) == (2e-4, 5e-4)
    steps = num_images // config.features.batch_size
    # BBN's WarmupMultiStepLR: the rate of 1-based epochs.
    published = {1: 0.0467, 2: 0.06, 3: 0.0733, 4: 0.0867, 5: 0.1, 119: 0.1, 120: 1e-3}
    for epoch, rate in (published | {159: 1e-3, 160: 1e-5, 200: 1e-5}).items():
        found = learning_rate(config.features, (epoch - 1) * steps, steps_per_epoch=steps)
        assert found == pytest.approx(rate, abs=5e-5 if epoch < 5 else 1e-9)


def test_lws_has_the_published_number_of_steps_and_rates():
    steps = {name: CIFAR[name][0] // 512 for name in CIFAR}
    assert list(steps.values()) == [21, 24, 38]
    for name, per_epoch in steps.items():
        balance = load_config(path_of(name)).balance
        rates = [learning_rate(balance, e * per_epoch, steps_per_epoch=per_epoch) for e in range(5)]
        assert rates == pytest.approx([0.2, 0.181, 0.131, 0.069, 0.019], abs=5e-4)


@pytest.mark.parametrize(("name", "epochs"), [(n, v[0]) for n, v in (IMAGENET | INAT).items()])
def test_photographs_train_by_instance_discrimination_on_a_cosine(name, epochs):
    config = load_config(path_of(name))
    features = config.features

    assert (features.epochs, features.batch_size, features.lr) == (epochs, 256, 0.1)
    assert (features.schedule, features.nesterov, features.momentum) == ("cosine", False, 0.9)
    assert (features.task, features.queue, features.temperature) == ("instance", 65_536, 0.2)
    assert (features.encoder_momentum, features.embedding) == (0.999, 128)
    assert (config.augment.size, config.augment.key, config.augment.test) == (
        224,
        "moco_v2",
        "center",
    )
    expected = (
        ("torchvision/resnext50_32x4d", "imagenet", 5e-4, 0.485, 0.229)
        if name in IMAGENET
        else ("torchvision/resnet50", "imagenet_plain", 1e-4, 0.466, 0.195)
    )
    assert expected == (
        config.model.backbone,
        config.augment.query,
        features.weight_decay,
        config.augment.mean[0],
        config.augment.std[0],
    )
    assert config.balance.weight_decay == features.weight_decay


@pytest.mark.parametrize(("longer", "shorter"), LONGER.items())
def test_a_longer_recipe_is_the_shorter_one_but_for_its_epochs(longer, shorter):
    found = {key for key, _ in differences(*(load_config(path_of(n)) for n in (shorter, longer)))}

    assert found == {"output", "features.epochs", "distill.epochs"}


# Two steps of each stage


def write_tree(root: Path, splits: dict[str, list[int]], save: Callable[..., None]) -> Path:
    """Write an image folder of noise with so many images of each class."""
    random = np.random.default_rng(0)
    for split, counts in splits.items():
        for label, count in enumerate(counts):
            folder = root / split / f"class-{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                save(folder / f"{number}", random)
    return root


def small_png(path: Path, random: np.random.Generator) -> None:
    pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path.with_suffix(".png"))


def photograph(path: Path, random: np.random.Generator) -> None:
    height, width = random.integers(36, 60, 2)
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path.with_suffix(".jpg"), quality=90)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    """A dataset directory of each recipe's shape: 18 images of 4 classes, 9 to 1 a class."""
    folder = tmp_path_factory.mktemp("made")
    train, test = [9, 5, 3, 1], [1, 1, 1, 1]
    directories = {}
    for kind, save, splits, format in (
        ("cifar", small_png, {"train": train, "test": test}, "memory"),
        ("imagenet", photograph, {"train": train, "val": test, "test": test}, "ffcv"),
        ("inat", photograph, {"train": train, "test": test}, "ffcv"),
    ):
        tree = write_tree(folder / f"{kind}-tree", splits, save)
        directories[kind] = folder / kind
        convert(open_source(str(tree)), directories[kind], format=format)
    return directories


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in NAMES],
)
def test_two_steps_of_every_stage_run(name, made, tmp_path, here, monkeypatch, lines):
    # They have their own tests, and take longer than the steps.
    monkeypatch.setattr("fastssd.evaluation.report.write_figures", lambda *_, **__: ([], []))
    kind = next(kind for kind in made if name.startswith(kind))
    output = tmp_path / "run"
    overrides = []
    for section in ("features", "balance", "distill"):
        # The rates are for batches of 128 to 512.
        overrides += [f"{section}.batch_size=8", f"{section}.epochs=1", f"{section}.lr=0.003"]
    overrides += ["augment.size=32", "compute_threads=1", "data.threads=1", "log.every=1"]
    overrides += ["evaluation.every=1", "evaluation.batch_size=8"]
    # Large networks take seconds a stage: the baselines have nothing new, and the longer recipes
    # are the shorter ones but for their epochs.
    stages = ["I"] if name in LONGER else ["I", "II", "III", "IV"]
    if kind != "cifar":
        overrides += ["baselines=[]", f"stages=[{','.join(stages)}]"]

    code = here([str(path_of(name)), f"data.path={made[kind]}", f"output={output}", *overrides])

    assert code == 0
    expected = SSD | {"CE", "LWS"} if kind == "cifar" else SSD if len(stages) == 4 else {"SSD I"}
    rows = json.loads((output / "report.json").read_text())["rows"]
    assert {row["name"] for row in rows} == expected
    folders = ("1-features", "2-balance", "3-distill", "4-balance")
    for folder in folders[: len(stages)]:
        steps = [
            line for line in lines(output / folder / "metrics.jsonl") if line["kind"] == "train"
        ]
        assert len(steps) == 2
        assert all(np.isfinite([*step["losses"].values()]).all() for step in steps)
    terms = {"cifar": "rotation", "imagenet": "instance", "inat": "instance"}
    first = lines(output / "1-features" / "metrics.jsonl")[0]
    assert set(first["losses"]) == {"classification", terms[kind]}
