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
    Budget,
    Config,
    DataConfig,
    EvaluationConfig,
    LogConfig,
    TableConfig,
)
from fastssd.core.bounds import bounds_of
from fastssd.errors import ConfigError
from fastssd.methods.options import (
    TASKS,
    ClassifierOptions,
    DistillOptions,
    InstanceOptions,
    RotationOptions,
)

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "configs").rglob("*.yaml"))


def config_of(**values):
    return Config(**{"output": "runs/x", "data": DATA, "augment": AugmentConfig(size=8), **values})


DATA = DataConfig(path="data/x")

SMALL = {"epochs": 9, "batch_size": 8, "lr": 0.1}

CONTRADICTIONS = [
    (lambda: DataConfig(path=""), "path is empty"),
    (lambda: DataConfig(path="a\0b"), "path holds a zero byte"),
    (lambda: DataConfig(path="x", threads=-1), "threads=-1 must be at least 0"),
    (lambda: AugmentConfig(size=8, mean=[0.5]), "mean needs three numbers"),
    (lambda: AugmentConfig(size=8, std=[0.5] * 4), "std needs three numbers"),
    (lambda: AugmentConfig(size=8, std=[0.2, 0.0, 0.2]), "must be positive"),
    (lambda: Budget(**SMALL, milestones=[5]), "write schedule: multistep"),
    (lambda: Budget(**SMALL, schedule="multistep"), "needs milestones"),
    (
        lambda: Budget(**SMALL, schedule="multistep", milestones=[0, 5]),
        r"milestones=\[0, 5\] must be at least 1",
    ),
    (
        lambda: Budget(**SMALL, schedule="multistep", milestones=[5, 10]),
        r"milestones=\[5, 10\] lie beyond the 9 epochs",
    ),
    (lambda: Budget(**SMALL, nesterov=True, momentum=0.0), "needs momentum above 0"),
    (lambda: TableConfig(topk=5, bytes=1000), "topk and bytes both say how many"),
    (lambda: EvaluationConfig(every=0), "every=0 must be at least 1"),
    (lambda: LogConfig(every=0), "every=0 must be at least 1"),
    (lambda: config_of(output=""), "output is empty"),
    (lambda: config_of(output="a\0b"), "output holds a zero byte"),
    (lambda: config_of(output="caf\udce9"), "output=caf.* is not UTF-8"),
    (lambda: config_of(compute_threads=-1), "compute_threads=-1 must be at least 0"),
    (lambda: config_of(tables=TableConfig(store="topk")), "choose logits or features"),
    (lambda: config_of(methods=[]), r"methods=\[\] trains nothing"),
    (lambda: config_of(seeds=[1, 2, 1]), "has a seed twice"),
    (lambda: InstanceOptions(queue=0), "queue=0 must be at least 1"),
    (lambda: InstanceOptions(encoder_momentum=1.5), "encoder_momentum=1.5 must be at most"),
    (lambda: InstanceOptions(temperature=0.0), "temperature=0.0 must be positive"),
    (lambda: RotationOptions(weight=-1.0), "weight=-1.0 must be at least 0"),
    (lambda: DistillOptions(temperature=-2.0), "temperature=-2.0 must be positive"),
    (lambda: DistillOptions(label_weight=-1.0), "label_weight=-1.0 must be at least 0"),
    (lambda: DistillOptions(learns={}), "has no head"),
    (lambda: ClassifierOptions(learn=[]), r"learn=\[\] must name"),
]


@pytest.mark.parametrize(
    ("make", "message"), CONTRADICTIONS, ids=[message for _, message in CONTRADICTIONS]
)
def test_a_recipe_that_contradicts_itself_is_refused_by_key(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


NUMBERS = [
    (section, kind, field.name)
    for section, kind in (
        ("", Config),
        ("budgets.scratch", Budget),
        *(
            (field.name, field.type)
            for field in dataclasses.fields(Config)
            if dataclasses.is_dataclass(field.type)
        ),
        *(("task", TASKS.options(kind)) for kind in TASKS),
        ("distill", DistillOptions),
    )
    for field in dataclasses.fields(kind)
    if field.type in (int, float, list[int], list[float])
]


@pytest.mark.parametrize(("section", "kind", "name"), NUMBERS, ids=str)
def test_every_number_has_a_least_and_a_most_and_is_refused_beyond_them(section, kind, name):
    bounds = bounds_of(kind, name)
    field = kind.__dataclass_fields__[name]
    listed = (lambda number: [number] * 3) if field.type in (list[int], list[float]) else float
    example = {
        "size": 8,
        "output": "o",
        "path": "p",
        "data": DATA,
        "augment": AugmentConfig(size=8),
        **SMALL,
    }
    needed = {name: example[name] for name in example if name in kind.__dataclass_fields__}

    assert bounds.high < 2**63
    for beyond, said in ((bounds.high * 2, "at most"), (-1e30, "must be"), (float("nan"), "must")):
        with pytest.raises(ConfigError, match=re.escape(name) + f"=.*{said}"):
            kind(**{**needed, name: listed(beyond)})


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
FIELDS = [("config", name) for name in SECTIONS if name != "seeds"] + [  # read by all_seeds
    (section, field.name)
    for section, kind in (*SECTIONS.items(), ("budget", Budget))
    if dataclasses.is_dataclass(kind)
    for field in dataclasses.fields(kind)
]
OTHER_NAMES = {"config", "_config", "holds", "data", "self"}
"""What variables that hold a section are called, beside the section's own name."""


@pytest.mark.parametrize(("section", "name"), FIELDS, ids=[".".join(pair) for pair in FIELDS])
def test_every_field_of_a_config_is_read_somewhere(section, name):
    owners = {owner for owner, attribute in attributes_read() if attribute == name}

    assert owners & {section, *OTHER_NAMES}
