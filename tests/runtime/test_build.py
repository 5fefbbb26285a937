import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from fastssd.core.processes import Processes
from fastssd.data.draws import unpack_view
from fastssd.models.frozen import set_batchnorm_mode
from fastssd.runtime.build import build, plan_of, prepare, trained
from fastssd.runtime.console import Console
from fastssd.runtime.stop_signal import StopSignal
from fastssd.training.batches import Batches
from fastssd.training.trainer import Supervision, Trainer

RESNET = "model.backbone=resnet8"
FLOAT32 = "tables.dtype=float32"


def train(stage, context):
    """Return a stage's method after its training."""
    prepared = prepare(stage, context)
    trainer = Trainer(
        prepared.method,
        prepared.batches,
        stage.budget,
        accelerator=Accelerator(cpu=True),
        folder=context.output / stage.folder,
        train_counts=context.train.counts,
        seed=stage.seed,
        order=stage.order,
        digest=stage.digest,
        supervision=Supervision(
            console=Console(enabled=False),
            log=context.config.log,
            validation=None,
            stop_signal=StopSignal(lambda: 0),
        ),
        synchronise=lambda module: None,
    )
    trainer.run()
    return trainer.stage


def batchnorms(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]


def learned(method):
    """Return the weights that learn."""
    return {
        name: value.detach() for name, value in method.named_parameters() if value.requires_grad
    }


def assert_equal_statistics(one, other):
    for left, right in zip(batchnorms(one), batchnorms(other), strict=True):
        assert torch.equal(left.running_mean, right.running_mean)
        assert torch.equal(left.running_var, right.running_var)


# From a table and from images


@pytest.mark.parametrize(
    ("label", "settings", "from_images"),
    [
        ("ssd.II", [], ["ssd.II.bind=T"]),
        ("ssd.IV", [], []),
        ("lws.model", ["tables.store=features"], []),
        ("lws.model", ["lws.model.learn=[weights, scales]"], []),
        ("crt.model", [], []),
    ],
)
def test_what_is_learned_from_a_table_is_learned_from_images(
    context, plant, stage_of, tmp_path, label, settings, from_images
):
    found = []
    for name, more in (("table", []), ("images", [f"{label}.reads=images", *from_images])):
        made = context(
            "methods=[ce, lws, crt, ssd]",
            RESNET,
            FLOAT32,
            *settings,
            *more,
            output=tmp_path / name,
        )
        plant(made, "ce.model", "ssd.I", "ssd.II", "ssd.III")
        before = learned(build(stage_of(made, label), made))
        found.append(learned(train(stage_of(made, label), made)))

    table, images = found
    assert table.keys() == images.keys() == before.keys()
    for name in table:
        torch.testing.assert_close(table[name], images[name], atol=2e-5, rtol=1e-4)
        assert (table[name] - before[name]).abs().max() > 0.02


def test_training_on_frozen_statistics_leaves_the_whole_frozen_network_as_it_was(
    context, plant, stage_of
):
    made = context(RESNET, "ssd.II.reads=images")
    plant(made, "ssd.I")
    stage = stage_of(made, "ssd.II")
    before = build(stage, made).frozen.state_dict()

    after = train(stage, made).frozen.state_dict()

    for name, value in after.items():
        assert torch.equal(value, before[name]), name


def test_mode_batch_trains_scales_on_batch_statistics_and_lets_them_drift(context, plant, stage_of):
    made = context(
        RESNET,
        "methods=[ssd]",
        "batchnorm=batch",
        *(f"ssd.{i}.reads=images" for i in ("II", "III", "IV")),
    )
    plant(made, "ssd.I")
    stage = stage_of(made, "ssd.II")
    prepared = prepare(stage, made)
    frozen = prepared.method.frozen
    before = [layer.running_mean.clone() for layer in batchnorms(frozen)]
    batch = next(iter(prepared.batches.epoch(0)))
    in_training = prepared.method.train().network(batch.images, None)
    set_batchnorm_mode(frozen.backbone, "batch")
    torch.testing.assert_close(in_training, frozen(batch.images))

    after = [layer.running_mean for layer in batchnorms(train(stage, made).frozen)]

    assert all((one - other).abs().max() > 1e-3 for one, other in zip(before, after, strict=True))
    saved = load_file(made.output / "ssd-II/weights.safetensors")
    drifted = [value for name, value in saved.items() if name.endswith("running_mean")]
    assert any(torch.equal(value, after[0]) for value in drifted)


