"""What holds for every recipe and every method's file, and that two steps of each can be run."""

import itertools
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastssd.core import schema
from fastssd.data.convert import convert
from fastssd.data.convert_arguments import parse_arguments
from fastssd.data.sources.sources import open_source
from fastssd.method_file import method_files
from fastssd.models.backbones import build_backbone
from fastssd.recipe_file import load_recipe
from fastssd.runtime.make_graph import make_graph
from fastssd.training.learning_rate import learning_rate

ROOT = Path(__file__).parents[1]
PATHS = {path.stem: path for path in sorted((ROOT / "configs").glob("*.yaml"))}
ALL_METHODS = f"methods=[{', '.join(method_files())}]"
SCRATCH = {"supervised", "distill"}
"""What trains a network and not a classifier alone."""

every_recipe = pytest.mark.parametrize("name", PATHS)


def family_of(name):
    """Return what recipes of one dataset have in common in their names."""
    return re.sub(r"(_\d+)?(_epochs)?$", "", name)


FAMILIES = {
    family: list(names)
    for family, names in itertools.groupby(sorted(PATHS, key=family_of), family_of)
}


def header_of(name):
    lines = PATHS[name].read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in lines if line.startswith("#")]


def commands_of(name, tool):
    """Return the arguments of every command of the header that runs a tool."""
    words = [shlex.split(line) for line in header_of(name) if f" {tool} " in line]
    return [line[line.index(tool) + 1 :] for line in words]


# What they say


@every_recipe
def test_the_commands_of_a_header_are_valid_and_name_its_recipe_and_dataset(name):
    config = load_recipe(PATHS[name]).config

    for arguments in commands_of(name, "tools/convert_dataset.py"):
        assert str(parse_arguments(arguments).out) == config.data.path
    for recipe, *overrides in commands_of(name, "fastssd/train.py"):
        assert ROOT / recipe == PATHS[name]
        make_graph(load_recipe(PATHS[name], overrides))
    assert header_of(name)


@every_recipe
def test_a_recipe_writes_where_its_name_says_and_trains_as_long_as_it_says(name):
    recipe = load_recipe(PATHS[name])

    assert recipe.config.output == f"runs/{name}"
    if said := re.search(r"_(\d+)_epochs$", name):
        assert recipe.config.budgets["scratch"].epochs == int(said[1])


@every_recipe
def test_every_method_goes_with_every_recipe_and_networks_have_equal_budgets(name):
    graph = make_graph(load_recipe(PATHS[name], [ALL_METHODS]))

    assert {method for method, _, _ in graph.asked} == set(method_files())
    trained = [stage for stage in graph.stages if stage.budget is not None]
    assert len({repr(stage.budget) for stage in trained if stage.kind in SCRATCH}) == 1
    assert len({repr(stage.budget) for stage in trained if stage.kind not in SCRATCH}) == 1


@every_recipe
def test_published_accuracies_are_of_rows_that_the_recipe_has(name):
    recipe = load_recipe(PATHS[name])
    rows = {row for stage in make_graph(recipe).stages for row in stage.rows.values()}

    assert set(recipe.config.published) <= rows
    for value in recipe.config.published.values():
        *groups, overall = value if isinstance(value, list) else [value]
        assert len(groups) in (0, 3)
        assert 0 < overall < 100
        assert not groups or min(groups) < overall < max(groups)
        assert groups == sorted(groups, reverse=True)  # many, medium, few


@pytest.mark.parametrize("names", FAMILIES.values(), ids=FAMILIES)
def test_recipes_of_one_dataset_differ_in_nothing_but_data_epochs_and_what_follows(names):
    found = [dict(schema.flat(schema.to_plain(load_recipe(PATHS[n]).config))) for n in names]

    free = r"output|data\.path|published\..*|budgets\.scratch\.epochs"
    for other in found[1:]:
        differing = {key for key in found[0] | other if found[0].get(key) != other.get(key)}
        assert [key for key in differing if not re.fullmatch(free, key)] == []


