"""Tau-normalisation: weight vectors of a trained classifier made equally long, or half way there.

Shape letters: B images in the batch, C classes, D width of the feature.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastssd.core.class_frequency import Int64
from fastssd.errors import ConfigError
from fastssd.methods.posthoc.choice import choose_tau
from fastssd.methods.posthoc.features import FeatureSet
from fastssd.methods.posthoc.options import TauNormOptions
from fastssd.methods.posthoc.posthoc import Posthoc, Sweep


class TauNormalised(nn.Module):
    """Logits w_c f / ||w_c||^tau, without a bias, in float32 also under autocast.

    Args:
        width: D.
        num_classes: C.

    Attributes:
        weight: (C, D) float32, divided already.
        tau: float32 scalar, to be read by people.
    """

    weight: Tensor
    tau: Tensor

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(num_classes, width))
        self.register_buffer("tau", torch.tensor(0.0))

    def forward(self, feature_BD: Tensor) -> Tensor:
        with torch.autocast(feature_BD.device.type, enabled=False):
            return F.linear(feature_BD.float(), self.weight)


class TauNorm(Posthoc):
    """Divides each class's weights by their length to the power of tau and drops the bias.

    The classes of many images have the longest weights. With tau 0 it is the trained classifier
    without its bias.

    Source:
        Kang et al., "Decoupling representation and classifier" (ICLR 2020), equation 2;
        classifier-balancing:tau_norm.py. Its authors chose tau on the test split of iNaturalist
        (classifier-balancing#5); here it is chosen on the validation split or is 1.
        BagofTricks-LT keeps the bias.
    """

    Options = TauNormOptions

    @property
    def wants_validation(self) -> bool:
        return self.options.tau is None

    @torch.no_grad()
    def fit(
        self,
        train: FeatureSet | None,
        head: nn.Module,
        counts: Int64,
        validation: FeatureSet | None,
    ) -> tuple[nn.Module, Sweep]:
        if not isinstance(head, nn.Linear):
            raise ConfigError(
                "tau_norm divides the weights of a linear classifier by their length, and the "
                f"source's is {type(head).__name__}: name a source with head: linear"
            )
        weight_CD = head.weight.detach().float()
        num_classes, width = weight_CD.shape
        # A class whose weights are all 0 keeps them, whatever tau.
        length_C = torch.linalg.vector_norm(weight_CD, dim=1)
        length_C = torch.where(length_C > 0, length_C, 1.0)
        tau, sweep = choose_tau(
            self.options,
            validation,
            num_classes,
            logits_of=lambda features: F.linear(features, weight_CD),
            adjusted=lambda logits, tau: logits / length_C**tau,
            device=weight_CD.device,
        )
        fitted = TauNormalised(width, num_classes).to(weight_CD.device)
        fitted.weight.copy_(weight_CD / length_C[:, None] ** tau)
        fitted.tau.fill_(tau)
        return fitted.eval(), sweep

    def rebuild(self, head: nn.Module, width: int, num_classes: int) -> nn.Module:
        return TauNormalised(width, num_classes).eval()
