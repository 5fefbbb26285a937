"""Recipes as people write them: right ones, and wrong ones with a message that helps."""

import dataclasses

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.config import AugmentConfig, Budget, Config, DataConfig, EvaluationConfig
from fastssd.core import schema
from fastssd.errors import ConfigError
from fastssd.recipe_file import load_config
from tests.support.recipes import SMALLEST


def refusal(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


# What is read


def test_what_a_recipe_does_not_say_has_its_default(recipe):
    expected = Config(
        output="runs/x", data=DataConfig(path="data/x"), augment=AugmentConfig(size=32)
    )

    assert load_config(recipe()) == expected


def test_overrides_come_after_the_file_and_later_ones_after_earlier(recipe):
    config = load_config(
        recipe(SMALLEST + "seed: 3\nbudgets:\n  scratch: {lr: 0.5}\n"),
        ["seed=4", "budgets.classifier.epochs=7", "seed=5"],
    )

    assert (config.seed, config.budgets["scratch"].lr) == (5, 0.5)
    assert config.budgets["classifier"].epochs == 7


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.path=a b=c", "a b=c"),
        ("data.path=123", "123"),
        ("data.path=null", "null"),
        ("data.path=010", "010"),
        ("data.path=[x]: {y", "[x]: {y"),
        ("data.path=2026-01-01", "2026-01-01"),
        ("data.validation=val", "val"),
        ("data.validation=no", "no"),
        ("data.validation=12", "12"),
        ("data.validation=null", None),
        ("data.validation=~", None),
        ("data.validation=", None),
        ("data.timeout=0.25", 0.25),
        ("data.timeout=2", 2.0),
        ("data.timeout=1e-3", 0.001),
        ("data.timeout=1E3", 1000.0),
        ("data.timeout=.5", 0.5),
        (" data.timeout = 0.5 ", 0.5),
        ("watchdog=115712", 115712),
        ("watchdog=115_712", 115712),
        ("seed=-1", -1),
        ("seed=20261123153000", 20261123153000),
        ("deterministic=true", True),
        ("deterministic=no", False),
        ("precision=no", "no"),
        ("precision=bf16", "bf16"),
        ("seeds=[0, 1]", [0, 1]),
        ("seeds=[]", []),
        ("augment.mean=[0, 0.5, 1e-3]", [0.0, 0.5, 0.001]),
    ],
)
def test_an_override_is_read_as_its_field_wants_it(recipe, override, expected):
    value = load_config(recipe(), [override])
    for name in override.partition("=")[0].strip().split("."):
        value = getattr(value, name)

    assert value == expected
    assert type(value) is type(expected)


def test_the_same_values_may_stand_in_the_file(recipe):
    text = SMALLEST + (
        "precision: no\nbudgets:\n  scratch: {lr: 1e-3, weight_decay: 2, schedule: multistep,\n"
        "    milestones: [60, 80], nesterov: yes}\n"
    )

    config = load_config(recipe(text))

    assert config.precision == "no"
    assert config.budgets["scratch"] == Budget(
        epochs=90,
        batch_size=256,
        lr=0.001,
        weight_decay=2.0,
        schedule="multistep",
        milestones=[60, 80],
        nesterov=True,
    )


@pytest.mark.parametrize("empty", ["", " {}", " null", "\n#  every: 3"])
def test_a_section_with_nothing_in_it_is_as_if_it_were_not_there(recipe, empty):
    config = load_config(recipe(f"{SMALLEST}evaluation:{empty}\n"))

    assert config.evaluation == EvaluationConfig()


# Budgets


def test_times_move_with_the_epochs_unless_they_are_given_too(recipe):
    text = SMALLEST + (
        "budgets:\n  scratch: {epochs: 200, schedule: multistep, milestones: [120, 160], "
        "warmup_epochs: 5}\n"
    )

    shorter = load_config(recipe(text), ["budgets.scratch.epochs=20"]).budgets["scratch"]
    given = load_config(
        recipe(text), ["budgets.scratch.epochs=20", "budgets.scratch.milestones=[10, 18]"]
    ).budgets["scratch"]

    assert (shorter.milestones, shorter.warmup_epochs) == ([12, 16], 1)
    assert given.milestones == [10, 18]


def test_a_milestone_that_is_never_reached_is_refused(recipe):
    message = refusal(
        recipe(),
        "budgets.scratch.schedule=multistep",
        "budgets.scratch.milestones=[120]",
    )

    assert "budgets.scratch.milestones=[120] lie beyond the 90 epochs" in message


