"""What an image of each class weighs, by the class's number of images: formulas of the papers."""

import numpy as np
from numpy.typing import NDArray

from fastssd.data.draws import Int64

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
