"""The named recipes: the numbers of the papers, and what is refused."""

import pytest

from fastssd.augment.boxes import CenterCrop, PaddedCrop, ResizedCrop, WholeImage
from fastssd.augment.recipe import ColourJitter, GaussianBlur, Recipe
from fastssd.augment.recipes import RECIPES, build_recipe
from fastssd.errors import ConfigError


def test_there_are_the_recipes_of_the_papers():
    assert set(RECIPES) == {
        "cifar",
        "digits",
        "imagenet",
        "imagenet_plain",
        "moco_v2",
        "whole",
        "center",
    }


@pytest.mark.parametrize("name", sorted(RECIPES))
@pytest.mark.parametrize("size", [32, 64, 224])
def test_every_recipe_knows_its_name_and_makes_the_size_asked(name, size):
    recipe = build_recipe(name, size)

    assert (recipe.name, recipe.size) == (name, size)


def test_the_key_is_augmented_as_moco_v2_does():
    recipe = build_recipe("moco_v2", 224)

    assert recipe.crop == ResizedCrop(scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3))
    assert recipe.flip == 0.5
    assert recipe.jitter == ColourJitter(
        brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8
    )
    assert recipe.grayscale == 0.2
    assert recipe.blur == GaussianBlur(sigma=(0.1, 2.0), kernel_size=23, probability=0.5)


def test_the_query_is_augmented_as_kang_et_al_do():
    recipe = build_recipe("imagenet", 224)

    assert recipe.crop == ResizedCrop(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    assert recipe.flip == 0.5
    assert recipe.jitter == ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4)
    assert recipe.grayscale == 0
    assert recipe.blur is None


def test_inaturalist_has_no_jitter():
    recipe = build_recipe("imagenet_plain", 224)

    assert not recipe.recolours
    assert recipe.crop == build_recipe("imagenet", 224).crop


@pytest.mark.parametrize("size", [32, 64])
def test_padding_does_not_grow_with_the_image(size):
    assert build_recipe("cifar", size).crop == PaddedCrop(4)


def test_a_digit_is_never_mirrored():
    assert build_recipe("digits", 8) == Recipe(name="digits", size=8, crop=PaddedCrop(1))


def test_test_views_have_nothing_random():
    for name, crop in [("whole", WholeImage()), ("center", CenterCrop(256))]:
        recipe = build_recipe(name, 224)
        assert recipe == Recipe(name=name, size=224, crop=crop)
        assert crop.num_uniforms == 0


def test_a_misspelt_recipe_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"'moco_v1'; did you mean 'moco_v2'\?.*imagenet_plain"):
        build_recipe("moco_v1", 224)


def test_a_name_near_to_none_is_refused_with_all_names():
    with pytest.raises(ConfigError, match=r"'zzz'\. There are: cifar, digits"):
        build_recipe("zzz", 224)


def test_a_size_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="'cifar' is 0"):
        build_recipe("cifar", 0)


def test_a_blur_wider_than_the_image_is_refused():
    with pytest.raises(ConfigError, match="too wide for images of 1"):
        build_recipe("moco_v2", 1)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ColourJitter(brightness=-0.1, contrast=0, saturation=0),
        lambda: ColourJitter(brightness=0, contrast=0, saturation=0, hue=0.6),
        lambda: ColourJitter(brightness=0, contrast=0, saturation=0, probability=1.1),
        lambda: GaussianBlur(sigma=(0, 2), kernel_size=3),
        lambda: GaussianBlur(sigma=(2, 1), kernel_size=3),
        lambda: GaussianBlur(sigma=(1, 2), kernel_size=4),
        lambda: GaussianBlur(sigma=(1, 2), kernel_size=3, probability=-0.5),
        lambda: Recipe(name="r", size=8, crop=WholeImage(), flip=2),
        lambda: Recipe(name="r", size=8, crop=WholeImage(), grayscale=-1),
        lambda: Recipe(name="r", size=8, crop=CenterCrop(7)),
    ],
)
def test_numbers_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must|odd|smaller"):
        wrong()
