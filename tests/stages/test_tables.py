import json

import numpy as np
import pytest
import torch

from fastssd.config import FrozenConfig
from fastssd.errors import ConfigError, DataError
from fastssd.losses.distillation import distillation_loss
from fastssd.stages.build import prepare, trained_stage
from fastssd.stages.tables import teacher_store

FLOAT32 = "frozen.dtype=float32"


@pytest.fixture
def student_of(context, plant, job_of, tmp_path):
    """Return what prepares stage III on planted stages, under overrides of the recipe."""

    def make(*overrides, name="run"):
        made = context(FLOAT32, *overrides, output=tmp_path / name)
        plant(made, "1-features", "2-balance")
        return prepare(job_of(made, "3-distill"), made), made

    return make


def first_loss(prepared):
    batch = next(iter(prepared.feed.epoch(0)))
    return prepared.stage.eval()(batch).losses["distillation"], batch


def manifest_of(made, folder):
    return json.loads((made.output / folder / "table/manifest.json").read_text())


@pytest.mark.parametrize("folder", ["2-balance", "4-balance", "baseline-lws"])
def test_scales_learn_from_features_what_they_learn_from_logits(
    context, plant, job_of, tmp_path, folder
):
    losses = {}
    for kind in ("logits", "features"):
        made = context(FLOAT32, f"frozen.store={kind}", output=tmp_path / kind)
        plant(made, "1-features", "2-balance", "3-distill", "baseline-ce")
        prepared = prepare(job_of(made, folder), made)
        assert manifest_of(made, folder)["store"] == kind
        losses[kind] = [
            prepared.stage.train()(batch).losses["classification"].item()
            for batch in prepared.feed.epoch(0)
        ]
    np.testing.assert_allclose(losses["logits"], losses["features"], rtol=1e-6)


def test_stage_three_reads_from_features_what_it_reads_from_logits(student_of):
    losses, weights = [], []
    for kind in ("logits", "features"):
        prepared, _ = student_of(f"frozen.store={kind}", name=kind)
        loss, batch = first_loss(prepared)
        assert (batch.frozen_features is None) == (kind == "logits")
        losses.append(loss.item())
        weights.append([p for p in prepared.stage.parameters() if p.requires_grad])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))


def test_top_logits_of_all_classes_give_the_loss_of_a_dense_table_to_the_last_bit(student_of):
    losses = []
    for kind in ("logits", "topk"):
        prepared, _ = student_of(f"frozen.store={kind}", "frozen.topk=10", name=kind)
        losses.append(first_loss(prepared)[0])
    assert torch.equal(*losses)


def test_stage_two_of_a_topk_run_learns_from_a_table_of_its_own_draws(student_of):
    prepared, made = student_of("frozen.store=topk", "frozen.topk=3")
    _, batch = first_loss(prepared)
    assert batch.frozen_logits is None
    assert batch.soft_labels.ids.shape == (32, 3)
    assert manifest_of(made, "2-balance")["store"] == "logits"  # 10 classes, 128 features
    assert manifest_of(made, "2-balance")["rows"]["kind"] == "distinct draws"
    written = manifest_of(made, "3-distill")
    assert (written["store"], written["k"], written["temperature"]) == ("topk", 3, 2.0)
    assert written["rows"]["kind"] == "every view"


def test_the_rows_of_a_topk_table_are_the_balanced_teachers(student_of):
    prepared, made = student_of("frozen.store=topk", "frozen.topk=3")
    teacher = trained_stage("2-balance", made).network.eval()
    batch = next(iter(prepared.feed.epoch(1)))
    logits = teacher(batch.query, None)
    expected = logits.topk(3, dim=1)
    found, order = batch.soft_labels.logits.sort(dim=1, descending=True)
    torch.testing.assert_close(found, expected.values, atol=1e-4, rtol=0)
    assert torch.equal(batch.soft_labels.ids.long().gather(1, order), expected.indices)
    soft = torch.softmax(logits / 2, dim=1)
    rest = 1 - soft.gather(1, expected.indices).sum(dim=1)
    torch.testing.assert_close(batch.soft_labels.rest, rest, atol=1e-5, rtol=0)


def test_the_logits_kept_are_the_fewest_that_have_the_mass_asked_for(student_of):
    prepared, made = student_of("frozen.store=topk", "frozen.kept_mass=0.8")
    teacher = trained_stage("2-balance", made).network.eval()
    soft = torch.cat(
        [
            torch.softmax(teacher(batch.query, None) / 2, dim=1)
            for epoch in range(2)
            for batch in prepared.feed.epoch(epoch)
        ]
    )
    mass = soft.sort(dim=1, descending=True).values.cumsum(dim=1).mean(dim=0)
    k = manifest_of(made, "3-distill")["k"]
    assert 1 < k < 10
    # The feed leaves a few of the rows out.
    assert mass[k - 1] > 0.8 - 0.01
    assert mass[k - 2] < 0.8 + 0.01
    again = teacher_store(
        trained_stage("2-balance", made).network, made.output / "3-distill/table", made
    )
    assert again.k == k


def test_all_classes_are_kept_if_all_mass_is_asked_for(student_of):
    _, made = student_of("frozen.store=topk", "frozen.kept_mass=1")
    assert manifest_of(made, "3-distill")["k"] == 10


def test_a_topk_table_is_no_larger_than_asked(student_of):
    _, made = student_of("frozen.store=topk", "frozen.table_bytes=12000")
    written = manifest_of(made, "3-distill")
    size = sum(
        path.stat().st_size - 128 for path in (made.output / "3-distill/table").glob("*.npy")
    )
    assert written["k"] == (12000 // 342 - 4) // 6
    assert size <= 12000 < size + 342 * 6


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("frozen.topk=11", r"frozen\.topk=11 is more than the dataset's 10 classes"),
        ("frozen.table_bytes=100", r"frozen\.table_bytes=100 is not one logit"),
    ],
)
def test_numbers_of_logits_that_cannot_be_are_refused(student_of, override, message):
    with pytest.raises(ConfigError, match=message):
        student_of("frozen.store=topk", override)


def test_a_topk_table_of_another_temperature_is_refused_naming_both(student_of):
    student_of("frozen.store=topk", "frozen.topk=3")
    with pytest.raises(DataError, match=r"temperature is 2\.0, not 4\.0"):
        student_of("frozen.store=topk", "frozen.topk=3", "distill.temperature=4")


@pytest.mark.parametrize("override", ["frozen.topk=4", "frozen.kept_mass=0.8"])
def test_a_topk_table_of_another_target_is_refused(student_of, override):
    student_of("frozen.store=topk", "frozen.topk=3")
    with pytest.raises(DataError, match="a table of something else"):
        student_of("frozen.store=topk", override)


def test_a_logits_table_serves_any_temperature(student_of):
    student_of("frozen.store=logits")
    prepared, _ = student_of("frozen.store=logits", "distill.temperature=4")
    loss, batch = first_loss(prepared)
    stage = prepared.stage
    soft = stage.soft(stage.backbone(batch.query))
    teacher = stage.teacher.scale(batch.frozen_logits)
    assert loss.item() == distillation_loss(soft, teacher, temperature=4).item()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"topk": -1}, "frozen.topk=-1 must be at least 0"),
        ({"kept_mass": 0.0}, "frozen.kept_mass=0.0 must be positive"),
        ({"kept_mass": 1.5}, "at most 1"),
        ({"topk": 3, "table_bytes": 9}, "both say how many"),
    ],
)
def test_a_contradicting_config_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        FrozenConfig(**settings)