# Recalibration


def test_recalibrated_statistics_are_the_mean_over_one_class_balanced_pass(
    context, plant, stage_of
):
    made = context(RESNET, "batchnorm=recalibrated")
    plant(made, "ssd.I")
    source = stage_of(made, "ssd.I")
    original = trained(source, made)

    frozen = build(stage_of(made, "ssd.II"), made).frozen

    augmentation = made.augmentation("recalibrate", seed=0)
    batches = Batches(
        plan=made.plan("class_aware", stream="recalibrate", order=source.order, seed=0, epochs=1),
        source=made.workers.source(made.fetch(made.train, augmentation, None)),
        augmentation=augmentation,
        budget=made.config.budgets["classifier"],
        workers=made.workers,
    )
    convolution = next(m for m in original.backbone.modules() if isinstance(m, nn.Conv2d))
    outputs = [convolution(batch.images).detach().double() for batch in batches.epoch(0)]
    first = batchnorms(frozen)[0]
    means = torch.stack([output.mean(dim=(0, 2, 3)) for output in outputs])
    variances = torch.stack([output.var(dim=(0, 2, 3)) for output in outputs])
    torch.testing.assert_close(first.running_mean.double(), means.mean(dim=0), atol=1e-5, rtol=0)
    torch.testing.assert_close(first.running_var.double(), variances.mean(dim=0), atol=1e-4, rtol=0)
    labels = np.concatenate([batch.labels.numpy() for batch in batches.epoch(0)])
    assert np.ptp(np.bincount(labels)) <= 4  # class-balanced
    for name, value in original.backbone.named_parameters():
        assert torch.equal(value, frozen.backbone.get_parameter(name))


def test_recalibration_is_done_once_and_all_that_stand_on_the_network_see_the_same(
    context, plant, stage_of
):
    made = context(RESNET, "batchnorm=recalibrated", FLOAT32)
    plant(made, "ssd.I")
    first = build(stage_of(made, "ssd.II"), made).frozen
    files = list(made.output.rglob("recalibrated-*"))
    written = [file.stat().st_mtime_ns for file in files]
    assert len(files) == 1
    plant(made, "ssd.II")

    again = build(stage_of(made, "ssd.II"), made).frozen
    batch = next(iter(prepare(stage_of(made, "ssd.III"), made).batches.epoch(0)))

    assert [file.stat().st_mtime_ns for file in files] == written
    assert_equal_statistics(first, again)
    torch.testing.assert_close(batch.frozen_logits, first.eval()(batch.images), atol=1e-4, rtol=0)


def test_every_process_notices_a_missing_recalibration_before_any_writes_it(
    context, plant, stage_of
):
    made = context()
    plant(made, "ssd.I")
    seen = []

    def look(*values):
        seen.append(bool(list(made.output.rglob("recalibrated-*"))))
        return values[0] if values else None

    # plaincnn: no statistics to exchange
    processes = Processes(main_says=look, barrier=look)
    made = context("batchnorm=recalibrated", processes=processes)
    build(stage_of(made, "ssd.II"), made)

    assert seen[:2] == [False, True]


# Draws and views


def test_a_student_sees_exactly_the_views_its_teacher_was_asked_about(context, plant, stage_of):
    made = context("tables.views=2", "ssd.III.budget.epochs=4", FLOAT32)
    plant(made, "ssd.I", "ssd.II")
    batches = prepare(stage_of(made, "ssd.III"), made).batches
    frozen = trained(stage_of(made, "ssd.II"), made).frozen.eval()
    views = [set() for _ in made.train.labels]

    for epoch in range(4):
        for batch in batches.epoch(epoch):
            said = frozen(batch.images)
            torch.testing.assert_close(batch.frozen_logits, said, atol=1e-4, rtol=0)
            for sample, view in zip(batch.draws.samples, batch.draws.views, strict=True):
                views[sample].add(int(view))

    assert set().union(*views) == {0, 1}


