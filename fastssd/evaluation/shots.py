"""Which classes are many-, medium- and few-shot, by the number of their training images."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

GROUPS = ("many", "medium", "few")

EXCLUSIVE_GROUPS = ("many_exclusive", "medium_exclusive", "few_exclusive")

LIMITS = {
    "many": ">= 100",
    "medium": "21 to 99",
    "few": "<= 20",
    "many_exclusive": "> 100",
    "medium_exclusive": "20 to 100",
    "few_exclusive": "< 20",
}
"""The training images of a class in each group, for people to read."""


def shot_groups(train_counts: ArrayLike) -> dict[str, NDArray[np.bool_]]:
    """Return which classes belong to each group, by both conventions in use.

    Args:
        train_counts: (C,) non-negative integers, training images of each class.

    Returns:
        For each name in ``GROUPS`` and ``EXCLUSIVE_GROUPS`` a (C,) bool mask. The three masks of a
        convention cover every class exactly once; a class without images counts as few.

    Raises:
        ValueError: If the counts are not a list of non-negative integers.

    Source:
        Li, Wang, Wu (ICCV 2021), section 4, includes 100 in many and 20 in few, as OLTR's code
        does; the released code of the paper (SSD_LT/utils.py:shot_acc) leaves both to medium.
    """
    counts = np.asarray(train_counts)
    if counts.ndim != 1 or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError(
            f"train_counts must be one non-negative integer per class, got {counts.dtype} of "
            f"shape {counts.shape}"
        )
    many, few = counts >= 100, counts <= 20
    many_exclusive, few_exclusive = counts > 100, counts < 20
    return {
        "many": many,
        "medium": ~(many | few),
        "few": few,
        "many_exclusive": many_exclusive,
        "medium_exclusive": ~(many_exclusive | few_exclusive),
        "few_exclusive": few_exclusive,
    }
