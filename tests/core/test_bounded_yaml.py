"""Whatever bytes a recipe has, they are read or refused, in work that the bytes bound."""

import sys

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastssd.core import bounded_yaml
from fastssd.core.bounded_yaml import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_VALUES,
    composed,
    constructed,
    value_of,
)
from fastssd.errors import ConfigError
from fastssd.recipe_file import load_config


def laugh(levels, width, *, item="x"):
    """Return lists of aliases of lists of aliases: width ** levels values in a few bytes."""
    lines = [f"a0: &a0 [{', '.join([item] * width)}]"]
    for level in range(1, levels):
        lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]"]
    return "\n".join(lines) + "\n"


def merges(levels, width):
    lines = ["a0: &a0 {k: v}"]
    for level in range(1, levels):
        lines += [f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * width)}]}}"]
    return "\n".join(lines) + "\n"


def chain(length):
    """Return lists that each hold the one before, a few deep each and deep in all."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{level}: &a{level} [[[*a{level - 1}]]]" for level in range(1, length)]
    return "\n".join(lines) + "\n"


BOMBS = {
    "aliases": (laugh(9, 20), 4, "aliases written out"),
    "aliases of keys": (laugh(9, 20, item="{a: 1, b: 2}"), 3, "aliases written out"),
    "merges": (merges(12, 12), 5, "aliases written out"),
    "chain": (chain(2000), 8, "20 deep"),
    "itself": ("a: 1\nb: &b\n  - [*b]\n", 3, "an alias of what it stands in"),
    "itself as a mapping": ("a: &a\n  b: *a\n", 2, "an alias of what it stands in"),
    "flow lists": ("a: " + "[" * 50_000, 1, "20 deep"),
    "block lists": ("a:\n" + "- " * 50_000 + "x", 2, "20 deep"),
    "block mappings": (
        "".join(f"{'  ' * level}k:\n" for level in range(300)),
        MAX_DEPTH + 1,
        "20 deep",
    ),
    "many values": (f"a: [{'1,' * (MAX_VALUES + 9)}]", 1, "aliases written out"),
    "many keys": ("".join(f"k{index}: 1\n" for index in range(20_000)), 5000, "written out"),
    "long value": ("seed: " + "x" * 5_000, 1, "4,096 characters"),
    "long number": ("\nseed: 0x" + "f" * 4_000, 2, "100 digits"),
    "long key": ("0x" + "f" * 1_000 + ": 1", 1, "100 digits"),
    "minutes": ("seed: 1" + ":59" * 1_300 + ".5", 1, "100 digits"),
}


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(("text", "line", "what"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_at_its_line_after_as_many_steps_as_its_bytes_allow(
    recipe, monkeypatch, text, line, what
):
    composed = []
    compose = bounded_yaml._Loader.compose_node
    monkeypatch.setattr(
        bounded_yaml._Loader,
        "compose_node",
        lambda self, *rest: composed.append(1) or compose(self, *rest),
    )

    with pytest.raises(ConfigError) as caught:
        load_config(recipe(text))

    message = str(caught.value)
    assert f"recipe.yaml: not YAML: line {line}, " in message
    assert what in message
    assert len(message) < 600
    assert len(composed) <= min(len(text), MAX_VALUES + 1)


@pytest.mark.parametrize("text", [text for text, _, _ in BOMBS.values()], ids=BOMBS)
def test_a_bomb_as_an_argument_is_refused(recipe, text):
    with pytest.raises(ConfigError) as caught:
        load_config(recipe("output: o\n"), [f"seed={text}"])

    assert "argument 'seed=" in str(caught.value)
    assert len(str(caught.value)) < 2_000


def test_a_file_too_long_is_not_read_to_its_end(recipe):
    with pytest.raises(ConfigError, match=f"more than {MAX_BYTES:,} bytes"):
        load_config(recipe("#" * (MAX_BYTES + 1)))
    with pytest.raises(ConfigError, match="a device, not a file"):
        load_config("/dev/zero")


def test_thousands_of_wrong_keys_are_counted_and_a_few_looked_up(recipe, monkeypatch):
    looked_up = []
    nearest = __import__("difflib").get_close_matches
    monkeypatch.setattr(
        "difflib.get_close_matches", lambda *args, **kw: looked_up.append(1) or nearest(*args, **kw)
    )
    text = "".join(f"feature_{index}: 1\n" for index in range(4_000))

    with pytest.raises(ConfigError) as caught:
        load_config(recipe(text), [f"x{index}=1" for index in range(4_000)])

    lines = str(caught.value).splitlines()
    assert len(lines) == 31
    assert lines[-1] == "and more; the rest was not looked at"
    assert len(looked_up) <= 31


def test_aliases_and_merges_that_people_write_still_work(recipe):
    text = (
        "output: o\ndata: {path: d}\naugment: {size: 8, mean: &third [0.3, 0.3, 0.3], std: *third}"
        "\nbudgets:\n  scratch: &long {epochs: 7, lr: 0.5}\n  classifier: {<<: *long, lr: 0.25}\n"
    )

    config = load_config(recipe(text))

    budget = config.budgets["classifier"]
    assert (config.augment.std, budget.epochs, budget.lr) == ([0.3] * 3, 7, 0.25)


TYPES = (
    "int",
    "float",
    "bool",
    "timestamp",
    "null",
    "binary",
    "set",
    "omap",
    "pairs",
    "map",
    "seq",
)


@settings(max_examples=150, deadline=None)
@given(
    st.text(st.sampled_from("ab01:-[]{},&*!?|>'\"%@#\n <.~e"), max_size=40)
    | st.text(max_size=20)
    | st.tuples(
        st.sampled_from([f"!!{name}" for name in TYPES]),
        st.sampled_from([" ''", " x", " -", " [a]", " {a: b}", " [[a, b]]", " 1:2", " {[a]: b}"]),
    ).map("".join)
)
@example("!!int ''")
@example("1:59" * 20)
@example("? {a: 1}\n: 2")
@example("<<: 3")
def test_any_text_is_a_value_or_a_refusal(text):
    try:
        value = value_of(text)
    except (ValueError, yaml.YAMLError):
        return

    repr(value)


def test_the_bounds_hold_in_a_shallow_stack(tmp_path):
    path = tmp_path / "deep.yaml"
    path.write_text("a: " + "[" * (MAX_DEPTH - 1) + "x" + "]" * (MAX_DEPTH - 1))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        node, _ = composed(path)
        tree = constructed(node)
    finally:
        sys.setrecursionlimit(limit)

    for _ in range(MAX_DEPTH - 1):
        (tree,) = tree["a"] if isinstance(tree, dict) else tree
    assert tree == "x"
