"""Settings read into dataclasses and written back: what comes out is what went in."""

import dataclasses
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.core import schema
from fastssd.core.schema import Chosen, chosen
from fastssd.core.tree import tree_of
from fastssd.errors import ConfigError
from fastssd.losses.registry import CLASS_WEIGHTS, LOSSES
from fastssd.methods.options import TASKS
from fastssd.methods.registry import METHODS
from fastssd.models.registry import HEADS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plain:
    """Has no keys."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    radius: float = 1.0


class Shapes:
    """Two kinds."""

    def names(self) -> list[str]:
        return ["plain", "round"]

    def options(self, kind: str) -> type:
        return {"plain": Plain, "round": Round}[kind]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    steps: int = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    name: str
    from_: float = 0.5
    learns: dict[str, Any] = dataclasses.field(default_factory=dict, metadata={"key": "heads"})
    rates: list[float] = dataclasses.field(default_factory=list)
    mode: Literal["fast", "slow"] = "fast"
    limit: int | None = None
    both: list[Literal["x", "y"]] = dataclasses.field(default_factory=lambda: ["x"])
    inner: Inner = dataclasses.field(default_factory=Inner)
    shape: Chosen = chosen(Shapes, "plain")
    maybe: Chosen | None = chosen(Shapes, None)

    def __post_init__(self) -> None:
        if self.from_ > 1:
            raise ConfigError(f"from={self.from_} must be at most 1")


def read(values, kind=Settings, key="block"):
    return schema.read(tree_of(values, "here"), kind, key=key, where="the file")


def refusal(values):
    with pytest.raises(ConfigError) as caught:
        read(values)
    return str(caught.value).splitlines()


shapes = st.just(Chosen("plain", Plain())) | st.builds(
    lambda radius: Chosen("round", Round(radius=radius)), st.floats(0, 9)
)
texts = st.text("abc", min_size=1)
instances = st.builds(
    Settings,
    name=texts,
    from_=st.floats(0, 1),
    learns=st.dictionaries(texts, texts | st.lists(texts)),
    rates=st.lists(st.floats(-9, 9)),
    mode=st.sampled_from(["fast", "slow"]),
    limit=st.none() | st.integers(0, 9),
    both=st.lists(st.sampled_from(["x", "y"])),
    inner=st.builds(Inner, steps=st.integers(-9, 9)),
    shape=shapes,
    maybe=st.none() | shapes,
)


@pytest.mark.parametrize("without_defaults", [False, True])
@settings(max_examples=50, deadline=None)
@given(made=instances)
def test_what_is_written_is_read_back_equal(without_defaults, made):
    written = schema.to_plain(made, without_defaults=without_defaults)

    assert read(written) == made


@given(made=instances)
def test_what_stands_at_its_default_is_left_out_and_nothing_else(made):
    written = schema.to_plain(made, without_defaults=True)

    default = Settings(name=made.name)
    for key, field in schema.keys_of(Settings).items():
        differs = getattr(made, field.name) != getattr(default, field.name)
        assert (key in written) == (differs or field.name == "name")


@pytest.mark.parametrize(
    ("registry", "kind"),
    [
        (registry, kind)
        for registry in (METHODS, TASKS, LOSSES, HEADS, CLASS_WEIGHTS)
        for kind in registry.names()
    ],
)
def test_options_of_everything_that_a_recipe_may_name_are_read_back_equal(registry, kind):
    options = registry.options(kind)()

    assert read(schema.to_plain(options), type(options)) == options
    assert schema.to_plain(options, without_defaults=True) == {}
    assert registry[kind].Options is registry.options(kind)


def test_a_key_is_the_fields_name_without_its_underscore_or_as_its_metadata_says():
    made = read({"name": "n", "from": 0.25, "heads": {"a": "b"}})

    assert (made.from_, made.learns) == (0.25, {"a": "b"})
    for key in ("from_", "learns"):
        assert f"here: block.{key} is no key of block" in refusal({"name": "n", key: 1})[0]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("round", Chosen("round", Round())),
        ({"kind": "round"}, Chosen("round", Round())),
        ({"kind": "round", "radius": 2}, Chosen("round", Round(radius=2.0))),
        ({}, Chosen("plain", Plain())),
    ],
)
def test_a_block_is_of_the_kind_that_it_names_or_of_its_default(shape, expected):
    assert read({"name": "n", "shape": shape}).shape == expected


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"shape": "rond"}, "block.shape.kind=rond is none of plain, round; did you mean round?"),
        ({"shape": {"kind": "round", "radus": 2}}, "did you mean block.shape.radius?"),
        ({"shape": {"radius": 2}}, "block.shape.radius is no key of block.shape"),  # of plain
        ({"maybe": {"radius": 2}}, "block.maybe.kind=None is none of plain, round"),
        ({"shape": 3}, "block.shape.kind=3 is none of"),
        ({"mode": "fas"}, "block.mode=fas is none of fast, slow; did you mean fast?"),
        ({"both": ["x", "z"]}, "block.both=z is none of x, y"),
        ({"both": "x"}, "block.both=x is not a list such as"),
        ({"rates": ["fast"]}, "block.rates: 'fast' is not a number"),
        ({"rates": [{"a": 1}]}, "block.rates: {'a': 1} is not a number"),
        ({"limit": "none"}, "block.limit=none is not a whole number"),
        ({"limit": 1.5}, "block.limit=1.5 is not a whole number"),
        (
            {"inner": 3},
            "block.inner is a section, not a value: set its keys, such as block.inner.s",
        ),
        ({"mode": {"x": 1}}, "block.mode is a value, not a block of keys such as block.mode.x"),
        ({"heads": 3}, "block.heads=3 is not a mapping of names to values"),
        ({"from": 1.5}, "block.from=1.5 must be at most 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place_and_its_key(values, said):
    (line,) = refusal({"name": "n", **values})

    assert line.startswith("here: ")
    assert said in line


def test_everything_that_is_wrong_is_told_at_once():
    values = {"inner": {"steps": "x", "stps": 1}, "mode": "f", "shape": {"kind": "round", "r": 1}}

    lines = refusal(values)

    assert len(lines) == 5
    assert "the file: block.name is missing; it has no default" in lines
    for key in ("inner.steps", "inner.stps", "mode", "shape.r"):
        assert any(f"block.{key}" in line for line in lines)
