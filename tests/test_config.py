"""The schema: what contradicts itself is refused, and whatever may be said has an effect."""

import ast
import dataclasses
import functools
import re
from pathlib import Path

import pytest

from fastssd import config as schema
from fastssd.config import (
    AugmentConfig,
    BalanceConfig,
    Config,
    DataConfig,
    DistillConfig,
    EvaluationConfig,
    FeaturesConfig,
    FrozenConfig,
    LogConfig,
)
from fastssd.core.bounds import bounds_of
from fastssd.data.plans import check_sampler
from fastssd.errors import ConfigError
from fastssd.recipe_file import load_config

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "configs").rglob("*.yaml"))


def config_of(**values):
    return Config(**{"output": "runs/x", "data": DATA, "augment": AugmentConfig(size=8), **values})


DATA = DataConfig(path="data/x")

CONTRADICTIONS = [
    (lambda: DataConfig(path=""), "data.path is empty"),
    (lambda: DataConfig(path="x", threads=-1), "data.threads=-1 must be at least 0"),
    (lambda: DataConfig(path="x", prefetch=-1), "data.prefetch=-1 must be at least 0"),
    (lambda: DataConfig(path="x", read_ahead=-1), "data.read_ahead=-1 must be at least 0"),
    (lambda: DataConfig(path="x", timeout=0), "data.timeout=0 must be positive"),
    (lambda: AugmentConfig(size=0), "augment.size=0 must be at least 1"),
    (lambda: AugmentConfig(size=8, mean=[0.5]), "augment.mean needs three numbers"),
    (lambda: AugmentConfig(size=8, std=[0.5] * 4), "augment.std needs three numbers"),
    (lambda: AugmentConfig(size=8, std=[0.2, 0.0, 0.2]), "must be positive"),
    (lambda: FeaturesConfig(epochs=0), "features.epochs=0 must be at least 1"),
    (lambda: BalanceConfig(epochs=2**32), "balance.epochs=4294967296 must be at most 4294967295"),
    (lambda: BalanceConfig(batch_size=0), "balance.batch_size=0 must be at least 1"),
    (lambda: DistillConfig(accumulate=0), "distill.accumulate=0 must be at least 1"),
    (lambda: FeaturesConfig(warmup_epochs=-1), "features.warmup_epochs=-1 must be at least 0"),
    (lambda: FeaturesConfig(lr=0.0), "features.lr=0.0 must be positive"),
    (lambda: FeaturesConfig(lr=float("nan")), "features.lr=nan must be positive"),
    (lambda: BalanceConfig(momentum=-0.1), "balance.momentum=-0.1 must be at least 0"),
    (lambda: BalanceConfig(momentum=1.1), "balance.momentum=1.1 must be at most 1"),
    (lambda: BalanceConfig(weight_decay=-1.0), "balance.weight_decay=-1.0 must be at least 0"),
    (lambda: BalanceConfig(decay=-1.0), "balance.decay=-1.0 must be at least 0"),
    (lambda: DistillConfig(milestones=[5]), "write distill.schedule: multistep"),
    (lambda: DistillConfig(schedule="multistep"), "needs distill.milestones"),
    (
        lambda: DistillConfig(schedule="multistep", milestones=[0, 5]),
        r"distill.milestones=\[0, 5\] must be at least 1",
    ),
    (lambda: FeaturesConfig(nesterov=True, momentum=0.0), "needs features.momentum above 0"),
    (lambda: FeaturesConfig(queue=0), "features.queue=0 must be at least 1"),
    (lambda: FeaturesConfig(embedding=0), "features.embedding=0 must be at least 1"),
    (lambda: FeaturesConfig(task_weight=-1.0), "features.task_weight=-1.0 must be at least 0"),
    (lambda: FeaturesConfig(encoder_momentum=1.5), "features.encoder_momentum=1.5 must be at most"),
    (lambda: FeaturesConfig(encoder_momentum=-0.5), "features.encoder_momentum=-0.5 must be at"),
    (lambda: FeaturesConfig(temperature=0.0), "features.temperature=0.0 must be positive"),
    (
        lambda: FeaturesConfig(task="instance", queue=255),
        "features.queue=255 must hold at least one batch of features.batch_size=256",
    ),
    (lambda: DistillConfig(temperature=-2.0), "distill.temperature=-2.0 must be positive"),
    (lambda: DistillConfig(hard_weight=-1.0), "distill.hard_weight=-1.0 must be at least 0"),
    (lambda: DistillConfig(soft_weight=-1.0), "distill.soft_weight=-1.0 must be at least 0"),
    (lambda: FrozenConfig(views=-1), "frozen.views=-1 must be at least 0"),
    (lambda: FrozenConfig(kept_mass=0.0), "frozen.kept_mass=0.0 must be positive"),
    (
        lambda: FrozenConfig(topk=5, table_bytes=1000),
        "frozen.topk and frozen.table_bytes both say how many logits to keep",
    ),
    (lambda: EvaluationConfig(batch_size=0), "evaluation.batch_size=0 must be at least 1"),
    (lambda: EvaluationConfig(every=0), "evaluation.every=0 must be at least 1"),
    (lambda: LogConfig(every=0), "log.every=0 must be at least 1"),
    (lambda: config_of(output=""), "output is empty"),
    (lambda: config_of(output="a\0b"), "output holds a zero byte"),
    (lambda: DataConfig(path="a\0b"), "data.path holds a zero byte"),
    (lambda: config_of(output="caf\udce9"), "output=caf.* is not UTF-8"),
    (lambda: config_of(compute_threads=-1), "compute_threads=-1 must be at least 0"),
    (lambda: config_of(stages=["II"]), "each stage stands on those before it"),
    (lambda: config_of(stages=["I", "III"]), "each stage stands on those before it"),
    (lambda: config_of(stages=["I", "II", "III", "IV", "V"]), "each stage stands on those"),
    (lambda: config_of(baselines=["LWS"]), r"must be \[\], \[CE\] or \[CE, LWS\]"),
    (
        lambda: config_of(frozen=FrozenConfig(batchnorm="batch")),
        "frozen.batchnorm=batch .* set balance.source=images",
    ),
    (
        lambda: config_of(
            frozen=FrozenConfig(batchnorm="batch"), balance=BalanceConfig(source="images")
        ),
        "frozen.batchnorm=batch .* set distill.teacher=online",
    ),
]


