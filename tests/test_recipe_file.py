"""Recipes as people write them: right ones, and wrong ones with a message that helps."""

import dataclasses

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.config import (
    AugmentConfig,
    BalanceConfig,
    Config,
    DataConfig,
    FeaturesConfig,
)
from fastssd.errors import ConfigError
from fastssd.recipe_file import differences, load_config, to_yaml

SMALLEST = "output: runs/x\ndata:\n  path: data/x\naugment:\n  size: 32\n"


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe; the smallest complete one unless told otherwise."""

    def write(text=SMALLEST):
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        return path

    return write


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
        recipe(SMALLEST + "seed: 3\nfeatures:\n  lr: 0.5\n"),
        ["seed=4", "distill.epochs=7", "seed=5"],
    )

    assert (config.seed, config.features.lr, config.distill.epochs) == (5, 0.5, 7)


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
        ("features.lr=0.25", 0.25),
        ("features.lr=2", 2.0),
        ("features.lr=1e-3", 0.001),
        ("features.lr=1E3", 1000.0),
        ("features.lr=.5", 0.5),
        (" features.lr = 0.5 ", 0.5),
        ("features.queue=115712", 115712),
        ("features.queue=115_712", 115712),
        ("seed=-1", -1),
        ("seed=20261123153000", 20261123153000),
        ("deterministic=true", True),
        ("deterministic=no", False),
        ("precision=no", "no"),
        ("precision=bf16", "bf16"),
        ("stages=[I, II]", ["I", "II"]),
        ("baselines=[]", []),
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
        "precision: no\nfeatures:\n  lr: 1e-3\n  weight_decay: 2\n  schedule: multistep\n"
        "  milestones: [120, 160]\n  nesterov: yes\n"
    )

    config = load_config(recipe(text))

    assert config.precision == "no"
    assert config.features == FeaturesConfig(
        lr=0.001, weight_decay=2.0, schedule="multistep", milestones=[120, 160], nesterov=True
    )


@pytest.mark.parametrize("empty", ["", " {}", " null", "\n#  lr: 3"])
def test_a_section_with_nothing_in_it_is_as_if_it_were_not_there(recipe, empty):
    assert load_config(recipe(f"{SMALLEST}balance:{empty}\n")).balance == BalanceConfig()


# What is refused: keys


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("features.epoch", "features.epochs"),
        ("destill.epochs", "distill.epochs"),
        ("ouput", "output"),
        ("epochs", None),
        ("feature", "features"),
        ("data.path.x", "data.path"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_there_is(recipe, key, nearest):
    message = refusal(recipe(), f"{key}=1")

    assert f"{key} is no key of a config" in message
    assert (f"did you mean {nearest}?" in message) == (nearest is not None)


def test_a_key_that_is_nothing_like_any_other_gets_no_hint(recipe):
    assert refusal(recipe(SMALLEST + "zzz: 1\n")).endswith("zzz is no key of a config")


@pytest.mark.parametrize(
    "text", ["1: 2\n", "features:\n  1: 2\n", "null: 3\n", "no: 3\n", "{}: 3\n"]
)
def test_a_key_that_is_not_even_text_is_refused(recipe, text):
    refusal(recipe(SMALLEST + text))


@pytest.mark.parametrize("value", ["3", "[1]", "text", "{epochs: 3}"])
def test_a_section_is_not_a_value(recipe, value):
    message = refusal(recipe(), f"features={value}")

    assert "features is a section, not a value: set its keys, such as features.epochs" in message


def test_a_value_is_not_a_section(recipe):
    assert "augment.size.x is no key" in refusal(recipe(SMALLEST + "  size.x: 3\n"))
    assert "augment.size.x is no key" in refusal(
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
    text = SMALLEST + "features:\n  lr: 1\n  lr: 2\nseed: 0\nfeatures:\n  epochs: 3\n"

    message = refusal(recipe(text))

    assert "features.lr" in message
    assert "features stands there twice" in message


# What is refused: values


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("features.epochs=3.5", "features.epochs"),
        ("features.epochs=ten", "features.epochs"),
        ("features.epochs=true", "features.epochs"),
        ("features.epochs=null", "features.epochs"),
        ("features.epochs=[3]", "features.epochs"),
        ("features.epochs=2026-01-01", "neither text nor a number"),
        ("features.epochs={a: 1}", "neither text nor a number"),
        ("features.lr=fast", "'fast' is not a number"),
        ("features.lr=true", "True is not a number"),
        ("features.lr=", "features.lr"),
        ("features.lr=[0.1]", "features.lr"),
        ("precision=fp32", "'no', 'fp16', 'bf16'"),
        ("precision=yes", "'no', 'fp16', 'bf16'"),
        ("deterministic=maybe", "deterministic"),
        ("stages=I", "stages"),
        ("stages=[I, null]", "stages"),
        ("augment.mean=0.5", "augment.mean"),
        ("augment.mean=null", "augment.mean"),
        ("augment.mean={a: 1}", "neither text nor a number"),
        ("augment.mean=[[1], 2, 3]", "neither text nor a number"),
        ("features.milestones=[1.5]", "features.milestones"),
        ("features.milestones=[true]", "features.milestones"),
        ("features.lr=: {", "is not a YAML value"),
        ("features.lr=2026-99-99", "is not a YAML value"),
        ("features.lr=!!python/object:os.system x", "is not a YAML value"),
        ("data.path=${oc.env:HOME}", "not resolved"),
        ("data.path=???", "not resolved"),
        ("stages=['${seed}']", "not resolved"),
        ("features", "an override is key=value"),
        ("=3", "an override is key=value"),
        ("--features.lr 3", "an override is key=value"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_its_argument(recipe, override, said):
    message = refusal(recipe(), override)

    assert message.startswith(f"argument '{override}'")
    assert said in message
    assert len(message.splitlines()) == 1


NUMBERS = [
    f"{section}{field.name}"
    for section, kind in (("", Config), ("data.", DataConfig), ("features.", FeaturesConfig))
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
    path = recipe("output: o\nseed: x\nfeatures:\n  epoch: 3\n  lr: fast\n")

    lines = refusal(path, "augment.size=a", "balance.lr=.nan", "nonsense").splitlines()

    said = [
        (str(path), "seed"),
        (str(path), "features.epochs?"),
        (str(path), "features.lr"),
        ("'augment.size=a'", "augment.size"),
        ("'balance.lr=.nan'", "balance.lr"),
        ("'nonsense'", "key=value"),
        (str(path), "data.path is missing"),
    ]
    assert len(lines) == len(said)
    for where, what in said:
        assert any(where in line and what in line for line in lines)


def test_every_section_that_contradicts_itself_is_reported(recipe):
    path = recipe(SMALLEST)

    lines = refusal(path, "features.epochs=0", "distill.temperature=-1", "log.every=0").splitlines()

    assert lines == [
        f"{path}: features.epochs=0 must be at least 1",
        f"{path}: distill.temperature=-1.0 must be positive",
        f"{path}: log.every=0 must be at least 1",
    ]


def test_sections_that_contradict_each_other_are_reported_once(recipe):
    lines = refusal(recipe(), "frozen.batchnorm=batch").splitlines()

    assert len(lines) == 1
    assert "balance.source=images" in lines[0]


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
        (b"? [1, 2]\n: 3\n", "not YAML"),
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


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(
    lambda text: "${" not in text and text != "???" and "\0" not in text
)
rates = st.floats(0, 1e6, exclude_min=True)
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
    stages=st.sampled_from([[], ["I"], ["I", "II"]]),
    baselines=st.sampled_from([[], ["CE"]]),
    features=st.builds(FeaturesConfig, lr=rates, weight_decay=rates, queue=st.integers(1, 2**24)),
    balance=st.builds(
        BalanceConfig,
        schedule=st.just("multistep"),
        milestones=st.lists(st.integers(1, 999), min_size=1, max_size=3),
    ),
)


@settings(max_examples=30, deadline=None)
@given(config=configs)
def test_a_config_written_as_yaml_is_read_back_equal(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")

    assert load_config(path) == config


def test_what_is_written_is_complete(recipe):
    written = yaml.safe_load(to_yaml(load_config(recipe())))

    assert written == dataclasses.asdict(load_config(recipe()))


def test_differences_are_named_by_key_with_both_values(recipe):
    old, new = (
        load_config(recipe(), overrides)
        for overrides in ([], ["features.lr=0.3", "stages=[I]", "data.validation=val"])
    )

    assert dict(differences(old, new)) == {
        "data.validation": "data.validation is None, not val",
        "stages": "stages is ['I', 'II', 'III', 'IV'], not ['I']",
        "features.lr": "features.lr is 0.1, not 0.3",
    }
    assert list(differences(old, old)) == []
