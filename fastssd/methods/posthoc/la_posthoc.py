"""Post-hoc logit adjustment: the classes' frequencies taken out of a trained network's logits.

Shape letters: B images in the batch, C classes, D width of the feature.
"""

import copy

import torch
from torch import Tensor, nn

from fastssd.core.class_frequency import Int64, checked_counts, log_prior
from fastssd.methods.posthoc.choice import choose_tau
from fastssd.methods.posthoc.features import FeatureSet
from fastssd.methods.posthoc.options import LaPosthocOptions
from fastssd.methods.posthoc.posthoc import Posthoc, Sweep, device_of


class AdjustedHead(nn.Module):
    """A trained classifier's logits minus a constant of each class.

    Args:
        head: The classifier, copied.
        num_classes: C.

    Attributes:
        shift: (C,) float32, what is subtracted.
        tau: float32 scalar, to be read by people.
    """

    shift: Tensor
    tau: Tensor

    def __init__(self, head: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.head = copy.deepcopy(head).requires_grad_(False)
        device = device_of(head)
        self.register_buffer("shift", torch.zeros(num_classes, device=device))
        self.register_buffer("tau", torch.tensor(0.0, device=device))

    def forward(self, feature_BD: Tensor) -> Tensor:
        logits_BC: Tensor = self.head(feature_BD)
        return logits_BC.float() - self.shift


class LaPosthoc(Posthoc):
    """Subtracts tau * log(n_c / N) from the logits.

    With tau 1 it answers as if all classes were equally frequent, for a network whose softmax is
    the probability of each class among the training images. A class without training images counts
    as one of a single image.

    Source:
        Menon et al., "Long-tail learning via logit adjustment" (ICLR 2021), equation 9.
    """

    Options = LaPosthocOptions

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
        counts = checked_counts(counts)
        fitted = AdjustedHead(head, len(counts)).eval()
        prior_C = torch.from_numpy(log_prior(counts))
        device = fitted.shift.device
        tau, sweep = choose_tau(
            self.options,
            validation,
            len(counts),
            logits_of=fitted,
            adjusted=lambda logits, tau: logits - (tau * prior_C).to(device, torch.float32),
            device=device,
        )
        fitted.shift.copy_(tau * prior_C)
        fitted.tau.fill_(tau)
        return fitted, sweep

    def rebuild(self, head: nn.Module, width: int, num_classes: int) -> nn.Module:
        return AdjustedHead(head, num_classes).eval()
