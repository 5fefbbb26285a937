"""What follows from the number of training images of each class: formulas of the papers.

Shape letters: C classes.
"""

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


def effective_number(counts: Int64, beta: float) -> Float64:
    """Return (1 - beta) / (1 - beta**n_c), scaled to the sum C over classes that have images.

    Args:
        counts: (C,) images of each class; a class of none weighs 0.
        beta: From 0, where all weigh the same, to below 1, towards which weights go to 1 / n_c.

    Source:
        Cui et al., "Class-balanced loss based on effective number of samples" (CVPR 2019).
    """
    present = counts > 0
    weights = np.zeros(len(counts))
    weights[present] = (1 - beta) / (1 - beta ** counts[present].astype(np.float64))
    scaled: Float64 = weights * (present.sum() / weights.sum())
    return scaled


def inverse_power(counts: Int64, power: float) -> Float64:
    """Return n_c**-power, and 0 for a class of no image.

    Args:
        counts: (C,) images of each class.
        power: 0 weighs all images the same, 1 all classes; 2 is BBN's reversed sampling.
    """
    present = counts > 0
    weights = np.zeros(len(counts))
    weights[present] = counts[present].astype(np.float64) ** -power
    return weights


def log_prior(counts: Int64) -> Float64:
    """Return log(n_c / N), the logarithm of each class's share of the training images.

    A class of no image counts as a class of one. The formula's log 0 would leave its logit out of
    a loss that adds the prior, so that nothing pushed it down, and would make it the answer to
    every image where the prior is subtracted.

    Args:
        counts: (C,) images of each class.

    Source:
        Menon et al., "Long-tail learning via logit adjustment" (ICLR 2021). Its code adds 1e-12
        to the prior instead.
    """
    prior: Float64 = np.log(np.maximum(counts, 1).astype(np.float64)) - np.log(counts.sum())
    return prior


def checked_counts(counts: Int64) -> Int64:
    """Return the counts of training images if they are such.

    Raises:
        ValueError: If they are not one whole number a class, at least 0 and not all 0.
    """
    counts = np.asarray(counts)
    if counts.ndim != 1 or counts.dtype.kind not in "iu":
        raise ValueError(
            f"counts of shape {counts.shape} and type {counts.dtype} must be one whole number "
            "of training images a class"
        )
    if not len(counts) or counts.min() < 0 or not counts.any():
        raise ValueError(f"counts {counts.tolist()} must be at least 0 and not all 0")
    return counts.astype(np.int64)
