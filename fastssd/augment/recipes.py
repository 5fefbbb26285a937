"""The recipes of the papers by name, each a function of the output side.

A new recipe is one function and one line in `RECIPES`.
"""

import difflib
from collections.abc import Callable

from fastssd.augment.boxes import CenterCrop, PaddedCrop, ResizedCrop, WholeImage
from fastssd.augment.recipe import ColourJitter, GaussianBlur, Recipe
from fastssd.errors import ConfigError


def cifar(size: int) -> Recipe:
    """Return the crop of 4 zeros around and the flip that CIFAR's papers share.

    Source:
        BBN's RandomCrop(32, padding=4) and RandomHorizontalFlip; SSD, section 4.2. The padding
        stays 4 pixels at every size.
    """
    return Recipe(name="cifar", size=size, crop=PaddedCrop(4), flip=0.5)


def digits(size: int) -> Recipe:
    """Return a crop of 1 zero around and no flip, for scikit-learn's digits of 8 pixels."""
    return Recipe(name="digits", size=size, crop=PaddedCrop(1))


def imagenet(size: int) -> Recipe:
    """Return the query of Kang et al., which SSD uses for ImageNet-LT.

    Source:
        Kang et al., "Decoupling representation and classifier" (ICLR 2020), reference code.
    """
    return Recipe(
        name="imagenet",
        size=size,
        crop=ResizedCrop(scale=(0.08, 1.0)),
        flip=0.5,
        jitter=ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4),
    )


def imagenet_plain(size: int) -> Recipe:
    """Return the query of Kang et al. without jitter, as they train iNaturalist 2018."""
    return Recipe(name="imagenet_plain", size=size, crop=ResizedCrop(scale=(0.08, 1.0)), flip=0.5)


def moco_v2(size: int) -> Recipe:
    """Return the augmentation of MoCo v2, which SSD uses for the key.

    The blur is a true Gaussian. MoCo v2's reference code blurs through Pillow, which approximates
    one by three box filters. The kernel is a tenth of the side as in SimCLR, odd: 23 at 224.

    Source:
        Chen et al., "Improved baselines with momentum contrastive learning" (2020).
    """
    return Recipe(
        name="moco_v2",
        size=size,
        crop=ResizedCrop(scale=(0.2, 1.0)),
        flip=0.5,
        jitter=ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8),
        grayscale=0.2,
        blur=GaussianBlur(sigma=(0.1, 2.0), kernel_size=max(3, size // 10 | 1), probability=0.5),
    )


def whole(size: int) -> Recipe:
    """Return the test view of small images: all of each, resized where its size differs."""
    return Recipe(name="whole", size=size, crop=WholeImage())


def center(size: int) -> Recipe:
    """Return the test view of photographs: Resize(256) and CenterCrop(224), in proportion.

    `CenterCrop` in `fastssd.augment.boxes` says how far it is from torchvision's two steps.
    """
    return Recipe(name="center", size=size, crop=CenterCrop(round(size * 256 / 224)))


RECIPES: dict[str, Callable[[int], Recipe]] = {
    "cifar": cifar,
    "digits": digits,
    "imagenet": imagenet,
    "imagenet_plain": imagenet_plain,
    "moco_v2": moco_v2,
    "whole": whole,
    "center": center,
}


def build_recipe(name: str, size: int) -> Recipe:
    """Return a recipe by its name.

    Args:
        name: A key of `RECIPES`.
        size: Side of the square output, in pixels.

    Raises:
        ConfigError: If there is no such recipe, or it cannot make images of this size.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise ConfigError(f"no recipe is called '{name}'{hint} There are: {', '.join(RECIPES)}")
    return RECIPES[name](size)
