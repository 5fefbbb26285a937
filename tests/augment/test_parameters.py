"""Random parameters: the distributions of the recipes, each from its own field."""

import itertools

import numpy as np
import pytest

from fastssd.augment.boxes import WholeImage
from fastssd.augment.parameters import (
    KeyedDraws,
    Operation,
    Role,
    operation_parameters,
    quarter_turns,
)
from fastssd.augment.recipe import ColourJitter, GaussianBlur, Recipe
from fastssd.augment.recipes import build_recipe
from fastssd.core import counter_rng

NUM_DRAWS = 20_000
SAMPLES = np.arange(NUM_DRAWS)
DRAWS = KeyedDraws(0, "features", SAMPLES, np.full(NUM_DRAWS, 5))
# A part of NUM_DRAWS strays this far from its probability with odds of about 1 in 2 million.
PART_LIMIT = 5 * 0.5 / np.sqrt(NUM_DRAWS)

MOCO = operation_parameters(build_recipe("moco_v2", 64), DRAWS, Role.KEY)


def test_a_recipe_gets_the_parameters_it_needs_and_no_others():
    shapes = {name: (values.shape, values.dtype.name) for name, values in MOCO.items()}

    assert shapes == {
        "flip": ((NUM_DRAWS,), "bool"),
        "jitter": ((NUM_DRAWS, 4), "float32"),
        "order": ((NUM_DRAWS, 4), "int64"),
        "grayscale": ((NUM_DRAWS,), "bool"),
        "blur": ((NUM_DRAWS,), "float32"),
    }
    names = {
        name: set(operation_parameters(build_recipe(name, 64), DRAWS, Role.QUERY))
        for name in ["cifar", "digits", "imagenet", "whole"]
    }
    assert names == {
        "cifar": {"flip"},
        "digits": set(),
        "imagenet": {"flip", "jitter", "order"},
        "whole": set(),
    }


def test_operations_apply_to_the_part_of_the_images_that_the_recipe_says():
    neutral = (MOCO["jitter"] == [1, 1, 1, 0]).all(axis=1)

    assert abs(MOCO["flip"].mean() - 0.5) < PART_LIMIT
    assert abs(MOCO["grayscale"].mean() - 0.2) < PART_LIMIT
    assert abs((MOCO["blur"] > 0).mean() - 0.5) < PART_LIMIT
    assert abs(neutral.mean() - 0.2) < PART_LIMIT


def test_factors_and_sigmas_are_uniform_over_their_ranges():
    jittered = MOCO["jitter"][(MOCO["jitter"] != [1, 1, 1, 0]).any(axis=1)]
    sigmas = MOCO["blur"][MOCO["blur"] > 0]

    for values, least, greatest in [
        *((jittered[:, column], 0.6, 1.4) for column in range(3)),
        (jittered[:, 3], -0.1, 0.1),
        (sigmas, 0.1, 2.0),
    ]:
        ranks = (np.sort(values) - least) / (greatest - least)
        expected = (np.arange(len(ranks)) + 0.5) / len(ranks)
        # Kolmogorov-Smirnov: 2.2 / sqrt(n) has odds of 1 in 8,000.
        assert np.abs(ranks - expected).max() < 2.2 / np.sqrt(len(ranks))


def test_every_order_of_the_four_is_equally_likely():
    orders, counts = np.unique(MOCO["order"], axis=0, return_counts=True)

    assert orders.tolist() == [list(order) for order in itertools.permutations(range(4))]
    expected = NUM_DRAWS / 24
    # 23 degrees of freedom, 6 deviations.
    assert np.sum((counts - expected) ** 2 / expected) < 23 + 6 * np.sqrt(46)


def test_without_hue_there_are_three_factors_and_six_orders():
    parameters = operation_parameters(build_recipe("imagenet", 64), DRAWS, Role.QUERY)

    orders = np.unique(parameters["order"], axis=0)
    assert parameters["jitter"].shape == (NUM_DRAWS, 3)
    assert orders.tolist() == [list(order) for order in itertools.permutations(range(3))]


