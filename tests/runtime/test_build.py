import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from fastssd.data.draws import unpack_view
from fastssd.models.frozen import set_batchnorm_mode
from fastssd.runtime.build import num_shared_views, prepare, trained_stage
from fastssd.runtime.console import Console
from fastssd.runtime.stop_signal import Agreement
from fastssd.training.trainer import Supervision, Trainer

RESNET = "model.backbone=resnet8"


def train(prepared, context, folder):
    folder.mkdir(exist_ok=True)
    trainer = Trainer(
        prepared.stage,
        prepared.feed,
        prepared.training,
        accelerator=Accelerator(cpu=True),
        folder=folder,
        train_counts=context.train.counts,
        seed=0,
        recipe="a recipe",
        supervision=Supervision(
            console=Console(enabled=False),
            log=context.config.log,
            validation=None,
            agreement=Agreement(lambda: 0),
        ),
        synchronise=lambda module: None,
    )
    trainer.run()
    return trainer.stage


def batchnorms(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]


@pytest.mark.parametrize("folder", ["2-balance", "4-balance"])
def test_scales_learned_from_the_table_are_those_learned_from_images(
    context, plant, job_of, tmp_path, folder
):
    scales = {}
    for source in ("table", "images"):
        made = context(
            RESNET, f"balance.source={source}", "frozen.dtype=float32", output=tmp_path / source
        )
        plant(made, "1-features", "2-balance", "3-distill")
        stage = train(prepare(job_of(made, folder), made), made, tmp_path / source / folder)
        scales[source] = stage.network.scale.scale.detach()
    torch.testing.assert_close(scales["table"], scales["images"], atol=1e-5, rtol=0)
    assert (scales["table"] - 1).abs().max() > 0.05


def test_training_on_frozen_statistics_leaves_the_whole_frozen_network_as_it_was(
    context, plant, job_of, tmp_path
):
    made = context(RESNET, "balance.source=images")
    plant(made, "1-features")
    prepared = prepare(job_of(made, "2-balance"), made)
    frozen = prepared.stage.network.frozen
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    trained = train(prepared, made, made.output / "2-balance").network.frozen
    for name, value in trained.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_recalibrated_statistics_are_the_mean_over_one_class_balanced_pass(context, plant, job_of):
    made = context(RESNET, "frozen.batchnorm=recalibrated")
    plant(made, "1-features")
    original = trained_stage("1-features", made)

    prepared = prepare(job_of(made, "2-balance"), made)

    plan = made.plan(made.config.balance, stream="recalibrate", part="2-balance")
    feed = made.feed(made.config.balance, plan, made.augmentation("recalibrate"))
    convolution = next(m for m in original.backbone.modules() if isinstance(m, nn.Conv2d))
    outputs = [convolution(batch.query).detach().double() for batch in feed.epoch(0)]
    first = batchnorms(prepared.stage.network.frozen)[0]
    means = torch.stack([output.mean(dim=(0, 2, 3)) for output in outputs])
    variances = torch.stack([output.var(dim=(0, 2, 3)) for output in outputs])
    torch.testing.assert_close(first.running_mean.double(), means.mean(dim=0), atol=1e-5, rtol=0)
    torch.testing.assert_close(first.running_var.double(), variances.mean(dim=0), atol=1e-4, rtol=0)
    labels = np.concatenate([batch.labels.numpy() for batch in feed.epoch(0)])
    assert np.ptp(np.bincount(labels)) <= 4  # class-balanced
    for name, value in original.backbone.named_parameters():
        assert torch.equal(value, prepared.stage.network.frozen.backbone.get_parameter(name))


def test_recalibration_is_done_once_and_stages_that_stand_on_it_see_the_same(
    context, plant, job_of
):
    made = context(RESNET, "frozen.batchnorm=recalibrated")
    plant(made, "1-features")
    first = prepare(job_of(made, "2-balance"), made).stage.network.frozen
    file = made.output / "2-balance/recalibrated.safetensors"
    written = file.stat().st_mtime_ns
    plant(made, "2-balance")
    again = prepare(job_of(made, "2-balance"), made).stage.network.frozen
    assert file.stat().st_mtime_ns == written
    for one, other in zip(batchnorms(first), batchnorms(again), strict=True):
        assert torch.equal(one.running_mean, other.running_mean)
        assert torch.equal(one.running_var, other.running_var)


def test_every_process_notices_a_missing_recalibration_before_any_writes_it(context, plant, job_of):
    made = context("frozen.batchnorm=recalibrated")  # plaincnn: no statistics to exchange
    plant(made, "1-features")
    file = made.output / "2-balance/recalibrated.safetensors"
    seen = []
    object.__setattr__(made, "reduce", lambda values: seen.append(file.exists()) or values)
    prepare(job_of(made, "2-balance"), made)
    assert seen[:2] == [False, True]


