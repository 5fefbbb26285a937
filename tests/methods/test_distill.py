import numpy as np
import pytest
import torch

from fastssd.augment.augmentation import AugmentedViews
from fastssd.losses.distillation import TopLogits
from fastssd.methods.batch import Batch, Moment
from fastssd.methods.distill import Distill
from fastssd.methods.options import DistillOptions

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)) * 3
SCALES = np.array([0.5, 1.0, 2.0])
"""Of the fixture `balanced`, the teacher."""
NOW = Moment(epoch=0, epochs=1, step=0, steps_per_epoch=1)
TWO_HEADS = {"hard": "labels", "soft": "teacher"}


@pytest.fixture
def student(parts, balanced):
    """Return what makes a student of the balanced network."""

    def make(heads=None, reads="images", **options) -> Distill:
        options = {"label_weight": 0.7, "teacher_weight": 1.3, "temperature": 2.0, **options}
        return Distill(
            DistillOptions(learns=heads or TWO_HEADS, **options),
            parts(reads=reads, teacher=balanced),
        )

    return make


def batch(labels=LABELS, **said) -> Batch:
    return Batch(draws=None, labels=labels, views=AugmentedViews(query=IMAGES), **said)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def expected_losses(method, label_head, teacher_head):
    """Return equations 3 and 4 of the paper, of the table's logits, in float64."""
    logits = {name: values.detach().double().numpy() for name, values in predicted(method).items()}
    teacher = softmax(LOGITS.double().numpy() * SCALES / 2)
    hard, soft = logits[label_head], logits[teacher_head]
    return {
        "classification": 0.7 * -np.log(softmax(hard)[np.arange(6), LABELS.numpy()]).mean(),
        "distillation": 1.3 * -4 * (teacher * np.log(softmax(soft / 2))).sum(axis=1).mean(),
    }


def predicted(method):
    return method.predict(IMAGES)


def gradients(method, losses):
    """Return the gradient of each weight that some loss reaches."""
    method.zero_grad()
    sum(losses).backward()
    return {
        name: value.grad.clone()
        for name, value in method.named_parameters()
        if value.grad is not None
    }


@pytest.mark.parametrize("heads", [TWO_HEADS, {"classifier": ["labels", "teacher"]}])
def test_the_losses_are_equation_3_of_the_paper_on_one_head_or_on_two(student, heads):
    method = student(heads, reads="logits")

    output = method(batch(frozen_logits=LOGITS), NOW)

    names = list(heads)
    losses = {name: loss.item() for name, loss in output.losses.items()}
    assert losses == pytest.approx(expected_losses(method, names[0], names[-1]), abs=1e-5)
    for loss, head in zip(("classification", "distillation"), (names[0], names[-1]), strict=True):
        right = predicted(method)[head].argmax(1) == LABELS
        assert output.correct[loss].tolist() == right.tolist()


def test_one_head_learns_the_sum_of_what_two_losses_ask(student):
    method = student({"classifier": ["labels", "teacher"]}, reads="logits")

    def of(*names):
        losses = method(batch(frozen_logits=LOGITS), NOW).losses
        return gradients(method, [losses[name] for name in names])

    both = of("classification", "distillation")
    apart = of("classification"), of("distillation")
    assert "classifiers.classifier.weight" in both
    for name, gradient in both.items():
        torch.testing.assert_close(gradient, apart[0][name] + apart[1][name])


def test_a_head_of_the_teacher_alone_learns_nothing_from_labels(student):
    method = student({"classifier": "teacher"}, reads="logits")
    outputs = [
        method(batch(labels, frozen_logits=LOGITS), NOW) for labels in (LABELS, LABELS.roll(1))
    ]

    assert [set(output.losses) for output in outputs] == [{"distillation"}] * 2
    one, other = (gradients(method, output.losses.values()) for output in outputs)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_head_of_labels_alone_learns_nothing_from_the_teacher(student):
    method = student({"classifier": "labels"}, reads="logits")

    one, other = (
        gradients(method, method(batch(frozen_logits=logits), NOW).losses.values())
        for logits in (LOGITS, -LOGITS)
    )

    assert all(torch.equal(one[name], other[name]) for name in one)


def test_each_of_two_heads_learns_from_its_own_target_alone(student):
    method = student(reads="logits")
    losses = method(batch(frozen_logits=LOGITS), NOW).losses

    reached = gradients(method, [losses["distillation"]])

    assert "classifiers.soft.weight" in reached
    assert not any(name.startswith("classifiers.hard") for name in reached)


@pytest.mark.parametrize("holds", ["logits", "features", "topk"])
def test_an_online_teacher_says_what_its_table_would_hold(student, balanced, holds):
    frozen = balanced.frozen
    soft = balanced.network(IMAGES, None).detach()
    said = {
        "logits": {"frozen_logits": frozen(IMAGES)},
        "features": {"frozen_features": frozen.features(IMAGES)},
        "topk": {"soft_labels": TopLogits(torch.arange(3).expand(6, 3), soft, torch.zeros(6))},
    }[holds]

    online = student()(batch(), NOW)
    tabled = student(reads=holds)(batch(**said), NOW)

    for name, loss in online.losses.items():
        assert loss.item() == tabled.losses[name].item()


def test_only_the_student_learns(student):
    method = student().train()
    before = {name: value.clone() for name, value in method.teacher.state_dict().items()}

    reached = gradients(method, method(batch(), NOW).losses.values())

    assert {name.split(".")[0] for name in reached} == {"backbone", "classifiers"}
    for name, value in method.teacher.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_table_takes_the_place_of_the_teachers_backbone(student):
    size = {
        reads: sum(value.numel() for value in student(reads=reads).teacher.state_dict().values())
        for reads in ("images", "features", "logits", "topk")
    }

    assert size["images"] > 10_000
    assert size["features"] == 3 * 64 + 3 + 3
    assert size["logits"] == 3
    assert size["topk"] <= 3  # nothing is left to do


def test_all_heads_predict_and_another_stage_may_stand_on_each(student):
    method = student().eval()

    logits = predicted(method)

    assert tuple(logits) == method.heads == ("hard", "soft")
    assert not torch.equal(logits["hard"], logits["soft"])
    for head in method.heads:
        network = method.balanced(head, batchnorm="frozen")
        torch.testing.assert_close(network(IMAGES, None), logits[head].detach())
