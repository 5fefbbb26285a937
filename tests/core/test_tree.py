"""Trees of settings: what a later layer does to an earlier one, and where each value stands."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fastssd.core.tree import (
    Leaf,
    copied,
    leaves,
    merged,
    origin_of,
    plain,
    put,
    read_yaml,
    tree_of,
)
from fastssd.errors import ConfigError

NAMES = st.sampled_from(["a", "b", "c", "d"])
NUMBERS = st.integers(0, 9) | st.none() | st.booleans() | st.lists(st.integers(0, 3), max_size=2)


@st.composite
def values(draw):
    """Nested values in which a key is always a block, or always a number, by its depth and name."""
    blocks = {name: draw(NUMBERS) for name in draw(st.sets(NAMES))}
    for name in draw(st.sets(st.sampled_from(["x", "y"]))):
        blocks[name] = {inner: draw(NUMBERS) for inner in draw(st.sets(NAMES, min_size=1))}
    return blocks


def flat(tree):
    return {key: leaf.value for key, leaf in leaves(tree)}


@given(values())
def test_a_tree_is_the_values_that_it_was_made_of(content):
    assert plain(tree_of(content, "here")) == content


@given(st.lists(values(), min_size=2, max_size=4))
def test_of_several_layers_each_key_has_the_last_ones_value_and_place(contents):
    layers = [tree_of(content, f"layer {number}") for number, content in enumerate(contents)]

    result = dict(leaves(merged(layers)))

    keys = {key for layer in layers for key, _ in leaves(layer)}
    assert result.keys() == keys
    for key in keys:
        last = max(n for n, layer in enumerate(layers) if key in dict(leaves(layer)))
        assert result[key] == Leaf(flat(layers[last])[key], f"layer {last}")
    assert merged([layers[0], merged(layers[1:])]) == merged(layers)
    assert [plain(layer) for layer in layers] == contents  # untouched


@given(values(), values())
def test_a_copy_has_nothing_in_common_with_what_it_is_of(content, other):
    tree = tree_of(content, "here")

    merged_into = copied(tree)
    for key, leaf in leaves(tree_of(other, "later")):
        put(merged_into, key, leaf, "later")

    assert plain(tree) == content


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([{"head": "linear"}, {"head": {"scale": 3}}], {"kind": "linear", "scale": 3}),
        ([{"head": {"scale": 3}}, {"head": "linear"}], {"scale": 3, "kind": "linear"}),
        ([{"head": {"kind": "cosine", "scale": 3}}, {"head": "linear"}], {"kind": "linear"}),
        (
            [{"head": {"kind": "cosine", "scale": 3}}, {"head": "cosine"}],
            {"kind": "cosine", "scale": 3},
        ),
        (
            [{"head": {"kind": "cosine", "scale": 3}}, {"head": {"scale": 4}}],
            {"kind": "cosine", "scale": 4},
        ),
        ([{"head": "linear"}, {"head": None}], None),
        ([{"head.kind": "cosine"}, {"head.scale": 3}], {"kind": "cosine", "scale": 3}),
    ],
)
def test_a_text_is_a_blocks_kind_and_another_kind_begins_anew(layers, expected):
    result = merged(tree_of(layer, "here") for layer in layers)

    assert plain(result)["head"] == expected


def test_a_text_is_a_budgets_base():
    result = merged([tree_of({"budget": "scratch"}, "file"), tree_of({"budget.lr": 1}, "later")])

    assert plain(result) == {"budget": {"base": "scratch", "lr": 1}}


@pytest.mark.parametrize("order", [1, -1])
def test_arguments_of_one_block_may_come_in_any_order(order):
    tree = {}
    for key, value in [("task.kind", "instance"), ("task.queue", 64)][::order]:
        put(tree, key, Leaf(value, key), key)

    assert plain(tree) == {"task": {"kind": "instance", "queue": 64}}


def test_a_number_has_no_keys():
    with pytest.raises(ConfigError, match=r"there: a\.b is a value, and has no key a\.b\.c"):
        put(tree_of({"a": {"b": 3}}, "here"), "a.b.c", Leaf(1, "there"), "there")


@given(values())
def test_every_value_of_a_file_knows_its_line(tmp_path_factory, content):
    path = Path(tmp_path_factory.getbasetemp()) / "tree.yaml"
    text = yaml.safe_dump(content, sort_keys=False)
    path.write_text(text)

    tree = read_yaml(path)

    assert plain(tree) == content
    lines = text.splitlines()
    for key, leaf in leaves(tree):
        file, _, number = leaf.origin.rpartition(":")
        assert file == str(path)
        if len(lines) > 1:
            assert lines[int(number) - 1].strip().startswith(f"{key.rpartition('.')[2]}:")


def test_a_block_stands_where_its_first_value_does():
    assert origin_of({}, "nowhere") == "nowhere"
    assert origin_of(tree_of({"a": {"b": 1}}, "here"), "nowhere") == "here"
