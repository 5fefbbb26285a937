"""Choosing the strength of a method on the validation split.

Shape letters: R rows of a part, D width of the feature, C classes.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fastssd.evaluation.metrics import ClassCounter, class_accuracies
from fastssd.methods.posthoc.features import FeatureSet
from fastssd.methods.posthoc.options import SweptOptions
from fastssd.methods.posthoc.posthoc import Sweep

WITHOUT_VALIDATION = 1.0
"""tau where there is nothing to choose it on."""


@torch.no_grad()
def choose_tau(
    options: SweptOptions,
    validation: FeatureSet | None,
    num_classes: int,
    logits_of: Callable[[Tensor], Tensor],
    adjusted: Callable[[Tensor, float], Tensor],
    device: torch.device | str,
) -> tuple[float, Sweep]:
    """Return tau and how it came about.

    Args:
        options: A given tau is returned as it is.
        validation: Where tau is chosen; 1 if None.
        num_classes: C.
        logits_of: (R, D) features to (R, C) logits before adjustment, asked once for each part.
        adjusted: Those logits and a tau to the (R, C) logits under it.
        device: What the features are moved to.

    Returns:
        Of the candidates with the highest mean of the classes' accuracies, over the classes that
        the validation split has, the smallest. And JSON: `tau`, `chosen_on` (`validation`,
        `config`, or None), `message`, and if chosen `images` and `candidates`, each with its `tau`
        and `class_mean` in percent.
    """
    if options.tau is not None:
        message = f"tau {options.tau:g}, as the config says"
        return options.tau, {"tau": options.tau, "chosen_on": "config", "message": message}
    if validation is None:
        tau = WITHOUT_VALIDATION
        message = f"tau {tau:g}: without a validation split there is nothing to choose it on"
        return tau, {"tau": tau, "chosen_on": None, "message": message}
    taus = options.candidates
    counters = [ClassCounter(num_classes, device=device) for _ in taus]
    for features_RD, labels_R in validation.parts():
        logits_RC = logits_of(features_RD.to(device))
        labels_R = labels_R.to(device)
        for tau, counter in zip(taus, counters, strict=True):
            counter.add(adjusted(logits_RC, tau), labels_R)
    means = [
        float(np.nanmean(class_accuracies(counter.correct, counter.total))) for counter in counters
    ]
    best = int(np.argmax(means))
    return taus[best], {
        "tau": taus[best],
        "chosen_on": "validation",
        "message": f"tau {taus[best]:g}, the best of {len(taus)} on {len(validation)} validation "
        f"images: {means[best]:.2f} % as a mean of classes",
        "images": len(validation),
        "candidates": [
            {"tau": tau, "class_mean": mean} for tau, mean in zip(taus, means, strict=True)
        ],
    }