@pytest.mark.parametrize(
    ("make", "message"), CONTRADICTIONS, ids=[message for _, message in CONTRADICTIONS]
)
def test_a_recipe_that_contradicts_itself_is_refused_by_key(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_every_refusal_of_the_schema_is_among_those_above():
    source = Path(schema.__file__).read_text(encoding="utf-8")
    refusals = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Raise)]
    raised = set()
    for make, _ in CONTRADICTIONS:
        with pytest.raises(ConfigError) as caught:
            make()
        frame = caught.traceback[-1]
        if Path(frame.path) == Path(schema.__file__):
            raised.add(frame.lineno)

    assert len(raised) == len(refusals)


NUMBERS = [
    (section, kind, field.name)
    for section, kind in (
        ("", Config),
        *(
            (field.name, field.type)
            for field in dataclasses.fields(Config)
            if dataclasses.is_dataclass(field.type)
        ),
    )
    for field in dataclasses.fields(kind)
    if field.type in (int, float, list[int], list[float])
]


@pytest.mark.parametrize(("section", "kind", "name"), NUMBERS, ids=str)
def test_every_number_has_a_least_and_a_most_and_is_refused_beyond_them(section, kind, name):
    bounds = bounds_of(kind, name)
    field = kind.__dataclass_fields__[name]
    key = f"{section}.{name}" if section else name
    listed = (lambda number: [number] * 3) if field.type in (list[int], list[float]) else float
    example = {
        "size": 8,
        "output": "o",
        "path": "p",
        "data": DATA,
        "augment": AugmentConfig(size=8),
    }
    needed = {name: example[name] for name in example if name in kind.__dataclass_fields__}

    assert bounds.high < 2**63
    for beyond, said in ((bounds.high * 2, "at most"), (-1e30, "must be"), (float("nan"), "must")):
        with pytest.raises(ConfigError, match=re.escape(key) + f"=.*{said}"):
            kind(**{**needed, name: listed(beyond)})


@pytest.mark.parametrize(
    "make",
    [
        lambda: config_of(stages=[], baselines=[]),
        lambda: config_of(stages=["I", "II"], baselines=["CE"]),
        lambda: config_of(
            frozen=FrozenConfig(batchnorm="batch"),
            balance=BalanceConfig(source="images"),
            distill=DistillConfig(teacher="online"),
        ),
        lambda: FeaturesConfig(task="instance", queue=256),
        lambda: FeaturesConfig(task="rotation", queue=1),
        lambda: FeaturesConfig(encoder_momentum=1.0, task_weight=0.0, momentum=0.0, decay=0.0),
        lambda: BalanceConfig(schedule="multistep", milestones=[3, 1], warmup_epochs=5),
    ],
)
def test_what_is_unusual_but_says_no_contradiction_is_accepted(make):
    make()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_of_ours_loads(path):
    config = load_config(path)

    for section in ("features", "balance", "distill"):
        training = getattr(config, section)
        check_sampler(training.plan, key=f"{section}.plan", num_epochs=training.epochs)


def test_there_are_recipes():
    assert ROOT / "configs" / "quickstart.yaml" in RECIPES


@functools.cache  # of 90 files, for 60 tests
def attributes_read():
    """Every `owner.name` that stands in fastssd/, as (owner, name), but for the schema's own."""
    found = set()
    for path in (ROOT / "fastssd").rglob("*.py"):
        if path == Path(schema.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                owner = node.value
                name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                found.add((name, node.attr))
    return found


SECTIONS = {field.name: field.type for field in dataclasses.fields(Config)}
FIELDS = [("config", name) for name in SECTIONS] + [
    (section, field.name)
    for section, kind in SECTIONS.items()
    if dataclasses.is_dataclass(kind)
    for field in dataclasses.fields(kind)
]
OTHER_NAMES = {"config", "training", "section"}
"""What variables that hold a section are called, beside the section's own name."""


@pytest.mark.parametrize(("section", "name"), FIELDS, ids=[".".join(pair) for pair in FIELDS])
def test_every_field_of_a_config_is_read_somewhere(section, name):
    owners = {owner for owner, attribute in attributes_read() if attribute == name}

    assert owners & {section, *OTHER_NAMES}
