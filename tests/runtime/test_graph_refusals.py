"""Whatever a key of a method is set to: a graph, or a message that names the argument."""

import pytest

from fastssd.core import schema
from fastssd.errors import ConfigError
from fastssd.methods.registry import METHODS
from fastssd.recipe_file import load_recipe
from fastssd.runtime.blocks import StageKeys, TableKeys
from fastssd.runtime.make_graph import make_graph

SMALLEST = """output: runs/x
data: {path: data/x}
augment: {size: 32}
budgets:
  scratch: {epochs: 20, batch_size: 32, lr: 0.1}
  classifier: {epochs: 5, batch_size: 64, lr: 0.2}
"""
BLOCKS = {
    "ssd.I": METHODS.options("supervised"),
    "ssd.III": METHODS.options("distill"),
    "crt.model": METHODS.options("classifier"),
    "tau_norm.model": METHODS.options("tau_norm"),
    "ssd.T": None,
}
INNER = [
    "ssd.I.task.weight",
    "ssd.I.task.kind",
    "ssd.I.budget.epochs",
    "ssd.I.budget.base",
    "ssd.I.model.backbone",
    "ssd.III.heads.soft",
    "ssd.III.rows.soft",
]
KEYS = [
    *(
        f"{block}.{name}"
        for block, options in BLOCKS.items()
        for kind in ((TableKeys,) if options is None else (StageKeys, options))
        for name in schema.keys_of(kind)
    ),
    *INNER,
]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("ssd.S.topkk=4", "did you mean ssd.S.topk?"),
        ("ssd.S.topk=-1", "ssd.S.topk=-1 must be at least 0"),
        ("ssd.S.source=V", "V is no stage of ssd"),
    ],
)
def test_a_table_that_no_stage_reads_is_looked_at_too(tmp_path, override, said):
    path = tmp_path / "recipe.yaml"
    path.write_text(SMALLEST)

    with pytest.raises(ConfigError) as refusal:
        make_graph(load_recipe(path, ["methods=[ssd]", override]))

    assert str(refusal.value).startswith(f"argument '{override}'")
    assert said in str(refusal.value)


@pytest.mark.parametrize("value", ["nowhere", "x:y", "[1]", "[{a: 1}]", "{a: 1}", "-1"])
def test_a_value_that_fits_nowhere_is_refused_by_its_argument(tmp_path, value):
    path = tmp_path / "recipe.yaml"
    path.write_text(SMALLEST)
    accepted, unplaced = [], []

    for key in KEYS:
        override = f"{key}={value}"
        arguments = [f"methods=[{key.split('.')[0]}]", override]
        try:
            make_graph(load_recipe(path, arguments))
        except ConfigError as error:
            if f"argument '{override}': " not in str(error) or "Leaf(" in str(error):
                unplaced.append(f"{override}: {error}")
        else:
            accepted.append(key)

    assert not unplaced
    # Names of one's own, numbers of any size, and what is looked up only later.
    free = {"draws", "rows", "backbone", "soft", "heads"}
    assert {key.rpartition(".")[2] for key in accepted} <= free
