"""The methods of a recipe: files, options by dataset, variants, the command line over all."""

import pytest

from fastssd.core.tree import plain
from fastssd.errors import ConfigError
from fastssd.method_file import method_files
from fastssd.recipe_file import load_config, load_recipe, to_yaml
from tests.support.recipes import SMALLEST


def refusal(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def blocks(recipe):
    return {
        method.name: {name: plain(block) for name, block in method.stages.items()}
        for method in recipe.methods
    }


def test_options_stand_over_the_file_a_variant_over_them_and_the_command_line_over_all(recipe):
    text = SMALLEST + (
        "methods:\n- ldam_drw\n- {name: wide, base: ldam_drw, model.loss.max_margin: 0.2}\n"
        "options:\n  ldam_drw.model.loss.max_margin: 0.3\n  ldam_drw.model.head.scale: 20\n"
    )

    found = blocks(load_recipe(recipe(text)))
    again = blocks(
        load_recipe(recipe(text), ["wide.model.loss.max_margin=0.1", "ldam_drw.model.head.scale=9"])
    )

    assert found["ldam_drw"]["model"]["loss"] == {"kind": "ldam", "max_margin": 0.3}
    assert found["wide"]["model"]["loss"] == {"kind": "ldam", "max_margin": 0.2}
    assert found["wide"]["model"]["head"]["scale"] == 20
    assert again["wide"]["model"]["loss"]["max_margin"] == 0.1
    assert (
        again["ldam_drw"]["model"]["head"]["scale"] == again["wide"]["model"]["head"]["scale"] == 9
    )


def test_a_block_of_another_kind_replaces_the_one_that_was_there(recipe):
    found = blocks(
        load_recipe(recipe(), ["methods=[ldam_drw]", "ldam_drw.model.loss=cross_entropy"])
    )

    assert found["ldam_drw"]["model"]["loss"] == {"kind": "cross_entropy"}


def test_a_variants_rows_have_its_name_unless_it_gives_them_one(recipe):
    text = SMALLEST + (
        "methods:\n- {name: slow, base: ce}\n"
        "- {name: named, base: ce, model.rows: {classifier: Mine}}\n"
    )

    found = blocks(load_recipe(recipe(text)))

    assert found["slow"]["model"]["rows"] == {"classifier": "CE (slow)"}
    assert found["named"]["model"]["rows"] == {"classifier": "Mine"}


def test_a_recipe_written_is_read_back_with_the_same_methods(recipe, tmp_path):
    text = SMALLEST + (
        "methods:\n- ssd\n- {name: no_task, base: ssd, I.task.kind: none}\n"
        "options:\n  ssd.II.budget.epochs: 7\n"
    )
    first = load_recipe(recipe(text), ["no_task.III.temperature=4", "ssd.I.task.weight=0.5"])
    path = tmp_path / "written.yaml"
    path.write_text(to_yaml(first), encoding="utf-8")

    second = load_recipe(path)

    assert blocks(second) == blocks(first)
    assert to_yaml(second) == to_yaml(first)


def test_methods_are_found_beside_the_recipe_and_by_path(recipe, tmp_path):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "mine.yaml").write_text(
        "stages:\n  model: {method: supervised, budget: scratch, draws: features}\n"
    )
    path = recipe()

    by_name = load_recipe(path, ["methods=[mine]"]).methods[0]
    by_path = load_recipe(path, ["methods=[methods/mine.yaml]"]).methods[0]

    assert (by_name.name, by_path.name) == ("mine", "mine")
    assert "mine" not in method_files()
    assert {"ssd", "ce", "ncm"} <= method_files().keys()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["methods=[sdd]"], "did you mean ssd?"),
        (["methods=[ce, ce]"], "names ce twice"),
        (["methods=[{name: x}]"], "has no base"),
        (["methods=[{name: ../x, base: ce}]"], "letters, digits and _"),
        (["methods=[7]"], "7 is no method's name"),
        (["methods=[nowhere.yaml]"], "there is no file nowhere.yaml"),
        (
            ["methods=[ssd]", "ssd.V.x=1"],
            "ssd.V is no stage or table of ssd (I, II, III, IV, T, S)",
        ),
        (["methods=[ssd]", "ssd.I=1"], "ssd.I is a block"),
        (["methods=[ssd]", "ssd=1"], "ssd is a method"),
    ],
)
def test_a_method_that_can_not_be_is_refused_by_its_argument(recipe, overrides, said):
    message = refusal(recipe(), *overrides)

    assert said in message
    assert f"argument '{overrides[-1]}'" in message
