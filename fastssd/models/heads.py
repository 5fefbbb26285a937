"""What stands on a backbone's feature: classifiers, the self-supervised heads, class scales.

All draw their initial weights from PyTorch's global generator: build them inside
`fastssd.models.seeding.seeded`.

Shape letters: B images in the batch, C classes, D width of the feature.
"""

from dataclasses import asdict
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastssd.models.head_options import CosineOptions, LinearOptions
from fastssd.models.registry import HEADS

NUM_ANGLES = 4
"""0, 90, 180 and 270 degrees."""


class LinearHead(nn.Linear):
    """Logits W f + b, with PyTorch's default initial weights.

    Source:
        BBN, classifier-balancing and SSD all leave the classifier at that default, whatever
        their backbones' initialisation.
    """

    Options = LinearOptions

    cosine_scale = None
    """Its logits are no multiples of cosines."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__(width, num_classes)


class CosineHead(nn.Module):
    """Logits scale * cos(f, w_c): neither the feature's nor the weights' length matters.

    The logits are computed and returned in float32, also under autocast.

    Args:
        width: D.
        num_classes: C.
        scale: Largest logit possible.
        learnable_scale: Whether the scale is trained with the weights.
        init: The weight vectors' length at first. Only directions make the logits, but the
            gradient by a weight vector goes with 1 / its length, so that a step turns it by
            rate / length^2. `normal` has a length of about sqrt(width), in directions that are
            uniform; `unit` has 1 and the directions of vectors uniform in a cube, as LDAM-DRW's
            and RIDE's NormedLinear has (OLTR's CosNorm has about 0.6). Weight decay shortens the
            vectors and so evens the two out, the slower the smaller rate times decay is.

    Attributes:
        cosine_scale: The scale if it is fixed, else None.

    Source:
        Gidaris and Komodakis, "Dynamic few-shot visual learning without forgetting" (CVPR 2018);
        the scale of 16 as in OLTR; with scale 30 and `unit` LDAM-DRW:models/resnet_cifar.py.
    """

    Options = CosineOptions

    scale: Tensor

    def __init__(
        self,
        width: int,
        num_classes: int,
        *,
        scale: float = 16.0,
        learnable_scale: bool = False,
        init: Literal["normal", "unit"] = "normal",
    ) -> None:
        super().__init__()
        self.cosine_scale = None if learnable_scale else scale
        self.weight = nn.Parameter(torch.empty(num_classes, width))
        if init == "unit":
            nn.init.uniform_(self.weight, -1, 1)
            with torch.no_grad():
                self.weight.copy_(F.normalize(self.weight, dim=1))
        else:
            nn.init.normal_(self.weight)
        if learnable_scale:
            self.scale = nn.Parameter(torch.tensor(scale))
        else:
            self.register_buffer("scale", torch.tensor(scale))

    def forward(self, feature_BD: Tensor) -> Tensor:
        # Autocast would round the cosines to three digits before they are scaled.
        with torch.autocast(feature_BD.device.type, enabled=False):
            feature_BD = F.normalize(feature_BD.float(), dim=1)
            return self.scale * F.linear(feature_BD, F.normalize(self.weight.float(), dim=1))


class ProjectionHead(nn.Module):
    """Unit vectors to compare images by: two linear layers with a ReLU between, no BatchNorm.

    Returns (B, dim) float32 of Euclidean length 1.

    Args:
        width: Of the feature and of the hidden layer.
        dim: Of the projected vectors.

    Source:
        MoCo v2 (arXiv:2003.04297); the widths are those of the SSD paper's code.
    """

    def __init__(self, width: int, *, dim: int = 128) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, dim)

    def forward(self, feature_BD: Tensor) -> Tensor:
        projected: Tensor = self.output(F.relu(self.hidden(feature_BD)))
        # Squares of float16 overflow from 256 on.
        return F.normalize(projected.float(), dim=1)


class RotationHead(nn.Linear):
    """Logits of the quarter turns by which an image was rotated."""

    def __init__(self, width: int) -> None:
        super().__init__(width, NUM_ANGLES)


class ClassScale(nn.Module):
    """Learnable weight scaling (LWS): logits s * z of a frozen classifier's logits z = W f + b.

    One positive or negative scale a class, 1 at first, unconstrained; it scales the bias with the
    weights. As z does not depend on it, z may come from a table.

    Source:
        Kang et al., "Decoupling representation and classifier" (ICLR 2020), section 4.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_classes))

    def forward(self, logits_BC: Tensor) -> Tensor:
        """Return the scaled logits, (B, C), in float32 or better.

        Raises:
            ValueError: If there are not C logits an image.
        """
        if logits_BC.shape[-1:] != self.scale.shape:
            raise ValueError(
                f"logits of shape {tuple(logits_BC.shape)} for {len(self.scale)} class scales"
            )
        return logits_BC * self.scale


def build_head(
    kind: str,
    width: int,
    num_classes: int,
    options: Any = None,  # noqa: ANN401 of the head's own type
) -> nn.Module:
    """Return a classifier: (B, width) features to (B, num_classes) logits.

    Args:
        kind: A name of `HEADS`.
        width: Of the feature.
        num_classes: Of the logits.
        options: Of that head's `Options`; their defaults if omitted.

    Raises:
        ConfigError: If there is no head of that kind.
        TypeError: If the options are another head's.
    """
    head = HEADS[kind]
    if options is not None and not isinstance(options, head.Options):
        raise TypeError(f"head {kind} takes {head.Options.__name__}, not {options!r}")
    built: nn.Module = head(width, num_classes, **({} if options is None else asdict(options)))
    return built


def cosine_scale(head: nn.Module) -> float | None:
    """Return what a head multiplies cosines by; None if its logits are no such multiple."""
    scale: float | None = getattr(head, "cosine_scale", None)
    return scale
