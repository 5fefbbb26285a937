"""The graph of a recipe: what stands on what, what is shared, and what is refused."""

import itertools

import pytest

from fastssd.errors import ConfigError
from fastssd.recipe_file import load_recipe
from fastssd.runtime.graph import Facts, differences
from fastssd.runtime.make_graph import make_graph

SMALLEST = """output: runs/x
data: {path: data/x}
augment: {size: 32}
budgets:
  scratch: {epochs: 20, batch_size: 32, lr: 0.1}
  classifier: {epochs: 5, batch_size: 64, lr: 0.2}
"""
ON_CE = ["lws", "crt", "tau_norm", "ncm", "la_posthoc"]
NINE = ["ce", *ON_CE, "balanced_softmax", "ldam_drw", "ssd"]


@pytest.fixture
def graph(tmp_path):
    """Return what makes the graph of methods under overrides."""

    def make(methods, *overrides, text=SMALLEST, facts=None):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        recipe = load_recipe(path, [f"methods=[{', '.join(methods)}]", *overrides])
        return make_graph(recipe, facts)

    return make


def refusal(graph, methods, *overrides, **kwargs):
    with pytest.raises(ConfigError) as caught:
        graph(methods, *overrides, **kwargs)
    return str(caught.value)


def folders(graph):
    return [stage.folder for stage in graph.stages]


def node(graph, method, stage="model", seed=0):
    return graph.asked[method, stage, seed]


# What stands on what


def test_every_stage_comes_after_those_that_it_stands_on(graph):
    made = graph(NINE, "seeds=[0, 1]")

    seen = []
    for stage in made.stages:
        assert all(source in seen for source in stage.sources.values())
        assert stage.table is None or stage.table.source in seen
        seen.append(stage)


@pytest.mark.parametrize("order", list(itertools.permutations(["lws", "ce", "ncm"])))
def test_one_ce_network_is_trained_whoever_asks_and_in_whatever_order(graph, order):
    made = graph(order)

    assert sorted(folders(made)) == ["ce", "lws", "ncm"]
    assert {id(node(made, method).sources["source"]) for method in ("lws", "ncm")} == {
        id(node(made, "ce"))
    }


def test_a_source_that_was_not_asked_for_is_trained_all_the_same(graph):
    assert folders(graph(["tau_norm"])) == ["ce", "tau_norm"]


def test_a_method_that_is_another_in_other_words_is_that_one(graph):
    made = graph(["ce", "{name: no_task, base: ssd, I.task.kind: none}"])

    assert node(made, "no_task", "I") is node(made, "ce")
    assert folders(made) == ["ce", "no_task-II", "no_task-III", "no_task-IV"]


def test_lws_and_crt_read_one_table_where_it_holds_features(graph):
    features = graph(["lws", "crt"], "tables.store=features")
    logits = graph(["lws", "crt"])

    assert node(features, "lws").table is node(features, "crt").table
    assert node(logits, "lws").table is not node(logits, "crt").table


def test_every_seed_has_a_folder_and_a_network_of_its_own(graph):
    made = graph(["lws"], "seeds=[3, 5]")

    assert folders(made) == ["seed-3/ce", "seed-3/lws", "seed-5/ce", "seed-5/lws"]
    assert node(made, "lws", seed=5).sources["source"] is node(made, "ce", seed=5)


def test_a_table_has_a_view_for_each_epoch_of_the_stage_that_reads_it_longest(graph):
    made = graph(["ssd"])
    fewer = graph(["ssd"], "ssd.T.views=4")

    assert node(made, "ssd", "II").table is node(made, "ssd", "III").table
    assert node(made, "ssd", "III").num_views == node(made, "ssd", "III").table.draws == 20
    assert node(fewer, "ssd", "II").num_views == 4


def test_an_online_teacher_sees_fresh_crops(graph):
    made = graph(["ssd"], "ssd.III.reads=images")

    assert node(made, "ssd", "III").table is None
    assert node(made, "ssd", "III").num_views is None
    assert node(graph(["ssd"], "ssd.III.reads=images", "ssd.III.bind=T"), "ssd", "III").num_views


# Identity


def test_a_stages_identity_is_its_own_settings_and_those_of_what_it_stands_on(graph):
    before = graph(NINE)

    def changed(*overrides):
        after = graph(NINE, *overrides)
        return {
            stage.folder
            for stage, old in zip(after.stages, before.stages, strict=True)
            if stage.digest != old.digest
        }

    on_ce = {"ce", *ON_CE}
    ssd = {"ssd-I", "ssd-II", "ssd-III", "ssd-IV"}
    assert changed("crt.model.budget.lr=0.1") == {"crt"}
    assert changed("ssd.III.temperature=3") == {"ssd-III", "ssd-IV"}
    assert changed("ssd.I.task.weight=0.5") == ssd
    assert changed("ce.model.budget.lr=0.3") == on_ce
    assert changed("budgets.classifier.lr=0.3") == {"lws", "crt", "ssd-II", "ssd-III", "ssd-IV"}
    assert changed("seed=1") == on_ce | ssd | {"balanced_softmax", "ldam_drw"}
    assert changed("augment.key=imagenet") == set()
    assert changed("log.every=3", "evaluation.batch_size=9", "data.threads=2") == set()
    assert changed("data.validation=val") == {"tau_norm", "ncm", "la_posthoc"}


