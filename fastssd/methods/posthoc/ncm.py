"""Nearest class mean: an image is of the class whose training images' mean feature is nearest.

Shape letters: B images in the batch, C classes, D width of the feature, R rows of a part.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastssd.core.class_frequency import Int64, checked_counts
from fastssd.methods.posthoc.features import FeatureSet
from fastssd.methods.posthoc.options import NcmOptions
from fastssd.methods.posthoc.posthoc import Posthoc, Sweep, device_of


class NearestMean(nn.Module):
    """Logits -||x - m_c||^2, or the cosine of x and m_c, of transformed features x.

    Computed in float32, also under autocast. A class without training images has the logit minus
    infinity: it is nearest to nothing.

    Args:
        options: How features are transformed and compared.
        width: D.
        num_classes: C.

    Attributes:
        means: (C, D) float32, mean transformed feature of each class.
        centre: (D,) float32, mean of all training features (`cl2n`), else 0.
        present: (C,) bool, whether a class has training images.
    """

    means: Tensor
    centre: Tensor
    present: Tensor

    def __init__(self, options: NcmOptions, width: int, num_classes: int) -> None:
        super().__init__()
        self.options = options
        self.register_buffer("means", torch.zeros(num_classes, width))
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("present", torch.ones(num_classes, dtype=torch.bool))

    def forward(self, feature_BD: Tensor) -> Tensor:
        with torch.autocast(feature_BD.device.type, enabled=False):
            x_BD = transformed(feature_BD.float(), self.centre, self.options)
            if self.options.metric == "cos":
                logits_BC = F.linear(F.normalize(x_BD, dim=1), F.normalize(self.means, dim=1))
            else:
                squares_BC = x_BD.square().sum(1)[:, None] + self.means.square().sum(1)
                logits_BC = 2 * F.linear(x_BD, self.means) - squares_BC
        return logits_BC.masked_fill(~self.present, -torch.inf)


def transformed(features_RD: Tensor, centre_D: Tensor, options: NcmOptions) -> Tensor:
    """Return the features that means are taken of, in the type of `features_RD`.

    Args:
        features_RD: As the network gives them.
        centre_D: Subtracted first; 0 unless `cl2n`.
        options: Whether they are scaled to length 1 then.
    """
    if options.features == "un":
        return features_RD
    return F.normalize(features_RD - centre_D, dim=1)


class Ncm(Posthoc):
    """Means of the training images' features under the test transform.

    The means of features of length 1 are not scaled to length 1 again. Sums are made in float64.

    Source:
        Kang et al., "Decoupling representation and classifier" (ICLR 2020), section 4;
        classifier-balancing:run_networks.py (get_knncentroids) and models/KNNClassifier.py. Its
        `cos` is the plain product of feature and mean, not their cosine, which prefers classes of
        long means.
    """

    Options = NcmOptions
    needs_train = True

    @torch.no_grad()
    def fit(
        self,
        train: FeatureSet | None,
        head: nn.Module,
        counts: Int64,
        validation: FeatureSet | None,
    ) -> tuple[nn.Module, Sweep]:
        if train is None:
            raise ValueError("ncm needs the features of the training split")
        num_classes = len(checked_counts(counts))
        options: NcmOptions = self.options
        centre_D = torch.zeros(train.width, dtype=torch.float64)
        if options.features == "cl2n":
            for features_RD, _ in train.parts():
                centre_D += features_RD.double().sum(0)
            centre_D /= len(train)
        # On the CPU, where index_add_ sums in the order of the rows.
        sums_CD = torch.zeros(num_classes, train.width, dtype=torch.float64)
        images_C = torch.zeros(num_classes, dtype=torch.int64)
        for features_RD, labels_R in train.parts():
            sums_CD.index_add_(0, labels_R, transformed(features_RD.double(), centre_D, options))
            images_C += torch.bincount(labels_R, minlength=num_classes)
        fitted = NearestMean(options, train.width, num_classes)
        fitted.means.copy_(sums_CD / images_C.clamp(min=1)[:, None])
        fitted.centre.copy_(centre_D)
        fitted.present.copy_(images_C > 0)
        sweep = {"features": options.features, "metric": options.metric, "images": len(train)}
        return fitted.to(device_of(head)).eval(), sweep

    def rebuild(self, head: nn.Module, width: int, num_classes: int) -> nn.Module:
        return NearestMean(self.options, width, num_classes).eval()
