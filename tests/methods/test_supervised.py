import math

import numpy as np
import pytest
import torch
from torch import nn

from fastssd.augment.augmentation import AugmentedViews
from fastssd.config import ModelConfig
from fastssd.core.schema import read
from fastssd.core.tree import tree_of
from fastssd.errors import ConfigError
from fastssd.methods.batch import Batch, Moment
from fastssd.methods.method import Parts
from fastssd.methods.options import SupervisedOptions
from fastssd.methods.supervised import Supervised

NUM_CLASSES = 3
COUNTS = np.array([70, 20, 4])
NOW = Moment(epoch=0, epochs=10, step=0, steps_per_epoch=5)
QUERY, KEY = torch.randn(2, 8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
TURNS = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
ROTATED = torch.stack([torch.rot90(QUERY[i], int(TURNS[i]), (1, 2)) for i in range(8)])


def batch(query=QUERY, key=KEY, labels=LABELS) -> Batch:
    views = AugmentedViews(query=query, key=key, rotated=ROTATED, turns=TURNS)
    return Batch(draws=None, labels=labels, views=views)


def build(task="none", backbone="plaincnn", *, choices=None, **settings) -> Supervised:
    """Return the method, with a task under settings and other choices such as of the loss."""
    if task == "instance":
        settings = {"queue": 12, "embedding": 4, **settings}
    blocks = {"task": {"kind": task, **settings}, **(choices or {})}
    options = read(tree_of(blocks, "a test"), SupervisedOptions, key="", where="a test")
    parts = Parts(
        seed=0,
        order="features",
        num_classes=NUM_CLASSES,
        counts=COUNTS,
        model=ModelConfig(backbone=backbone),
    )
    return Supervised(options, parts)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the mean of -log softmax, image by image in float64."""
    rows = logits.detach().double().tolist()
    losses = [
        math.log(sum(map(math.exp, row))) - row[label]
        for row, label in zip(rows, labels.tolist(), strict=True)
    ]
    return sum(losses) / len(losses)


def test_the_baseline_is_cross_entropy_alone():
    stage = build("none")
    output = stage(batch(), NOW)
    logits = stage.classifier(stage.backbone(QUERY))
    assert set(output.losses) == set(output.correct) == {"classification"}
    loss = output.losses["classification"].item()
    assert loss == pytest.approx(cross_entropy(logits, LABELS), abs=1e-5)
    assert output.correct["classification"].tolist() == (logits.argmax(dim=1) == LABELS).tolist()
    assert torch.equal(stage.predict(QUERY)["classifier"], logits)


def test_the_rotation_task_classifies_upright_images_and_the_angles_of_turned_ones():
    stage = build("rotation", weight=0.5)
    output = stage(batch(), NOW)
    logits, angles = (
        stage.classifier(stage.backbone(QUERY)),
        stage.task.rotation(stage.backbone(ROTATED)),
    )
    assert angles.shape == (8, 4)
    losses = {name: loss.item() for name, loss in output.losses.items()}
    expected = {
        "classification": cross_entropy(logits, LABELS),
        "rotation": 0.5 * cross_entropy(angles, TURNS),
    }
    assert losses == pytest.approx(expected, abs=1e-5)
    assert output.correct["rotation"].tolist() == (angles.argmax(dim=1) == TURNS).tolist()


def test_joint_and_separate_forward_differ_only_in_what_batchnorm_sees():
    def losses(backbone, forward):
        return {
            k: v.item()
            for k, v in build("rotation", backbone, forward=forward)(batch(), NOW).losses.items()
        }

    assert losses("plaincnn", "joint") == pytest.approx(losses("plaincnn", "separate"), abs=1e-5)
    reference = build("none", "resnet8")
    alone = cross_entropy(reference.classifier(reference.backbone(QUERY)), LABELS)
    mixed = reference.classifier(reference.backbone(torch.cat([QUERY, ROTATED])))[:8]
    separate, joint = losses("resnet8", "separate"), losses("resnet8", "joint")
    assert separate["classification"] == pytest.approx(alone, abs=1e-5)
    assert joint["classification"] == pytest.approx(cross_entropy(mixed, LABELS), abs=1e-5)
    assert abs(alone - joint["classification"]) > 1e-4


def slow_instance_loss(query, key, queue, queue_labels, labels, temperature, *, mask) -> float:
    """Return the mean of the paper's equation 2, term by term in float64."""
    total = 0.0
    for i in range(len(query)):
        scores = [float(query[i].double() @ key[i].double())]
        scores += [
            float(query[i].double() @ negative.double())
            for negative, label in zip(queue, queue_labels.tolist(), strict=True)
            if not (mask and label == int(labels[i]))
        ]
        terms = [math.exp(score / temperature) for score in scores]
        total -= math.log(terms[0] / sum(terms))
    return total / len(query)


@pytest.mark.parametrize("mask", [False, True])
def test_queue_and_momentum_encoder_evolve_as_a_slow_reference(mask):
    momentum, lr, temperature = 0.9, 0.05, 0.2
    stage = build(
        "instance",
        encoder_momentum=momentum,
        temperature=temperature,
        mask_same_class=mask,
        weight=2.0,
    )
    slow = {name: value.clone() for name, value in stage.task.encoder.encoder.named_parameters()}
    fast = dict(nn.Sequential(stage.backbone, stage.task.projection).named_parameters())
    assert all(torch.equal(slow[name], fast[name]) for name in slow)
    queue, labels_of_queue = [*stage.task.queue.keys.clone()], [-1] * 12
    oldest = 0
    optimizer = torch.optim.SGD([p for p in stage.parameters() if p.requires_grad], lr=lr)

    for step in range(4):
        query, key, labels = QUERY.roll(step, 0), KEY.roll(step, 0), LABELS.roll(step)
        with torch.no_grad():
            embedded = stage.task.projection(stage.backbone(query))
            names = {name: value.clone() for name, value in slow.items()}
            encoder = nn.Sequential(stage.backbone, stage.task.projection)
            keys = torch.func.functional_call(encoder, names, (key,))
        expected = 2 * slow_instance_loss(
            embedded, keys, queue, torch.tensor(labels_of_queue), labels, temperature, mask=mask
        )

        output = stage(batch(query, key, labels), NOW)
        assert output.losses["instance"].item() == pytest.approx(expected, abs=1e-4)
        torch.stack([*output.losses.values()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        stage.after_step(NOW)

        for name, value in fast.items():
            slow[name] = momentum * slow[name] + (1 - momentum) * value.detach()
        for one, label in zip(keys, labels.tolist(), strict=True):
            queue[oldest], labels_of_queue[oldest] = one, label
            oldest = (oldest + 1) % 12
        torch.testing.assert_close(stage.task.queue.keys, torch.stack(queue), atol=1e-5, rtol=0)
        assert stage.task.queue.labels.tolist() == labels_of_queue
        assert int(stage.task.queue.pointer) == oldest
        for name, value in stage.task.encoder.encoder.named_parameters():
            torch.testing.assert_close(value, slow[name], atol=1e-6, rtol=0)


def test_keys_come_from_the_keys_crops_alone():
    def keys(**views):
        stage = build("instance")
        stage(batch(**views), NOW)
        stage.after_step(NOW)
        return stage.task.queue.keys[:8]

    expected = keys()
    assert torch.equal(keys(query=torch.zeros_like(QUERY)), expected)
    assert (keys(key=QUERY) - expected).abs().amax(dim=1).min() > 1e-3


def test_the_query_and_key_of_a_draw_are_different_crops(context):
    made = context("augment.train=imagenet")
    augmentation = made.augmentation("features", seed=0, key=True)
    samples = torch.arange(50).numpy()
    boxes = augmentation.boxes(samples, samples * 0, made.train.sizes[:50])
    assert boxes.shape == (50, 2, 4)
    assert (boxes[:, 0] != boxes[:, 1]).any(axis=1).mean() > 0.9


def test_no_gradient_reaches_keys_momentum_encoder_or_queue():
    stage = build("instance")
    key = KEY.clone().requires_grad_()
    sum(stage(batch(key=key), NOW).losses.values()).backward()
    assert key.grad is None
    assert all(parameter.grad is None for parameter in stage.task.encoder.parameters())
    learns = {name for name, value in stage.named_parameters() if value.grad is not None}
    assert {name.split(".")[0] for name in learns} == {"backbone", "classifier", "task"}


def test_the_queue_stays_as_it_was_until_the_step_is_taken():
    stage = build("instance")
    before = stage.task.queue.keys.clone()
    stage(batch(), NOW)
    stage(batch(KEY, QUERY), NOW)  # a second micro-batch
    assert torch.equal(stage.task.queue.keys, before)
    stage.after_step(NOW)
    assert int(stage.task.queue.pointer) == 16 % 12


def test_the_momentum_encoders_batchnorm_follows_its_own_passes():
    stage = build("instance", "resnet8")
    convolution = stage.task.encoder.encoder[0]
    first = next(layer for layer in convolution.modules() if isinstance(layer, nn.BatchNorm2d))
    before = first.running_mean.clone()
    stage(batch(), NOW)
    after_forward = first.running_mean.clone()
    stage.after_step(NOW)
    assert not torch.equal(before, after_forward)
    assert torch.equal(first.running_mean, after_forward)  # averaged are parameters alone


@pytest.mark.parametrize("task", ["rotation", "instance"])
def test_a_batch_without_the_tasks_views_is_refused(task):
    plain = Batch(draws=None, labels=LABELS, views=AugmentedViews(query=QUERY))
    with pytest.raises(ValueError, match="augmentation with"):
        build(task)(plain, NOW)


def test_tasks_start_from_the_same_backbone_and_classifier():
    states = [build(task, "resnet8").state_dict() for task in ("none", "rotation", "instance")]
    for name in states[0]:
        assert torch.equal(states[0][name], states[1][name])
        assert torch.equal(states[0][name], states[2][name])


# Losses, heads and class weights


def test_class_weights_hold_from_their_epoch_on_and_only_in_the_supervised_loss():
    weights = {"kind": "inverse_power", "from": 0.8}
    stage = build("rotation", choices={"class_weights": weights})

    losses = [stage(batch(), NOW._replace(epoch=epoch)).losses for epoch in range(10)]

    logits = stage.classifier(stage.backbone(QUERY)).detach()
    each = [cross_entropy(logits[i : i + 1], LABELS[i : i + 1]) for i in range(8)]
    of_image = 1 / COUNTS[LABELS.numpy()]
    plain, weighted = np.mean(each), np.sum(of_image * each) / of_image.sum()
    found = [of_epoch["classification"].item() for of_epoch in losses]
    assert abs(plain - weighted) > 1e-3
    assert found == pytest.approx([plain] * 8 + [weighted] * 2, abs=1e-5)
    assert len({of_epoch["rotation"].item() for of_epoch in losses}) == 1


def test_a_margin_is_scaled_as_the_head_scales_its_cosines():
    choices = {"head": {"kind": "cosine", "scale": 8}, "loss": {"kind": "ldam", "max_margin": 0.4}}
    stage = build(choices=choices)

    loss = stage(batch(), NOW).losses["classification"].item()

    logits = stage.classifier(stage.backbone(QUERY)).detach()
    assert logits.abs().max() <= 8
    margins = 0.4 * (COUNTS.min() / COUNTS) ** 0.25  # Cao et al., equation 13
    for i, label in enumerate(LABELS.tolist()):
        logits[i, label] -= 8 * margins[label]
    assert loss == pytest.approx(cross_entropy(logits, LABELS), abs=1e-4)


def test_a_margin_needs_a_head_of_cosines():
    with pytest.raises(ConfigError, match="kind: cosine, scale: 30"):
        build(choices={"loss": "ldam"})


def test_nothing_that_follows_from_the_counts_is_saved():
    choices = {
        "head": {"kind": "cosine"},
        "loss": {"kind": "ldam"},
        "class_weights": {"kind": "effective_number"},
    }

    assert (
        build(choices=choices).state_dict().keys()
        == build(choices={"head": {"kind": "cosine"}}).state_dict().keys()
    )
