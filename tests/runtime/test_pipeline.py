"""Stages in their folders: classifiers made without training, as whole stages of a run."""

import json
from dataclasses import replace

import numpy as np
import pytest
from accelerate import Accelerator

from fastssd.data.draws import Draws
from fastssd.errors import ConfigError
from fastssd.runtime.build import build, trained
from fastssd.runtime.build import features_of as of_split
from fastssd.runtime.console import Console
from fastssd.runtime.graph import Graph
from fastssd.runtime.pipeline import Runner
from fastssd.runtime.record import check_folders
from fastssd.runtime.rows import measured_rows
from fastssd.runtime.stop_signal import StopSignal
from fastssd.training.batches import finished

MADE = ["tau_norm", "ncm", "la_posthoc"]
CHOSEN = ("methods=[tau_norm, ncm, la_posthoc]", "la_posthoc.model.tau=null")


@pytest.fixture
def run(stage_of):
    """Return what runs some stages of a context's graph, and gives the folders that began."""

    def go(made, *labels):
        stages = [stage_of(made, label) for label in labels]
        begun = []
        runner = Runner(
            context=made,
            accelerator=Accelerator(cpu=True),
            console=Console(enabled=False),
            stop_signal=StopSignal(lambda: 0),
            on_stage=begun.append,
        )
        runner.run(Graph(stages=stages, asked={}))
        return begun

    return go


@pytest.fixture
def made_of(context, run):
    """Return what makes one classifier of a network trained before, under overrides."""

    def make(method, *overrides):
        made = context(*CHOSEN, *overrides)
        run(made, "ce.model", f"{method}.model")
        return made, json.loads((made.output / method / "result.json").read_text())

    return make


def features_of(network, made, name):
    """Return (N, D) features and (N,) labels of a split, image by image, in float64."""
    split, augmentation = made.dataset.split(name), made.test_augmentation()
    fetch = made.fetch(split, augmentation, None)
    rows = [Draws(np.array([sample]), np.array([0])) for sample in range(len(split))]
    found = [network.features(finished(row, fetch(row), augmentation).images) for row in rows]
    return np.concatenate([each.double().numpy() for each in found]), split.labels


def classifiers(method, network, made):
    """Yield each candidate and its logits of features, by the formulas of the papers."""
    weight, bias = (value.detach().double().numpy() for value in network.head.parameters())
    counts = made.train.counts
    if method == "ncm":
        x, y = features_of(network, made, "train")
        centre = x.mean(axis=0)

        def unit(z):
            return (z - centre) / np.linalg.norm(z - centre, axis=1, keepdims=True)

        means = np.stack([unit(x)[y == c].mean(axis=0) for c in range(len(counts))])
        yield None, lambda z: -((unit(z)[:, None] - means) ** 2).sum(axis=2)
        return
    for tau in np.linspace(0, 2, 21):
        if method == "tau_norm":
            scaled = weight / np.linalg.norm(weight, axis=1, keepdims=True) ** tau
            yield tau, lambda z, scaled=scaled: z @ scaled.T
        else:
            shift = tau * np.log(counts / counts.sum())
            yield tau, lambda z, shift=shift: z @ weight.T + bias - shift


def class_mean(logits, labels):
    right = logits.argmax(axis=1) == labels
    return 100 * np.mean([right[labels == c].mean() for c in np.unique(labels)])


@pytest.mark.parametrize("split", ["val", "null"])
@pytest.mark.parametrize("method", MADE)
def test_a_stage_without_training_answers_as_its_paper_says(made_of, stage_of, method, split):
    made, result = made_of(method, f"data.validation={split}", "tables.dtype=float32")
    network = trained(stage_of(made, "ce.model"), made).balanced("classifier", batchnorm="frozen")
    network = network.folded().eval()
    candidates = list(classifiers(method, network, made))
    if method == "ncm":
        best = candidates[0]
    elif split == "null":
        best = candidates[10]
        assert (result["sweep"]["tau"], result["sweep"]["chosen_on"]) == (1, None)
    else:
        x, y = features_of(network, made, "val")
        means = [class_mean(logits_of(x), y) for _, logits_of in candidates]
        best = candidates[int(np.argmax(means))]
        assert result["sweep"]["tau"] == pytest.approx(best[0])
        assert result["sweep"]["chosen_on"] == "validation"
        found = [each["class_mean"] for each in result["sweep"]["candidates"]]
        assert found == pytest.approx(means)

    (row,) = result["rows"]
    x, y = features_of(network, made, "test")
    right = best[1](x).argmax(axis=1) == y
    expected = [int(right[y == c].sum()) for c in range(10)]
    assert np.abs(np.array(row["correct"]) - expected).sum() <= 1  # a tie, by rounding
    assert row["total"] == np.bincount(y, minlength=10).tolist()
    assert (row["method"], row["checkpoint"], row["split"]) == (method, "last", "test")


@pytest.mark.parametrize("method", MADE)
def test_its_weights_alone_give_the_same_row_again(made_of, stage_of, method):
    made, result = made_of(method)
    stage = stage_of(made, f"{method}.model")

    again = measured_rows(stage, build(stage, made), made)

    assert again == result["rows"]
    files = {path.name for path in (made.output / method).iterdir()}
    assert files == {"stage.json", "result.json", "weights.safetensors"}
    assert (made.output / "ncm-table").exists() == (method == "ncm")


def test_a_stage_that_is_finished_is_not_made_again_and_one_that_is_spoilt_is(made_of, run):
    made, before = made_of("tau_norm")
    weights = made.output / "tau_norm/weights.safetensors"
    content = weights.read_bytes()

    assert run(made, "tau_norm.model") == []
    weights.write_bytes(content[:-1])
    assert run(made, "tau_norm.model") == ["tau_norm"]

    assert weights.read_bytes() == content
    after = json.loads((made.output / "tau_norm/result.json").read_text())
    assert (after["rows"], after["files"]) == (before["rows"], before["files"])


def test_processes_make_the_same_classifier_of_disjoint_images(made_of, run, stage_of):
    made, result = made_of("tau_norm")
    split = made.dataset.split("val")
    method = trained(stage_of(made, "ce.model"), made)
    whole = of_split(split, method, "classifier", made)
    parts = [
        of_split(
            split,
            method,
            "classifier",
            replace(made, workers=replace(made.workers, rank=rank, num_processes=3)),
        )
        for rank in range(3)
    ]

    # Each process alone leaves the rows of the others 0: their sum is all of them.
    np.testing.assert_allclose(sum(part.features for part in parts), whole.features, atol=1e-5)
    assert result["sweep"]["images"] == len(split)


def test_a_folder_of_other_settings_is_refused_naming_them(made_of, context, graph_of):
    made_of("tau_norm")
    other = context(*CHOSEN, "tau_norm.model.sweep=[0, 1, 3]", "precision=bf16")

    with pytest.raises(ConfigError) as refusal:
        check_folders(graph_of(other), other)

    message = str(refusal.value)
    assert "\nce: precision is at its default, not bf16\n" in message
    assert "tau_norm: options.sweep is at its default, not [0.0, 1.0, 3.0]; prec" in message