def test_mode_batch_trains_scales_on_batch_statistics_and_lets_them_drift(
    context, plant, job_of, tmp_path
):
    made = context(
        RESNET, "frozen.batchnorm=batch", "balance.source=images", "distill.teacher=online"
    )
    plant(made, "1-features")
    prepared = prepare(job_of(made, "2-balance"), made)
    frozen = prepared.stage.network.frozen
    before = [layer.running_mean.clone() for layer in batchnorms(frozen)]
    batch = next(iter(prepared.feed.epoch(0)))
    prepared.stage.train()
    in_training = prepared.stage.network(batch.query, None)
    set_batchnorm_mode(frozen.backbone, "batch")
    torch.testing.assert_close(in_training, frozen(batch.query))
    trained = train(prepared, made, made.output / "2-balance").network.frozen
    after = [layer.running_mean for layer in batchnorms(trained)]
    assert all((one - other).abs().max() > 1e-3 for one, other in zip(before, after, strict=True))
    saved = load_file(made.output / "2-balance/weights.safetensors")
    drifted = [value for name, value in saved.items() if name.endswith("running_mean")]
    assert any(torch.equal(value, after[0]) for value in drifted)


def test_stage_three_sees_exactly_the_views_its_teacher_was_asked_about(context, plant, job_of):
    made = context("frozen.views=2", "distill.epochs=4", "frozen.dtype=float32")
    plant(made, "1-features", "2-balance")
    assert num_shared_views(made) == 2
    feed = prepare(job_of(made, "3-distill"), made).feed
    teacher = trained_stage("2-balance", made).network.frozen.eval()
    views = [set() for _ in made.train.labels]
    for epoch in range(4):
        for batch in feed.epoch(epoch):
            torch.testing.assert_close(batch.frozen_logits, teacher(batch.query), atol=1e-4, rtol=0)
            for sample, view in zip(batch.draws.samples, batch.draws.views, strict=True):
                views[sample].add(int(view))
    assert set().union(*views) == {0, 1}


def test_as_many_views_as_epochs_are_every_epochs_own(context):
    made = context()
    plan = made.plan(made.config.distill, stream="distill", part="3-distill", num_views=2)
    first, second = plan.epoch(0), plan.epoch(1)
    order = [np.argsort(draws.samples) for draws in (first, second)]
    assert (first.views[order[0]] != second.views[order[1]]).all()


def test_stage_four_and_the_baseline_tabulate_only_their_own_plans_draws(context, plant, job_of):
    made = context("balance.epochs=1")
    plant(made, "baseline-ce")
    prepared = prepare(job_of(made, "baseline-lws"), made)
    drawn = set()
    for batch in prepared.feed.epoch(0):
        assert batch.views is None
        drawn |= set(zip(batch.draws.samples.tolist(), batch.draws.views.tolist(), strict=True))
    logits = np.load(made.output / "baseline-lws/table/logits.npy", mmap_mode="r")
    assert len(logits) == len(drawn)
    assert set(unpack_view([view for _, view in drawn])[0].tolist()) == {0}


def test_no_table_is_made_on_the_crops_that_its_network_was_trained_on(context, plant, job_of):
    made = context()
    plant(made, "1-features", "2-balance", "3-distill", "baseline-ce")
    streams = {}
    for folder in ("2-balance", "4-balance", "baseline-lws"):
        prepare(job_of(made, folder), made)
        manifest = json.loads((made.output / folder / "table/manifest.json").read_text())
        streams[folder] = manifest["stream"]
    # Stage I trains on `features`, stage III on `distill`.
    expected = {"2-balance": "distill", "4-balance": "balance", "baseline-lws": "balance"}
    assert streams == expected


def test_stages_one_and_ce_start_alike_and_see_images_in_the_same_order(context, job_of):
    made = context()
    one, other = (prepare(job_of(made, folder), made) for folder in ("1-features", "baseline-ce"))
    for name, value in other.stage.state_dict().items():
        assert torch.equal(value, one.stage.state_dict()[name])
    for left, right in zip(one.feed.epoch(1), other.feed.epoch(1), strict=True):
        assert left.draws.samples.tolist() == right.draws.samples.tolist()
        assert torch.equal(left.query, right.query)


def test_the_student_is_fresh_and_its_two_heads_differ(context, plant, job_of):
    made = context(RESNET)
    plant(made, "1-features", "2-balance")
    stage = prepare(job_of(made, "3-distill"), made).stage
    teacher = prepare(job_of(made, "1-features"), made).stage
    assert not torch.equal(stage.hard.weight, stage.soft.weight)
    weights = [next(module.backbone.parameters()) for module in (stage, teacher)]
    assert not torch.equal(*weights)


def test_uses_of_the_images_that_must_not_share_crops_do_not(context):
    made = context("augment.query=imagenet_plain")
    samples = np.arange(100)
    boxes = [
        made.augmentation(stream).boxes(samples, samples * 0, made.train.sizes[:100])
        for stream in ("features", "distill", "balance", "recalibrate")
    ]
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            assert (one != other).any(axis=(1, 2)).mean() > 0.8