@pytest.mark.parametrize("settings", [[], ["ssd.III.reads=images", "tables.views=1"]])
def test_every_epoch_has_its_own_views_where_there_are_enough_or_no_table_is_read(
    context, stage_of, settings
):
    made = context(*settings)
    plan = plan_of(stage_of(made, "ssd.III"), made)

    first, second = plan.epoch(0), plan.epoch(1)

    order = [np.argsort(draws.samples) for draws in (first, second)]
    assert (first.views[order[0]] != second.views[order[1]]).all()


def test_a_table_of_a_stages_own_draws_has_a_row_for_each_and_no_other(context, plant, stage_of):
    made = context("budgets.classifier.epochs=1")
    plant(made, "ce.model")
    prepared = prepare(stage_of(made, "lws.model"), made)

    drawn = set()
    for batch in prepared.batches.epoch(0):
        assert batch.views is None
        drawn |= set(zip(batch.draws.samples.tolist(), batch.draws.views.tolist(), strict=True))

    logits = np.load(made.output / "lws-table/logits.npy", mmap_mode="r")
    assert len(logits) == len(drawn)
    assert set(unpack_view([view for _, view in drawn])[0].tolist()) == {0}


def test_no_table_is_made_on_the_crops_that_its_network_was_trained_on(
    context, plant, stage_of, graph_of
):
    made = context("methods=[ce, lws, crt, ncm, ssd]")
    tables = graph_of(made).tables()

    assert {table.folder for table in tables} >= {"ssd-T", "ssd-IV-table", "lws-table", "ncm-table"}
    for table in tables:
        network = table.source
        while "source" in network.sources:
            network = network.sources["source"]
        assert table.transform == "test" or table.stream != network.stream
    plant(made, "ce.model")
    prepare(stage_of(made, "lws.model"), made)
    manifest = json.loads((made.output / "lws-table/manifest.json").read_text())
    assert manifest["identity"]["draws"] == "balance"


def test_two_methods_of_the_same_draws_start_alike_and_see_images_in_the_same_order(
    context, stage_of
):
    made = context()
    one, other = (prepare(stage_of(made, label), made) for label in ("ssd.I", "ce.model"))

    for name, value in other.method.state_dict().items():
        assert torch.equal(value, one.method.state_dict()[name])
    for left, right in zip(one.batches.epoch(1), other.batches.epoch(1), strict=True):
        assert left.draws.samples.tolist() == right.draws.samples.tolist()
        assert torch.equal(left.images, right.images)


def test_seeds_have_other_weights_other_crops_and_another_order(context, graph_of):
    made = context("methods=[ce]", "seeds=[3, 4]", "augment.train=imagenet_plain")
    one, other = (prepare(graph_of(made).asked["ce", "model", seed], made) for seed in (3, 4))

    assert not torch.equal(*(next(each.method.parameters()) for each in (one, other)))
    left, right = (next(iter(each.batches.epoch(0))) for each in (one, other))
    assert left.draws.samples.tolist() != right.draws.samples.tolist()
    samples = np.arange(100)
    boxes = [
        each.batches.augmentation.boxes(samples, samples * 0, made.train.sizes[:100])
        for each in (one, other)
    ]
    assert (boxes[0] != boxes[1]).any(axis=(1, 2)).mean() > 0.8


def test_the_student_is_fresh_and_its_two_heads_differ(context, plant, stage_of):
    made = context(RESNET)
    plant(made, "ssd.I", "ssd.II")
    student, teacher = (build(stage_of(made, label), made) for label in ("ssd.III", "ssd.I"))

    hard, soft = student.classifiers.values()
    assert not torch.equal(hard.weight, soft.weight)
    weights = [next(module.backbone.parameters()) for module in (student, teacher)]
    assert not torch.equal(*weights)


def test_uses_of_the_images_that_must_not_share_crops_do_not(context):
    made = context("augment.train=imagenet_plain")
    samples = np.arange(100)
    boxes = [
        made.augmentation(stream, seed=0).boxes(samples, samples * 0, made.train.sizes[:100])
        for stream in ("features", "distill", "balance", "recalibrate")
    ]
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            assert (one != other).any(axis=(1, 2)).mean() > 0.8