def test_a_budget_of_ones_own_is_complete_or_refused(recipe):
    config = load_config(recipe(), ["budgets.long={epochs: 5, batch_size: 4, lr: 1}"])

    assert config.budgets["long"] == Budget(epochs=5, batch_size=4, lr=1.0)
    assert "budgets.long.lr is missing" in refusal(recipe(), "budgets.long.epochs=5")


# What is refused: keys


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("data.treads", "data.threads"),
        ("ouput", "output"),
        ("augmnt.size", "augment"),
        ("sdd.I.x", "ssd"),
        ("budgets.scratch.epoch", "budgets.scratch.epochs"),
        ("zzz", None),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_of_its_block(recipe, key, nearest):
    message = refusal(recipe(), f"{key}=1")

    assert message.startswith(f"argument '{key}=1': {key} is ")
    assert ("did you mean" in message) == (nearest is not None)
    assert nearest is None or f"did you mean {nearest}?" in message


def test_an_unknown_key_of_the_file_is_named_with_its_line(recipe):
    path = recipe(SMALLEST + "data_:\n  x: 1\n")

    assert refusal(path).startswith(f"{path}:7: data_ is no key of a config; did you mean data?")


@pytest.mark.parametrize(
    "text", ["1: 2\n", "evaluation:\n  1: 2\n", "null: 3\n", "no: 3\n", "{}: 3\n"]
)
def test_a_key_that_is_not_even_text_is_refused(recipe, text):
    refusal(recipe(SMALLEST + text))


@pytest.mark.parametrize("value", ["3", "[1]"])
def test_a_section_is_not_a_value(recipe, value):
    message = refusal(recipe(), f"evaluation={value}")

    assert "evaluation is a section, not a value: set its keys" in message


def test_a_value_is_not_a_section(recipe):
    assert "size is a value" in refusal(recipe(SMALLEST + "  size.x: 3\n"))
    assert "augment.size is a value" in refusal(
        recipe("output: o\ndata: {path: p}\naugment:\n  size:\n    x: 3\n")
    )


def test_keys_without_default_that_are_missing_are_all_named(recipe):
    path = recipe("seed: 1\n")

    lines = refusal(path).splitlines()

    assert lines == [
        f"{path}: {key} is missing; it has no default"
        for key in ("output", "data.path", "augment.size")
    ]


def test_a_key_that_stands_in_the_file_twice_is_refused(recipe):
    text = SMALLEST + "log:\n  every: 1\n  every: 2\nseed: 0\nlog:\n  trace: true\n"

    message = refusal(recipe(text))

    assert "log.every" in message
    assert "log stands there twice" in message


