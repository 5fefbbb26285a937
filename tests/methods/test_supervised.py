import math

import pytest
import torch
from torch import nn

from fastssd.augment.augmentation import AugmentedViews
from fastssd.config import FeaturesConfig
from fastssd.methods.batch import Batch
from fastssd.methods.supervised import FeatureStage, InstanceStage, build_feature_stage
from fastssd.models.backbones import build_backbone
from fastssd.models.seeding import seeded

NUM_CLASSES = 3
QUERY, KEY = torch.randn(2, 8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
TURNS = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
ROTATED = torch.stack([torch.rot90(QUERY[i], int(TURNS[i]), (1, 2)) for i in range(8)])


def batch(query=QUERY, key=KEY, labels=LABELS) -> Batch:
    views = AugmentedViews(query=query, key=key, rotated=ROTATED, turns=TURNS)
    return Batch(draws=None, labels=labels, views=views)


def build(task: str, backbone: str = "plaincnn", **settings) -> FeatureStage:
    config = FeaturesConfig(task=task, **{"queue": 12, "embedding": 4, "batch_size": 8, **settings})
    network = build_backbone(backbone, seed=0)
    with seeded(0, "classifier"):
        classifier = nn.Linear(network.width, NUM_CLASSES)
    return build_feature_stage(network, classifier, task=task, config=config, seed=0)


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
    output = stage(batch())
    logits = stage.classifier(stage.backbone(QUERY))
    assert set(output.losses) == set(output.hits) == {"classification"}
    loss = output.losses["classification"].item()
    assert loss == pytest.approx(cross_entropy(logits, LABELS), abs=1e-5)
    assert output.hits["classification"].tolist() == (logits.argmax(dim=1) == LABELS).tolist()
    assert torch.equal(stage.predict(QUERY)["classifier"], logits)


def test_the_rotation_task_classifies_upright_images_and_the_angles_of_turned_ones():
    stage = build("rotation", task_weight=0.5)
    output = stage(batch())
    logits, angles = (
        stage.classifier(stage.backbone(QUERY)),
        stage.rotation(stage.backbone(ROTATED)),
    )
    assert angles.shape == (8, 4)
    losses = {name: loss.item() for name, loss in output.losses.items()}
    expected = {
        "classification": cross_entropy(logits, LABELS),
        "rotation": 0.5 * cross_entropy(angles, TURNS),
    }
    assert losses == pytest.approx(expected, abs=1e-5)
    assert output.hits["rotation"].tolist() == (angles.argmax(dim=1) == TURNS).tolist()


def test_joint_and_separate_forward_differ_only_in_what_batchnorm_sees():
    def losses(backbone, forward):
        return {
            k: v.item()
            for k, v in build("rotation", backbone, forward=forward)(batch()).losses.items()
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
        task_weight=2.0,
    )
    slow = {name: value.clone() for name, value in stage.encoder.encoder.named_parameters()}
    fast = dict(nn.Sequential(stage.backbone, stage.projection).named_parameters())
    assert all(torch.equal(slow[name], fast[name]) for name in slow)
    queue, labels_of_queue = [*stage.queue.keys.clone()], [-1] * 12
    oldest = 0
    optimizer = torch.optim.SGD([p for p in stage.parameters() if p.requires_grad], lr=lr)

    for step in range(4):
        query, key, labels = QUERY.roll(step, 0), KEY.roll(step, 0), LABELS.roll(step)
        with torch.no_grad():
            embedded = stage.projection(stage.backbone(query))
            names = {name: value.clone() for name, value in slow.items()}
            encoder = nn.Sequential(stage.backbone, stage.projection)
            keys = torch.func.functional_call(encoder, names, (key,))
        expected = 2 * slow_instance_loss(
            embedded, keys, queue, torch.tensor(labels_of_queue), labels, temperature, mask=mask
        )

        output = stage(batch(query, key, labels))
        assert output.losses["instance"].item() == pytest.approx(expected, abs=1e-4)
        torch.stack([*output.losses.values()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        stage.after_step()

        for name, value in fast.items():
            slow[name] = momentum * slow[name] + (1 - momentum) * value.detach()
        for one, label in zip(keys, labels.tolist(), strict=True):
            queue[oldest], labels_of_queue[oldest] = one, label
            oldest = (oldest + 1) % 12
        torch.testing.assert_close(stage.queue.keys, torch.stack(queue), atol=1e-5, rtol=0)
        assert stage.queue.labels.tolist() == labels_of_queue
        assert int(stage.queue.pointer) == oldest
        for name, value in stage.encoder.encoder.named_parameters():
            torch.testing.assert_close(value, slow[name], atol=1e-6, rtol=0)


def test_keys_come_from_the_keys_crops_alone():
    def keys(**views):
        stage = build("instance")
        stage(batch(**views))
        stage.after_step()
        return stage.queue.keys[:8]

    expected = keys()
    assert torch.equal(keys(query=torch.zeros_like(QUERY)), expected)
    assert (keys(key=QUERY) - expected).abs().amax(dim=1).min() > 1e-3


def test_the_query_and_key_of_a_draw_are_different_crops(context):
    made = context("augment.query=imagenet", "features.task=instance")
    augmentation = made.augmentation("features", key=True)
    samples = torch.arange(50).numpy()
    boxes = augmentation.boxes(samples, samples * 0, made.train.sizes[:50])
    assert boxes.shape == (50, 2, 4)
    assert (boxes[:, 0] != boxes[:, 1]).any(axis=1).mean() > 0.9


def test_no_gradient_reaches_keys_momentum_encoder_or_queue():
    stage = build("instance")
    key = KEY.clone().requires_grad_()
    sum(stage(batch(key=key)).losses.values()).backward()
    assert key.grad is None
    assert all(parameter.grad is None for parameter in stage.encoder.parameters())
    learns = {name for name, value in stage.named_parameters() if value.grad is not None}
    assert {name.split(".")[0] for name in learns} == {"backbone", "classifier", "projection"}


def test_the_queue_stays_as_it_was_until_the_step_is_taken():
    stage = build("instance")
    before = stage.queue.keys.clone()
    stage(batch())
    stage(batch(KEY, QUERY))  # a second micro-batch
    assert torch.equal(stage.queue.keys, before)
    stage.after_step()
    assert int(stage.queue.pointer) == 16 % 12


def test_the_momentum_encoders_batchnorm_follows_its_own_passes():
    stage = build("instance", "resnet8")
    convolution = stage.encoder.encoder[0]
    first = next(layer for layer in convolution.modules() if isinstance(layer, nn.BatchNorm2d))
    before = first.running_mean.clone()
    stage(batch())
    after_forward = first.running_mean.clone()
    stage.after_step()
    assert not torch.equal(before, after_forward)
    assert torch.equal(first.running_mean, after_forward)  # averaged are parameters alone


@pytest.mark.parametrize("task", ["rotation", "instance"])
def test_a_batch_without_the_tasks_views_is_refused(task):
    plain = Batch(draws=None, labels=LABELS, views=AugmentedViews(query=QUERY))
    with pytest.raises(ValueError, match="augmentation with"):
        build(task)(plain)


def test_tasks_start_from_the_same_backbone_and_classifier():
    states = [build(task, "resnet8").state_dict() for task in ("none", "rotation", "instance")]
    for name in states[0]:
        assert torch.equal(states[0][name], states[1][name])
        assert torch.equal(states[0][name], states[2][name])
    assert isinstance(build("instance"), InstanceStage)
