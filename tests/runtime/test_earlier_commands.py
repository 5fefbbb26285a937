"""What a run directory remembers of earlier commands: methods of the user's own, and stages."""

import json
import shutil

from fastssd.recipe_file import load_recipe
from fastssd.runtime.make_graph import make_graph
from fastssd.runtime.record import write_graph
from fastssd.runtime.run_directory import claimed

RECIPE = "output: unset\ndata: {path: data}\naugment: {size: 8}\n"
METHOD = """
stages:
  model: {method: supervised, budget: scratch, draws: features, rows: {classifier: Mine}}
"""


def note(recipe, output, methods):
    recipe = load_recipe(recipe, [f"methods=[{methods}]", f"output={output}"])
    with claimed(output, recipe, write=True) as noted:
        noted()
    return make_graph(recipe)


def test_methods_beside_the_recipe_and_by_path_are_kept_with_the_config(tmp_path):
    home, output = tmp_path / "home", tmp_path / "run"
    (home / "methods").mkdir(parents=True)
    (home / "recipe.yaml").write_text(RECIPE)
    (home / "methods" / "mine.yaml").write_text(METHOD)
    (home / "methods" / "on_mine.yaml").write_text(
        "stages: {model: {method: tau_norm, source: mine:model}}"
    )
    (tmp_path / "elsewhere.yaml").write_text(METHOD.replace("budget", "task: rotation, budget"))

    first = note(home / "recipe.yaml", output, "on_mine")
    second = note(home / "recipe.yaml", output, f"'{tmp_path / 'elsewhere.yaml'}'")
    shutil.rmtree(home)
    (tmp_path / "elsewhere.yaml").unlink()

    read_again = make_graph(load_recipe(output / "config.yaml"))
    assert {stage.digest for stage in read_again.stages} == {
        stage.digest for graph in (first, second) for stage in graph.stages
    }


def test_methods_of_the_project_are_not(tmp_path, project):
    note(project / "configs" / "quickstart.yaml", tmp_path / "run", "ce")

    assert [path.name for path in sorted((tmp_path / "run").glob("[a-z]*"))] == ["config.yaml"]


def test_the_graph_keeps_the_stages_of_earlier_commands(tmp_path, project):
    recipe = project / "configs" / "quickstart.yaml"
    for methods, seeds in (("lws", "[0]"), ("crt", "[0]"), ("ce", "[0, 1]")):
        overrides = [f"methods=[{methods}]", f"seeds={seeds}"]
        write_graph(tmp_path, make_graph(load_recipe(recipe, overrides)))

    found = json.loads((tmp_path / "graph.json").read_text())["stages"]
    assert [(entry["method"], entry["seed"], entry["folder"]) for entry in found] == [
        ("ce", 0, "seed-0/ce"),
        ("ce", 1, "seed-1/ce"),
        ("crt", 0, "crt"),
        ("lws", 0, "lws"),
    ]