@pytest.mark.parametrize("name", FAMILIES["cifar100_lt"])
def test_cifar_trains_at_the_published_rates(name):
    budgets = load_recipe(PATHS[name]).config.budgets
    num_images = int(
        re.search(r"([\d,]+) training images", " ".join(header_of(name)))[1].replace(",", "")
    )
    # BBN's WarmupMultiStepLR: the rate of 1-based epochs.
    published = {1: 0.0467, 2: 0.06, 3: 0.0733, 4: 0.0867, 5: 0.1, 119: 0.1, 120: 1e-3}
    steps = num_images // budgets["scratch"].batch_size
    for epoch, rate in (published | {159: 1e-3, 160: 1e-5, 200: 1e-5}).items():
        found = learning_rate(budgets["scratch"], (epoch - 1) * steps, steps_per_epoch=steps)
        assert found == pytest.approx(rate, abs=5e-5 if epoch < 5 else 1e-9)
    # Kang et al.'s LWS.
    steps = num_images // budgets["classifier"].batch_size
    rates = [
        learning_rate(budgets["classifier"], epoch * steps, steps_per_epoch=steps)
        for epoch in range(5)
    ]
    assert rates == pytest.approx([0.2, 0.181, 0.131, 0.069, 0.019], abs=5e-4)


def test_a_wrong_key_of_a_stage_is_said_before_the_dataset_is_looked_for(here, capsys):
    code = here([str(PATHS["quickstart"]), "data.path=nowhere", "ssd.III.temprature=3"])

    assert code == 2
    assert "did you mean ssd.III.temperature" in capsys.readouterr().err


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
    """A dataset directory of each kind: 18 images of 4 classes, 9 to 1 a class."""
    folder = tmp_path_factory.mktemp("made")
    train, test = [9, 5, 3, 1], [1, 1, 1, 1]
    directories = {}
    for kind, save in (("memory", small_png), ("ffcv", photograph)):
        tree = write_tree(
            folder / f"{kind}-tree", {"train": train, "val": test, "test": test}, save
        )
        directories[kind] = folder / kind
        convert(open_source(str(tree)), directories[kind], format=kind)
    return directories


@pytest.mark.parametrize(
    "backbone", sorted({load_recipe(path).config.model.backbone for path in PATHS.values()})
)
def test_every_recipes_network_learns_from_a_batch(backbone):
    network = build_backbone(backbone, seed=0)

    feature = network(torch.randn(2, 3, 32, 32))
    feature.sum().backward()

    assert feature.shape == (2, network.width)
    assert all(weight.grad is not None for weight in network.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_two_steps_of_every_stage_run(family, made, tmp_path, here, monkeypatch, lines):
    # They have their own tests, and take longer than the steps.
    monkeypatch.setattr("fastssd.evaluation.report.write_figures", lambda *_, **__: ([], []))
    name, output = FAMILIES[family][0], tmp_path / "run"
    recipe = load_recipe(PATHS[name])
    photographs = recipe.config.augment.train.startswith("imagenet")
    # CE and LWS have nothing that SSD has not. Large networks take seconds a stage to be saved.
    overrides = ["methods=[ssd]", "model.backbone=resnet8"] if photographs else []
    for budget in ("scratch", "classifier"):
        # The rates are for batches of 32 to 512.
        overrides += [f"budgets.{budget}.batch_size=8", f"budgets.{budget}.epochs=1"]
        overrides += [f"budgets.{budget}.lr=0.003"]
    overrides.append("augment.size=32")
    overrides += ["compute_threads=1", "data.threads=1", "log.every=1", "tables.views=1"]
    overrides += ["evaluation.every=1", "evaluation.batch_size=8"]
    data = made["ffcv" if photographs else "memory"]

    code = here([str(PATHS[name]), f"data.path={data}", f"output={output}", *overrides])

    assert code == 0
    graph = make_graph(load_recipe(output / "config.yaml"))
    rows = {row["name"] for row in json.loads((output / "report.json").read_text())["rows"]}
    assert rows == {row for stage in graph.stages for row in stage.rows.values()}
    for stage in graph.stages:
        logged = lines(output / stage.folder / "metrics.jsonl")
        steps = [line for line in logged if line["kind"] == "train"]
        assert len(steps) == 2
        assert all(np.isfinite([*step["losses"].values()]).all() for step in steps)
        if stage.name == "I":
            assert set(steps[0]["losses"]) == {"classification", stage.options.task.kind}
