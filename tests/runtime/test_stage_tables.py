"""Tables as stages have them made: what they hold, and what a stage learns from them."""

import json

import numpy as np
import pytest
import torch

from fastssd.errors import ConfigError, DataError
from fastssd.losses.distillation import distillation_loss
from fastssd.methods.batch import Moment
from fastssd.runtime.build import prepare, trained, wanted_table
from fastssd.runtime.check import check_run

FLOAT32 = "tables.dtype=float32"
TOPK = ("ssd.II.reads=plan", "ssd.II.bind=S", "ssd.III.reads=S")
NOW = Moment(epoch=0, epochs=2, step=0, steps_per_epoch=5)


@pytest.fixture
def student_of(context, plant, stage_of, tmp_path):
    """Return what prepares stage III on planted stages, under overrides of the recipe."""

    def make(*overrides, name="run"):
        made = context(FLOAT32, *overrides, output=tmp_path / name)
        plant(made, "ssd.I", "ssd.II")
        return prepare(stage_of(made, "ssd.III"), made), made

    return make


def first_loss(prepared):
    batch = next(iter(prepared.batches.epoch(0)))
    return prepared.method.eval()(batch, NOW).losses["distillation"], batch


def manifest_of(made, folder):
    return json.loads((made.output / folder / "manifest.json").read_text())


def teacher_of(made, stage_of):
    """Return the balanced network."""
    return trained(stage_of(made, "ssd.II"), made).network.eval()


@pytest.mark.parametrize(
    ("label", "folder"),
    [("ssd.II", "ssd-T"), ("ssd.IV", "ssd-IV-table"), ("lws.model", "lws-table")],
)
def test_scales_learn_from_features_what_they_learn_from_logits(
    context, plant, stage_of, tmp_path, label, folder
):
    losses = {}
    for kind in ("logits", "features"):
        made = context(FLOAT32, f"tables.store={kind}", output=tmp_path / kind)
        plant(made, "ssd.I", "ssd.II", "ssd.III", "ce.model")
        prepared = prepare(stage_of(made, label), made)
        assert manifest_of(made, folder)["store"] == kind
        losses[kind] = [
            prepared.method.train()(batch, NOW).losses["classification"].item()
            for batch in prepared.batches.epoch(0)
        ]
    np.testing.assert_allclose(losses["logits"], losses["features"], rtol=1e-6)


def test_a_student_reads_from_features_what_it_reads_from_logits(student_of):
    losses, weights = [], []
    for kind in ("logits", "features"):
        prepared, _ = student_of(f"tables.store={kind}", name=kind)
        loss, batch = first_loss(prepared)
        assert (batch.frozen_features is None) == (kind == "logits")
        losses.append(loss.item())
        weights.append([p for p in prepared.method.parameters() if p.requires_grad])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))


def test_new_weights_have_a_table_of_features_whatever_the_recipe_keeps(context, plant, stage_of):
    made = context("methods=[crt, ncm]", "tables.store=logits")
    plant(made, "ce.model")

    prepare(stage_of(made, "crt.model"), made)

    assert manifest_of(made, "crt-table")["store"] == "features"
    assert stage_of(made, "ncm.model").table.holds.store == "features"


def test_top_logits_of_all_classes_give_the_loss_of_a_dense_table_to_the_last_bit(student_of):
    dense, _ = first_loss(student_of(name="dense")[0])
    top, _ = first_loss(student_of(*TOPK, "tables.topk=10", name="top")[0])
    assert torch.equal(dense, top)


def test_stage_two_of_a_topk_run_learns_from_a_table_of_its_own_draws(student_of, stage_of):
    prepared, made = student_of(*TOPK, "tables.topk=3")
    _, batch = first_loss(prepared)
    assert batch.frozen_logits is None
    assert batch.soft_labels.ids.shape == (32, 3)
    written = manifest_of(made, "ssd-S")
    assert (written["store"], written["k"], written["temperature"]) == ("topk", 3, 2.0)
    assert written["rows"]["kind"] == "every view"

    balancing = prepare(stage_of(made, "ssd.II"), made)
    assert manifest_of(made, "ssd-II-table")["store"] == "logits"
    assert manifest_of(made, "ssd-II-table")["rows"]["kind"] == "distinct draws"
    assert balancing.batches.plan.num_views == prepared.batches.plan.num_views