def test_names_are_no_part_of_an_identity(graph):
    made = graph(["ssd", "{name: again, base: ssd}"])

    assert node(made, "again", "IV") is node(made, "ssd", "IV")


def test_another_dataset_makes_every_stage_another(graph):
    old, new = (graph(NINE, facts=Facts(dataset={"meta": meta})) for meta in ("a", "b"))

    assert not {stage.digest for stage in old.stages} & {stage.digest for stage in new.stages}
    told = list(differences(old.stages[0].identity, new.stages[0].identity))
    assert told == ["dataset.meta is a, not b"]


def test_what_stands_at_its_default_is_not_in_an_identity(graph):
    plain = graph(["ce"])
    said = graph(
        ["ce"],
        "ce.model.task=none",
        "ce.model.loss={kind: cross_entropy}",
        "ce.model.budget.momentum=0.9",
        "ce.model.sampler=instance",
        "precision=no",
    )

    assert said.stages[0].identity == plain.stages[0].identity
    assert "task" not in plain.stages[0].identity.get("options", {})


# What is refused


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["ssd.I.tsk.kind=none"],
            "ssd.I.tsk is no key of method supervised; did you mean ssd.I.task",
        ),
        (["ssd.I.task.kind=rotate"], "ssd.I.task.kind=rotate is none of none, rotation, instance"),
        (["ssd.I.task={kind: instance, qeue: 64}"], "did you mean ssd.I.task.queue?"),
        (["ssd.I.task.queue=64"], "ssd.I.task.queue is no key of ssd.I.task"),
        (["ssd.I.loss=ldm"], "did you mean ldam?"),
        (["ssd.I.budget=scrach"], "did you mean scratch?"),
        (["ssd.I.budget.epochs=0"], "ssd.I.budget.epochs=0 must be at least 1"),
        (["ssd.I.method=supervise"], "did you mean supervised?"),
        (["ssd.I.source=II"], "method supervised stands on no source"),
        (["ssd.II.source=V"], "V is no stage of ssd (I, II, III, IV)"),
        (["ssd.II.source=ce:modl"], "did you mean model?"),
        (["ssd.II.source=cee:model"], "did you mean ce?"),
        (["ssd.II.source=IV"], "in a circle"),
        (["ssd.III.reads=X"], "X is no table of ssd (T, S)"),
        (["ssd.I.reads=T"], "method supervised reads no table"),
        (["ssd.II.reads=S"], "in a circle"),
        (["ssd.IV.reads=T"], "that table is of ssd.I, classifier"),
        (["ssd.II.weights=best"], "this stage stands on ssd.I, classifier (best weights"),
        (["ssd.II.batchnorm=recalibrated"], "batchnorm=recalibrated)"),
        (
            ["ssd.II.reads=plan", "ssd.II.bind=S", "ssd.III.reads=S", "ssd.S.store=logits"],
            "that table is of ssd.II, classifier",
        ),
        (["ssd.T.draws=distill_2"], "that table is of the crops distill_2 (train)"),
        (["ssd.IV.reads=T", "ssd.IV.learn=[weights]"], "holds logits, and this stage learns from"),
        (["ssd.III.rows.sft=x"], "its heads are hard, soft"),
        (["ssd.III.heads.soft=techer"], "is neither labels nor teacher"),
        (["ssd.II.sampler=class_awar"], "did you mean class_aware?"),
        (["ssd.II.draws=features", "ssd.II.reads=plan"], "on these crops ssd.I was trained"),
        (["ssd.T.draws=features"], "on these crops ssd.I was trained"),
        (["batchnorm=batch"], "no table can hold them"),
        (["ldam_drw.model.class_weights.from=0.99"], "would never be reached"),
        (["ldam_drw.model.budget.epochs=1"], "would never be reached"),
        (["ldam_drw.model.loss.max_margin=5"], "max_margin=5.0 must be from 0"),
        (["ssd.I.task={kind: instance, queue: 8}"], "must hold at least one batch of 32 keys"),
        (["tau_norm.model.budget=scratch"], "trains nothing over epochs"),
        (["tau_norm.model.head=soft"], "ce.model has classifier"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_place(graph, overrides, said):
    message = refusal(graph, ["ssd", "ldam_drw", "tau_norm"], *overrides)

    assert said in message
    assert "argument '" in message or "configs/methods/" in message or "recipe.yaml" in message


def test_the_place_is_the_line_of_the_file_that_says_it(graph, tmp_path):
    text = SMALLEST + "options:\n  ssd.I.task.kind: rotation\n  ssd.III.temprature: 3\n"

    message = refusal(graph, ["ssd"], text=text)

    assert message.startswith(f"{tmp_path / 'recipe.yaml'}:9: ssd.III.temprature is no key")


def test_a_deferred_weight_moves_with_the_epochs(graph):
    long = node(graph(["ldam_drw"], "budgets.scratch.epochs=200"), "ldam_drw")
    short = node(graph(["ldam_drw"], "budgets.scratch.epochs=10"), "ldam_drw")

    assert long.options.class_weights == short.options.class_weights
