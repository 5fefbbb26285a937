"""The methods without training, each against float64 formulas of its paper."""

import copy
import json

import numpy as np
import pytest
import torch

from fastssd.errors import ConfigError
from fastssd.methods.posthoc import features as features_module
from fastssd.methods.posthoc.features import FeatureSet
from fastssd.methods.posthoc.stage import PosthocStage
from fastssd.methods.registry import METHODS
from fastssd.models.heads import CosineHead, LinearHead
from fastssd.training.checkpoints import load_weights, save_weights

CLASSES, WIDTH = 5, 7
COUNTS = np.array([80, 30, 9, 4, 2])


POSTHOC = [name for name in METHODS if issubclass(METHODS[name], PosthocStage)]


def build(kind, **options):
    return METHODS[kind].posthoc(METHODS.options(kind)(**options))


def linear(seed=0):
    """A classifier whose weights are the longer the more images a class has."""
    generator = torch.Generator().manual_seed(seed)
    head = LinearHead(WIDTH, CLASSES)
    with torch.no_grad():
        head.weight.copy_(torch.randn(CLASSES, WIDTH, generator=generator))
        head.weight *= torch.from_numpy(COUNTS**0.4).float()[:, None]
        head.bias.copy_(torch.randn(CLASSES, generator=generator))
    return head