# What is refused: values


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("watchdog=3.5", "watchdog"),
        ("watchdog=ten", "watchdog"),
        ("watchdog=true", "watchdog"),
        ("watchdog=null", "watchdog"),
        ("watchdog=[3]", "watchdog"),
        ("watchdog=2026-01-01", "watchdog"),
        ("watchdog={a: 1}", "watchdog"),
        ("data.timeout=fast", "'fast' is not a number"),
        ("data.timeout=true", "is not a number"),
        ("data.timeout=", "data.timeout"),
        ("data.timeout=[0.1]", "data.timeout"),
        ("precision=fp32", "no, fp16, bf16"),
        ("precision=yes", "no, fp16, bf16"),
        ("deterministic=maybe", "deterministic"),
        ("seeds=1", "seeds"),
        ("seeds=[1, null]", "seeds"),
        ("seeds=[1.5]", "seeds"),
        ("augment.mean=0.5", "augment.mean"),
        ("augment.mean=null", "augment.mean"),
        ("augment.mean={a: 1}", "augment.mean"),
        ("augment.mean=[[1], 2, 3]", "augment.mean"),
        ("data.timeout=: {", "is not a YAML value"),
        ("data.timeout=2026-99-99", "is not a YAML value"),
        ("data.timeout=!!python/object:os.system x", "is not a YAML value"),
        ("budgets.scratch.milestones=[1.5]", "budgets.scratch.milestones"),
        ("seed", "an override is key=value"),
        ("=3", "an override is key=value"),
        ("seed 3", "an override is key=value"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_its_argument(recipe, override, said):
    message = refusal(recipe(), override)

    assert message.startswith(f"argument '{override}'")
    assert said in message
    assert len(message.splitlines()) == 1


NUMBERS = [
    f"{section}{field.name}"
    for section, kind in (("", Config), ("data.", DataConfig), ("budgets.scratch.", Budget))
    for field in dataclasses.fields(kind)
    if field.type in (int, float)
]


@pytest.mark.parametrize(
    "value", ["nan", ".nan", "inf", "-.inf", "1e999", "9" * 30, "-" + "9" * 30]
)
@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_that_no_field_can_hold_are_refused(recipe, key, value):
    assert key in refusal(recipe(), f"{key}={value}")


@pytest.mark.parametrize("value", [".nan", "nan", ".inf"])
def test_such_numbers_are_refused_within_lists_too(recipe, value):
    assert "augment.std" in refusal(recipe(), f"augment.std=[1, {value}, 1]")


@pytest.mark.parametrize("value", ["no", "123", "1.5", "true", "010"])
def test_text_that_yaml_reads_otherwise_must_be_quoted_in_the_file(recipe, value):
    text = f"output: o\ndata:\n  path: {value}\naugment:\n  size: 8\n"

    assert "data.path: YAML reads" in refusal(recipe(text))
    assert load_config(recipe(text.replace(value, f"'{value}'"))).data.path == value


# All at once


def test_all_errors_are_reported_at_once_each_with_where_it_stands(recipe):
    path = recipe("output: o\nseed: x\nlog:\n  evry: 3\n  every: fast\n")

    lines = refusal(path, "augment.size=a", "data.threads=.nan", "nonsense").splitlines()

    said = [
        (f"{path}:2", "seed"),
        (f"{path}:4", "log.every?"),
        (f"{path}:5", "log.every"),
        ("'augment.size=a'", "augment.size"),
        ("'data.threads=.nan'", "data.threads"),
        ("'nonsense'", "key=value"),
        (str(path), "data.path is missing"),
    ]
    assert len(lines) == len(said)
    for where, what in said:
        assert any(where in line and what in line for line in lines)


def test_every_section_that_contradicts_itself_is_reported_where_it_does(recipe):
    path = recipe(SMALLEST + "log: {every: 0}\n")

    lines = refusal(path, "budgets.scratch.epochs=0", "evaluation.every=0").splitlines()

    assert sorted(lines) == [
        f"{path}:6: log.every=0 must be at least 1",
        "argument 'budgets.scratch.epochs=0': budgets.scratch.epochs=0 must be at least 1",
        "argument 'evaluation.every=0': evaluation.every=0 must be at least 1",
    ]


# Files


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"output: \xff\xfe\n", "not YAML"),
        (b"\xff\xfeo\x00", "not YAML"),
        (b"a: [1, 2\n", "not YAML"),
        (b"a: b: c\n", "not YAML"),
        (b"a: 2026-99-99\n", "not YAML"),
        (b"a: !!python/object:os.system x\n", "not YAML"),
        (b"? [1, 2]\n: 3\n", "is no key"),
        (b"--- 1\n--- 2\n", "not YAML"),
        (b"\x00\x01", "not YAML"),
        (b"", "a config is a mapping"),
        (b"# nothing\n", "a config is a mapping"),
        (b"- output\n- data\n", "a config is a mapping"),
        (b"just text\n", "a config is a mapping"),
        (b"{}\n", "output is missing"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_by_name(recipe, content, said):
    path = recipe(content)

    message = refusal(path)

    assert str(path) in message
    assert said in message


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path):
    assert "none.yaml: can't read the config: No such file" in refusal(tmp_path / "none.yaml")
    assert f"{tmp_path}: can't read the config: it is a folder" in refusal(tmp_path)


# What is written


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
rates = st.floats(0, 1e6, exclude_min=True)
budgets = st.builds(
    Budget,
    epochs=st.integers(1, 999),
    batch_size=st.integers(1, 2**20),
    lr=rates,
    weight_decay=rates,
    update=st.sampled_from(["epoch", "step"]),
)
configs = st.builds(
    Config,
    output=texts,
    data=st.builds(DataConfig, path=texts, validation=st.none() | texts.filter(bool)),
    augment=st.builds(
        AugmentConfig,
        size=st.integers(1, 4_096),
        mean=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3),
        std=st.just([0.2, 1e-12, 3.0]),
    ),
    seed=st.integers(-(2**63) + 1, 2**63 - 1),
    precision=st.sampled_from(["no", "fp16", "bf16"]),
    deterministic=st.booleans(),
    methods=st.sampled_from([["ce"], ["ce", "ssd"], ["tau_norm"]]),
    budgets=st.fixed_dictionaries({"scratch": budgets, "classifier": budgets}),
    published=st.dictionaries(texts.filter(lambda text: "." not in text), st.floats(0, 100)),
)


@settings(max_examples=30, deadline=None)
@given(config=configs)
def test_a_config_written_as_yaml_is_read_back_equal(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    path.write_text(yaml.safe_dump(schema.to_plain(config)), encoding="utf-8")

    assert load_config(path) == config
