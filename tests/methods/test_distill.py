import numpy as np
import pytest
import torch
from torch import nn

from fastssd.augment.augmentation import AugmentedViews
from fastssd.config import DistillConfig
from fastssd.methods.batch import Batch
from fastssd.methods.distill import DistillStage
from fastssd.models.backbones import build_backbone
from fastssd.models.networks import BalancedNetwork, FrozenNetwork

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)) * 3


@pytest.fixture
def stage() -> DistillStage:
    torch.manual_seed(0)
    backbone, width = build_backbone("plaincnn", seed=0), 128
    frozen = FrozenNetwork(build_backbone("resnet8", seed=1), nn.Linear(64, 3), batchnorm="frozen")
    teacher = BalancedNetwork(frozen, 3)
    with torch.no_grad():
        teacher.scale.scale.copy_(torch.tensor([0.5, 1.0, 2.0]))
    config = DistillConfig(hard_weight=0.7, soft_weight=1.3, temperature=2.0)
    return DistillStage(
        backbone, nn.Linear(width, 3), nn.Linear(width, 3), teacher=teacher, config=config
    )


def batch(logits=None) -> Batch:
    views = AugmentedViews(query=IMAGES)
    return Batch(draws=None, labels=LABELS, views=views, frozen_logits=logits)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_the_losses_are_equation_3_of_the_paper_on_two_heads(stage):
    output = stage(batch(LOGITS))

    feature = stage.backbone(IMAGES)
    hard = stage.hard(feature).detach().double().numpy()
    soft = stage.soft(feature).detach().double().numpy()
    balanced = LOGITS.double().numpy() * np.array([0.5, 1.0, 2.0])
    hard_loss = -np.log(softmax(hard)[np.arange(6), LABELS.numpy()]).mean()
    soft_loss = -4 * (softmax(balanced / 2) * np.log(softmax(soft / 2))).sum(axis=1).mean()
    losses = {name: loss.item() for name, loss in output.losses.items()}
    expected = {"classification": 0.7 * hard_loss, "distillation": 1.3 * soft_loss}
    assert losses == pytest.approx(expected, abs=1e-5)
    assert output.hits["classification"].tolist() == (hard.argmax(1) == LABELS.numpy()).tolist()
    assert output.hits["distillation"].tolist() == (soft.argmax(1) == LABELS.numpy()).tolist()


def test_an_online_teacher_says_what_its_table_would_hold(stage):
    stage.train()
    table = stage.teacher.frozen(IMAGES)
    online, tabled = stage(batch()), stage(batch(table))
    for name, loss in online.losses.items():
        assert loss.item() == tabled.losses[name].item()


def test_only_the_student_learns(stage):
    before = {name: value.clone() for name, value in stage.teacher.state_dict().items()}
    sum(stage.train()(batch()).losses.values()).backward()
    learns = {name.split(".")[0] for name, p in stage.named_parameters() if p.grad is not None}
    assert learns == {"backbone", "hard", "soft"}
    for name, value in stage.teacher.state_dict().items():
        assert torch.equal(value, before[name])


def test_both_heads_predict(stage):
    predicted = stage.predict(IMAGES)
    feature = stage.backbone(IMAGES)
    assert tuple(predicted) == stage.heads == ("hard", "soft")
    assert torch.equal(predicted["hard"], stage.hard(feature))
    assert torch.equal(predicted["soft"], stage.soft(feature))