def test_a_reach_beyond_one_never_makes_a_factor_negative():
    strong = Recipe(
        name="strong",
        size=8,
        crop=WholeImage(),
        jitter=ColourJitter(brightness=3, contrast=0, saturation=0),
    )

    factors = operation_parameters(strong, DRAWS, Role.QUERY)["jitter"]

    assert 0 <= factors[:, 0].min() < 0.01
    assert 3.99 < factors[:, 0].max() <= 4
    np.testing.assert_array_equal(factors[:, 1:], 1)


def test_operations_are_drawn_independently():
    moco = {name: values.astype(np.float64) for name, values in MOCO.items()}
    jittered = (moco["jitter"] != [1, 1, 1, 0]).any(axis=1)
    columns = np.stack(
        [
            moco["flip"],
            moco["grayscale"],
            moco["blur"] > 0,
            jittered,
            moco["order"][:, 0],
            quarter_turns(DRAWS),
            DRAWS.uniforms(Role.KEY, Operation.BOX, 1)[:, 0],
        ]
    )

    correlations = np.corrcoef(columns)[np.triu_indices(len(columns), k=1)]

    assert np.abs(correlations).max() < 5 / np.sqrt(NUM_DRAWS)


def test_query_and_key_draw_independently():
    query = operation_parameters(build_recipe("moco_v2", 64), DRAWS, Role.QUERY)

    for name in ["flip", "grayscale", "blur"]:
        correlation = np.corrcoef(query[name], MOCO[name])[0, 1]
        assert abs(correlation) < 5 / np.sqrt(NUM_DRAWS)


def test_dropping_an_operation_leaves_the_others_as_they_were():
    full = build_recipe("moco_v2", 64)
    assert full.jitter is not None
    without_blur = Recipe(name="less", size=64, crop=full.crop, flip=full.flip, jitter=full.jitter)
    without_hue = Recipe(
        name="less",
        size=64,
        crop=full.crop,
        jitter=ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4, probability=0.8),
        blur=full.blur,
    )

    fewer = operation_parameters(without_blur, DRAWS, Role.KEY)
    three = operation_parameters(without_hue, DRAWS, Role.KEY)

    for name, values in fewer.items():
        np.testing.assert_array_equal(values, MOCO[name])
    np.testing.assert_array_equal(three["blur"], MOCO["blur"])
    np.testing.assert_array_equal(three["jitter"], MOCO["jitter"][:, :3])
    order_of_blends = MOCO["order"][MOCO["order"] != 3].reshape(NUM_DRAWS, 3)
    np.testing.assert_array_equal(three["order"], order_of_blends)


@pytest.mark.parametrize(("role", "field"), [(Role.QUERY, 0x001), (Role.KEY, 0x101)])
def test_the_field_of_an_operation_is_its_role_and_its_number(role, field):
    """These numbers decide what a run sees: changing them changes every result."""
    flips = operation_parameters(build_recipe("cifar", 32), DRAWS, role)["flip"]

    numbers = counter_rng.uniforms(
        0, "features", SAMPLES, np.full(NUM_DRAWS, 5), field=field, count=1
    )
    np.testing.assert_array_equal(flips, numbers[:, 0] < 0.5)


def test_operations_keep_their_numbers():
    assert {operation.name: operation.value for operation in Operation} == {
        "BOX": 0,
        "FLIP": 1,
        "JITTER_CHOICE": 2,
        "JITTER_FACTORS": 3,
        "JITTER_ORDER": 4,
        "GRAYSCALE": 5,
        "BLUR_CHOICE": 6,
        "BLUR_SIGMA": 7,
        "TURNS": 8,
    }


def test_turns_are_uniform_over_the_four():
    turns, counts = np.unique(quarter_turns(DRAWS), return_counts=True)

    assert turns.tolist() == [0, 1, 2, 3]
    assert np.abs(counts / NUM_DRAWS - 0.25).max() < PART_LIMIT


def test_an_operation_that_always_applies_always_applies():
    always = Recipe(
        name="always",
        size=8,
        crop=WholeImage(),
        flip=1.0,
        grayscale=1.0,
        blur=GaussianBlur(sigma=(1.5, 1.5), kernel_size=3),
    )

    parameters = operation_parameters(always, DRAWS, Role.QUERY)

    assert parameters["flip"].all()
    assert parameters["grayscale"].all()
    np.testing.assert_array_equal(parameters["blur"], 1.5)
