"""What the augmentation of one role is made of: a crop, a flip, colour and blur, as values."""

from dataclasses import dataclass

from fastssd.augment.boxes import CenterCrop, Crop
from fastssd.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ColourJitter:
    """Random brightness, contrast, saturation and hue, in random order.

    Attributes:
        brightness: Reach of the factor around 1: uniform in [max(0, 1 - reach), 1 + reach].
        contrast: The same for contrast.
        saturation: The same for saturation.
        hue: Reach of the shift around 0, in turns of the colour circle, at most 0.5.
        probability: Part of the images that are jittered at all.

    Source:
        torchvision.transforms.v2.ColorJitter within RandomApply.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        reaches = (self.brightness, self.contrast, self.saturation)
        if min(reaches) < 0 or not 0 <= self.hue <= 0.5:
            raise ValueError(f"jitter reaches must be non-negative and hue at most 0.5: {self}")
        _check_probability("jitter", self.probability)


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianBlur:
    """A Gaussian blur of random width.

    Attributes:
        sigma: Least and greatest standard deviation, in output pixels.
        kernel_size: Width of the kernel, odd, in output pixels.
        probability: Part of the images that are blurred.
    """

    sigma: tuple[float, float]
    kernel_size: int
    probability: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"blur widths must be positive and increasing: {self.sigma}")
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"a blur kernel has an odd width, not {self.kernel_size}")
        _check_probability("blur", self.probability)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The augmentation of one role (query, key, test), in the order in which it applies.

    Attributes:
        name: What messages call it.
        size: Side of the square output, in pixels.
        crop: How boxes are cut.
        flip: Probability of a left-right flip.
        jitter: Colour jitter, if any.
        grayscale: Probability that the colours are taken away.
        blur: Gaussian blur, if any.
    """

    name: str
    size: int
    crop: Crop
    flip: float = 0.0
    jitter: ColourJitter | None = None
    grayscale: float = 0.0
    blur: GaussianBlur | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(
                f"the image size of recipe '{self.name}' is {self.size}: give a side of 1 or more"
            )
        if self.blur is not None and self.blur.kernel_size // 2 >= self.size:
            raise ConfigError(
                f"recipe '{self.name}' blurs with a kernel of {self.blur.kernel_size} pixels, too "
                f"wide for images of {self.size}: give a larger size or another recipe"
            )
        if isinstance(self.crop, CenterCrop) and self.crop.short_side < self.size:
            raise ValueError(f"{self.crop} is smaller than the output of {self.size}")
        _check_probability("flip", self.flip)
        _check_probability("grayscale", self.grayscale)

    @property
    def recolours(self) -> bool:
        """Whether any operation needs the pixels as colours, not only moved about."""
        return self.jitter is not None or self.grayscale > 0 or self.blur is not None


def _check_probability(name: str, value: float) -> None:
    """Refuse what is no probability."""
    if not 0 <= value <= 1:
        raise ValueError(f"the probability of {name} must lie in [0, 1], not {value}")