def images(counts=COUNTS, seed=0, dtype=np.float32):
    """Features around a point of each class."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    points = 3 * np.random.default_rng(99).normal(size=(len(counts), WIDTH)) + 1
    features = points[labels] + generator.normal(size=(len(labels), WIDTH))
    return FeatureSet(features.astype(dtype), labels)


def some_features(num_images=40, seed=5):
    return torch.randn(num_images, WIDTH, generator=torch.Generator().manual_seed(seed)) + 1


def class_mean(logits, labels):
    right = np.asarray(logits).argmax(1) == labels
    return 100 * np.mean([right[labels == c].mean() for c in np.unique(labels)])


# All of them


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("tau_norm", {}),
        ("la_posthoc", {"tau": None}),
        *(("ncm", {"features": f, "metric": m}) for f in ("un", "cl2n") for m in ("l2", "cos")),
    ],
)
def test_a_fitted_classifier_is_loaded_from_its_weights_and_leaves_the_old_one_alone(
    kind, options, tmp_path
):
    method, head = build(kind, **options), linear()
    before = copy.deepcopy(head.state_dict())

    fitted, sweep = method.fit(images(), head, COUNTS, images(np.full(CLASSES, 10), seed=1))

    torch.save(fitted.state_dict(), tmp_path / "weights")
    loaded = method.rebuild(linear(seed=1), WIDTH, CLASSES)
    loaded.load_state_dict(torch.load(tmp_path / "weights"))
    logits = fitted(some_features())
    assert torch.equal(loaded(some_features()), logits)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    assert not fitted.training
    assert not loaded.training
    assert json.loads(json.dumps(sweep)) == sweep
    torch.testing.assert_close(head.state_dict(), before, rtol=0, atol=0)
    assert head.weight.requires_grad
    with torch.no_grad():
        head.weight.fill_(0)
    assert torch.equal(fitted(some_features()), logits)
    assert method.needs_train is (kind == "ncm")


@pytest.mark.parametrize("kind", POSTHOC)
def test_mapped_half_precision_features_are_read_in_parts(kind, tmp_path, monkeypatch):
    whole = images(COUNTS * 3, dtype=np.float16)
    np.save(tmp_path / "features.npy", whole.features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    method = build(kind, **({} if kind == "ncm" else {"tau": None}))
    once, sweep = method.fit(whole, linear(), COUNTS, whole)

    monkeypatch.setattr(features_module, "ROWS_AT_ONCE", 17)
    mapped_set = FeatureSet(mapped, whole.labels)
    largest = max(len(labels) for _, labels in mapped_set.parts())
    in_parts, same = method.fit(mapped_set, linear(), COUNTS, mapped_set)

    assert largest == 17
    assert same == sweep
    torch.testing.assert_close(in_parts.state_dict(), once.state_dict(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", POSTHOC)
def test_a_class_without_training_images_gives_no_nan_and_is_not_chosen_for_that(kind):
    counts = np.array([80, 30, 9, 0, 2])
    head = linear()
    with torch.no_grad():
        head.bias[3] -= 50  # what cross-entropy makes of it
        head.weight[3] = 0

    fitted, _ = build(kind).fit(images(counts), head, counts, None)

    logits = fitted(some_features())
    assert not logits.isnan().any()
    if kind != "tau_norm":  # which drops the bias
        assert not (logits.argmax(1) == 3).any()
    if kind == "ncm":
        assert (logits[:, 3] == -torch.inf).all()


@pytest.mark.parametrize("shape", [((3,), (3,)), ((3, 2), (2,)), ((3, 2), (3, 1)), ((0, 2), (0,))])
def test_features_without_one_label_each_are_refused(shape):
    with pytest.raises(ValueError, match="features"):
        FeatureSet(np.zeros(shape[0], np.float32), np.zeros(shape[1], np.int64))


# tau-normalisation


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0, 2.0])
def test_tau_normalised_logits_are_those_of_the_paper(tau):
    head = linear()

    fitted, sweep = build("tau_norm", tau=tau).fit(None, head, COUNTS, None)

    weight = head.weight.detach().double().numpy()
    normalised = weight / (weight**2).sum(1, keepdims=True) ** (tau / 2)  # Kang et al., equation 2
    expected = some_features().double().numpy() @ normalised.T
    np.testing.assert_allclose(fitted(some_features()), expected, rtol=1e-4, atol=1e-5)
    assert sweep["tau"] == tau
    assert sweep["chosen_on"] == "config"


def test_tau_0_is_the_classifier_without_its_bias_to_the_last_bit():
    head = linear()

    fitted, _ = build("tau_norm", tau=0.0).fit(None, head, COUNTS, None)

    assert torch.equal(fitted.weight, head.weight)
    assert torch.equal(fitted(some_features()), some_features() @ head.weight.detach().T)


@pytest.mark.parametrize("kind", ["tau_norm", "la_posthoc"])
def test_tau_is_the_one_whose_classes_are_right_most_on_average_on_validation_images(kind):
    head, method = linear(), build(kind, tau=None, sweep=[0, 2, 21])
    validation = images(np.array([40, 2, 10, 5, 20]), seed=3)
    assert method.wants_validation

    fitted, sweep = method.fit(None, head, COUNTS, validation)

    x, y = validation.features.astype(np.float64), validation.labels
    weight = head.weight.detach().double().numpy()
    means = []
    for tau in np.linspace(0, 2, 21):
        if kind == "tau_norm":
            logits = x @ (weight / np.linalg.norm(weight, axis=1, keepdims=True) ** tau).T
        else:
            prior = COUNTS / COUNTS.sum()
            logits = x @ weight.T + head.bias.detach().double().numpy() - tau * np.log(prior)
        means.append(class_mean(logits, y))
    best = int(np.argmax(means))
    assert len(set(means)) > 3
    assert sweep["tau"] == pytest.approx(0.1 * best)
    assert fitted.tau.item() == pytest.approx(0.1 * best)
    assert [each["class_mean"] for each in sweep["candidates"]] == pytest.approx(means)
    assert (sweep["chosen_on"], sweep["images"]) == ("validation", 77)
    assert class_mean(fitted(torch.from_numpy(validation.features)), y) == pytest.approx(
        means[best]
    )


@pytest.mark.parametrize("kind", ["tau_norm", "la_posthoc"])
def test_without_validation_tau_is_1_and_the_result_says_so(kind):
    fitted, sweep = build(kind, tau=None).fit(None, linear(), COUNTS, None)

    assert fitted.tau.item() == sweep["tau"] == 1
    assert sweep["chosen_on"] is None
    assert "without a validation split" in sweep["message"]


def test_weights_whose_length_does_not_matter_are_not_normalised():
    with pytest.raises(ConfigError, match="CosineHead: name a source with head: linear"):
        build("tau_norm").fit(None, CosineHead(WIDTH, CLASSES), COUNTS, None)


# Post-hoc logit adjustment


@pytest.mark.parametrize("head", [linear(), CosineHead(WIDTH, CLASSES)])
def test_adjusted_logits_answer_as_the_paper_says(head):
    method = build("la_posthoc")  # tau 1 unless asked otherwise
    assert not method.wants_validation

    fitted, sweep = method.fit(None, head, COUNTS, None)

    z = head(some_features()).detach().double().numpy()
    expected = z - np.log(COUNTS / COUNTS.sum())  # Menon et al., equation 9
    np.testing.assert_allclose(fitted(some_features()), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(fitted(some_features()).argmax(1), expected.argmax(1))
    assert (expected.argmax(1) != z.argmax(1)).any()
    assert sweep["tau"] == 1


def test_adjustment_undoes_a_prior_that_balanced_softmax_would_have_learned_without():
    head = linear()
    with_prior = copy.deepcopy(head)
    with torch.no_grad():
        with_prior.bias += torch.from_numpy(np.log(COUNTS))

    fitted, _ = build("la_posthoc").fit(None, with_prior, COUNTS, None)

    soft = fitted(some_features()).softmax(1)
    torch.testing.assert_close(soft, head(some_features()).softmax(1).detach())


# Nearest class mean


@pytest.mark.parametrize("metric", ["l2", "cos"])
@pytest.mark.parametrize("features", ["un", "l2n", "cl2n"])
def test_class_means_and_distances_are_those_of_a_slow_formula(features, metric):
    train = images()

    fitted, sweep = build("ncm", features=features, metric=metric).fit(
        train, linear(), COUNTS, None
    )

    centre = np.mean(train.features.astype(np.float64), axis=0)

    def transform(x):
        x = x.astype(np.float64) - (centre if features == "cl2n" else 0)
        return x if features == "un" else x / np.sqrt((x**2).sum())

    means = [
        np.mean([transform(x) for x in train.features[train.labels == c]], axis=0)
        for c in range(CLASSES)
    ]
    tested = some_features().numpy()
    expected = np.empty((len(tested), CLASSES))
    for i, x in enumerate(tested):
        for c, mean in enumerate(means):
            x_ = transform(x)
            if metric == "l2":
                expected[i, c] = -((x_ - mean) ** 2).sum()
            else:
                expected[i, c] = x_ @ mean / np.linalg.norm(x_) / np.linalg.norm(mean)
    np.testing.assert_allclose(fitted(some_features()), expected, rtol=1e-4, atol=2e-5)
    assert sweep == {"features": features, "metric": metric, "images": len(train)}


def test_the_published_form_is_the_default():
    sweep = build("ncm").fit(images(), linear(), COUNTS, None)[1]

    assert (sweep["features"], sweep["metric"]) == ("cl2n", "l2")


def test_images_of_separate_classes_are_of_the_nearest():
    fitted, _ = build("ncm").fit(images(), linear(), COUNTS, None)
    test = images(np.full(CLASSES, 20), seed=8)

    assert class_mean(fitted(torch.from_numpy(test.features)), test.labels) > 90


def test_class_means_need_training_features():
    with pytest.raises(ValueError, match="features of the training split"):
        build("ncm").fit(None, linear(), COUNTS, None)


# Options


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("tau_norm", {"tau": -1.0}, "tau=-1.0 must be"),
        ("tau_norm", {"sweep": [0, 2]}, r"sweep=\[0, 2\] must be"),
        ("tau_norm", {"sweep": [2, 0, 21]}, "the first tau"),
        ("la_posthoc", {"sweep": [0, 2, 0]}, "whole and from 1"),
        ("la_posthoc", {"sweep": [0, 2, 2.5]}, "whole and from 1"),
        ("ncm", {"features": "l2"}, "un, l2n or cl2n"),
        ("ncm", {"metric": "l1"}, "l2 or cos"),
    ],
)
def test_options_that_mean_nothing_are_refused(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        build(kind, **options)


# Stages


@pytest.mark.parametrize(
    ("kind", "under"),
    [
        *((kind, "trained") for kind in POSTHOC),
        # Scales are no part of a linear classifier, which tau_norm wants.
        *((kind, "balanced") for kind in POSTHOC if kind != "tau_norm"),
    ],
)
def test_a_stage_is_built_again_and_loaded_with_the_same_logits(
    kind, under, parts, request, tmp_path
):
    source = request.getfixturevalue(under)
    options = METHODS.options(kind)()
    frozen = source.balanced("classifier", batchnorm="frozen").folded()
    pixels = torch.randn(30, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    features = FeatureSet(frozen.features(pixels).numpy(), np.arange(30) % 3)
    stage = METHODS[kind](options, parts(source=source))
    before = copy.deepcopy(source.state_dict())
    sweep = stage.fit(features, features)
    save_weights(tmp_path / "weights.safetensors", stage)

    other = copy.deepcopy(source)  # all that counts of it is its shape
    for value in other.state_dict().values():
        value.fill_(1)
    again = METHODS[kind](options, parts(source=other))
    load_weights(tmp_path / "weights.safetensors", again)

    expected = stage.eval().predict(pixels)["classifier"]
    assert torch.equal(again.eval().predict(pixels)["classifier"], expected)
    assert not torch.equal(expected, source.predict(pixels)["classifier"])
    assert not any(value.requires_grad for value in stage.parameters())
    assert sweep
    torch.testing.assert_close(source.state_dict(), before, rtol=0, atol=0)
    network = again.balanced("classifier", batchnorm="frozen")
    torch.testing.assert_close(network(pixels, None), expected)
