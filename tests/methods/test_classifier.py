import numpy as np
import pytest
import torch

from fastssd.augment.augmentation import AugmentedViews
from fastssd.core.schema import Chosen
from fastssd.losses.options import BalancedSoftmaxOptions
from fastssd.methods.batch import Batch, Moment
from fastssd.methods.classifier import Classifier
from fastssd.methods.options import ClassifierOptions

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) * 2
LABELS = torch.tensor([0, 1, 2, 2, 1, 0])
SCALES = torch.tensor([0.5, 1.0, 2.0])
NOW = Moment(epoch=0, epochs=1, step=0, steps_per_epoch=1)


@pytest.fixture
def build(parts, trained):
    """Return what makes the method on a trained network; its scales are not 1."""

    def make(*learn, source=trained, **options) -> Classifier:
        method = Classifier(ClassifierOptions(learn=list(learn), **options), parts(source=source))
        if "scales" in learn:
            with torch.no_grad():
                method.network.scale.scale.copy_(SCALES)
        return method

    return make


def batch(**said) -> Batch:
    return Batch(draws=None, labels=LABELS, **said)


def learning(method):
    """Return the names of the weights that learn."""
    return [name for name, value in method.named_parameters() if value.requires_grad]


def test_only_the_scales_learn_and_by_the_gradient_of_cross_entropy(build):
    method = build("scales")
    scale = method.network.scale.scale

    output = method(batch(frozen_logits=LOGITS), NOW)
    output.losses["classification"].backward()

    logits, s = LOGITS.double().numpy(), SCALES.double().numpy()
    share = np.exp(logits * s) / np.exp(logits * s).sum(axis=1, keepdims=True)
    loss = -np.log(share[np.arange(6), LABELS.numpy()]).mean()
    gradient = ((share - np.eye(3)[LABELS.numpy()]) * logits).mean(axis=0)
    assert output.losses["classification"].item() == pytest.approx(loss, abs=1e-6)
    np.testing.assert_allclose(scale.grad.numpy(), gradient, atol=1e-6)
    right = share.argmax(1) == LABELS.numpy()
    assert output.correct["classification"].tolist() == right.tolist()
    assert learning(method) == ["network.scale.scale"]


def test_new_weights_learn_by_the_gradient_of_a_linear_classifier_on_frozen_features(
    build, trained
):
    method = build("weights")
    features = method.frozen.features(IMAGES)

    method(batch(frozen_features=features), NOW).losses["classification"].backward()

    classifier = method.network.classifier
    f, w = features.double().numpy(), classifier.weight.detach().double().numpy()
    logits = f @ w.T + classifier.bias.detach().double().numpy()
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = (share - np.eye(3)[LABELS.numpy()]) / 6
    np.testing.assert_allclose(classifier.weight.grad.numpy(), error.T @ f, atol=1e-5)
    np.testing.assert_allclose(classifier.bias.grad.numpy(), error.sum(axis=0), atol=1e-6)
    assert learning(method) == ["network.classifier.weight", "network.classifier.bias"]
    assert not torch.equal(classifier.weight, trained.classifier.weight)  # from new ones


def test_both_learn_together_the_scales_on_the_new_weights_logits(build):
    method = build("weights", "scales")
    logits = method.network.classifier(method.frozen.features(IMAGES)) * SCALES

    output = method(batch(views=AugmentedViews(query=IMAGES)), NOW)
    output.losses["classification"].backward()

    expected = torch.nn.functional.cross_entropy(logits, LABELS)
    torch.testing.assert_close(output.losses["classification"], expected)
    assert len(learning(method)) == 3
    assert all(value.grad.any() for value in method.parameters() if value.requires_grad)


@pytest.mark.parametrize("learn", [("weights",), ("scales",), ("weights", "scales")])
def test_a_table_of_features_stands_for_the_images(build, learn):
    method = build(*learn).train()

    seen = method(batch(views=AugmentedViews(query=IMAGES)), NOW)
    read = method(batch(frozen_features=method.frozen.features(IMAGES)), NOW)

    assert torch.equal(read.losses["classification"], seen.losses["classification"])


def test_a_loss_may_be_named_for_the_rebalanced_logits_too(build):
    loss = Chosen("balanced_softmax", BalancedSoftmaxOptions())

    output = build("scales", loss=loss)(batch(frozen_logits=LOGITS), NOW)

    adjusted = LOGITS * SCALES + torch.tensor([70.0, 20.0, 4.0]).log()
    expected = torch.nn.functional.cross_entropy(adjusted, LABELS)
    torch.testing.assert_close(output.losses["classification"], expected)


def test_what_stands_on_a_rebalanced_network_stands_on_the_rebalancing_too(build, balanced):
    above = build("scales", source=balanced)

    logits = above.predict(IMAGES)["classifier"]

    torch.testing.assert_close(logits, balanced.predict(IMAGES)["classifier"] * SCALES)
    assert learning(above) == ["network.scale.scale"]  # those below are frozen


def test_a_batch_without_images_says_so_when_asked_for_them():
    with pytest.raises(ValueError, match="no images"):
        _ = batch(frozen_logits=LOGITS).images