def test_the_rows_of_a_topk_table_are_the_balanced_teachers(student_of, stage_of):
    prepared, made = student_of(*TOPK, "tables.topk=3")
    batch = next(iter(prepared.batches.epoch(1)))
    logits = teacher_of(made, stage_of)(batch.images, None)
    expected = logits.topk(3, dim=1)
    found, order = batch.soft_labels.logits.sort(dim=1, descending=True)
    torch.testing.assert_close(found, expected.values, atol=1e-4, rtol=0)
    assert torch.equal(batch.soft_labels.ids.long().gather(1, order), expected.indices)
    soft = torch.softmax(logits / 2, dim=1)
    rest = 1 - soft.gather(1, expected.indices).sum(dim=1)
    torch.testing.assert_close(batch.soft_labels.rest, rest, atol=1e-5, rtol=0)


def test_the_logits_kept_are_the_fewest_that_have_the_mass_asked_for(student_of, stage_of):
    prepared, made = student_of(*TOPK, "tables.kept_mass=0.8")
    teacher = teacher_of(made, stage_of)
    soft = torch.cat(
        [
            torch.softmax(teacher(batch.images, None) / 2, dim=1)
            for epoch in range(2)
            for batch in prepared.batches.epoch(epoch)
        ]
    )
    mass = soft.sort(dim=1, descending=True).values.cumsum(dim=1).mean(dim=0)
    k = manifest_of(made, "ssd-S")["k"]
    assert 1 < k < 10
    # The batches leave a few of the rows out.
    assert mass[k - 1] > 0.8 - 0.01
    assert mass[k - 2] < 0.8 + 0.01
    assert wanted_table(stage_of(made, "ssd.III").table, made).store.k == k  # once chosen, read


def test_all_classes_are_kept_if_all_mass_is_asked_for(student_of):
    _, made = student_of(*TOPK, "tables.kept_mass=1")
    assert manifest_of(made, "ssd-S")["k"] == 10


def test_a_topk_table_is_no_larger_than_asked(student_of):
    _, made = student_of(*TOPK, "tables.bytes=12000")
    written = manifest_of(made, "ssd-S")
    size = sum(path.stat().st_size - 128 for path in (made.output / "ssd-S").glob("*.npy"))
    assert written["k"] > 1
    assert size <= 12000 < size + 342 * 6


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tables.topk=11", r"ssd-S: topk=11 is more than the dataset's 10 classes"),
        ("ssd.S.bytes=100", r"ssd-S: bytes=100 has no room"),
    ],
)
def test_numbers_of_logits_that_cannot_be_are_refused_before_anything_is_trained(
    context, graph_of, override, message
):
    made = context(*TOPK, override)
    with pytest.raises(ConfigError, match=message):
        check_run(graph_of(made), made)


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("ssd.III.temperature=4", r"temperature is 2\.0, not 4\.0"),
        ("tables.topk=4", r"k is 3, not 4"),
        ("tables.kept_mass=0.8", r"kept_mass is None, not 0\.8"),
    ],
)
def test_a_topk_table_of_another_teacher_is_refused_naming_both(student_of, override, difference):
    student_of(*TOPK, "tables.topk=3")
    topk = () if "kept_mass" in override else ("tables.topk=3",)
    with pytest.raises(DataError, match=f"a table of something else.*{difference}"):
        student_of(*TOPK, *topk, override)


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("seed=1", "seed is 0, not 1"),
        ("augment.mean=[0.5,0.5,0.5]", r"identity\.augment\.mean is"),
        ("precision=bf16", r"identity\.precision is None, not 'bf16'"),
        ("tables.views=3", r"rows\.views is 2, not 3"),
        ("ssd.T.draws=b ssd.III.draws=b/3-distill", r"identity\.draws is 'distill', not 'b'"),
        ("ssd.I.budget.lr=0.5", r"identity\.source\.stage is"),
    ],
)
def test_a_table_of_other_settings_is_refused_naming_them(student_of, override, difference):
    student_of()
    with pytest.raises(DataError, match=difference):
        student_of(*override.split())


def test_a_logits_table_serves_any_temperature(student_of):
    student_of()
    prepared, _ = student_of("ssd.III.temperature=4")
    loss, batch = first_loss(prepared)
    method = prepared.method
    soft = method.classifiers["soft"](method.backbone(batch.images))
    teacher = method.teacher.scale(batch.frozen_logits)
    assert loss.item() == distillation_loss(soft, teacher, temperature=4).item()
