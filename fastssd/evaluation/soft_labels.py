"""The figure of the soft labels' class distribution, before and after balancing."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from fastssd.evaluation.figures import frequency_bins

_STYLES = {
    "images": ("#555555", ":", "training images"),
    "before": ("#D55E00", "-", "soft labels before balancing"),
    "after": ("#0072B2", "-", "soft labels after balancing"),
}
_MAX_BINS = 200


def class_distribution(
    shares: Mapping[str, NDArray[np.float64]], train_counts: ArrayLike
) -> Figure:
    """Draw the mean soft label of each class, largest class first, on a log scale.

    Many classes are drawn in bins of classes of similar frequency, of which a point is the mean.

    Args:
        shares: (C,) mean soft label by `before` and `after`, as many as there are.
        train_counts: (C,) training images.

    Source:
        SSD paper, figure 5.
    """
    counts = np.asarray(train_counts)
    bins = frequency_bins(counts, max_bins=_MAX_BINS)
    if len(counts) <= _MAX_BINS:
        bins = [np.array([label]) for label in np.argsort(-counts, kind="stable")]
    ends = np.cumsum([len(members) for members in bins])
    ranks = ends - np.array([len(members) - 1 for members in bins]) / 2
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    lines = {"images": counts / counts.sum(), **shares}
    for name, share in lines.items():
        colour, style, label = _STYLES[name]
        means = [float(share[members].mean()) for members in bins]
        axes.plot(ranks, means, color=colour, linestyle=style, linewidth=1.6, label=label)
    axes.axhline(1 / len(counts), color="#BBBBBB", linewidth=0.8, zorder=0)
    axes.set_yscale("log")
    axes.set_xlabel("class, by rank of its training images")
    axes.set_ylabel("mean soft label")
    axes.set_title(f"Soft labels of {len(counts):,} classes; the grey line is balance", loc="left")
    axes.grid(color="#DDDDDD", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
