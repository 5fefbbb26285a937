"""Counting correct predictions on the device, and the accuracies that follow from the counts.

Shape letters: B images in the batch, C classes.
"""

import math
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastssd.evaluation.shots import GROUPS, shot_groups


class ClassCounter:
    """Correct and seen images per class, exact whatever the batches and the padding were.

    The two tensors stay on the device and may be summed over processes before they are read.

    Attributes:
        correct: (C,) int64, images of each class that were classified correctly.
        total: (C,) int64, images of each class that were counted.
    """

    correct: Tensor
    total: Tensor

    def __init__(self, num_classes: int, *, device: torch.device | str = "cpu") -> None:
        self.correct = torch.zeros(num_classes, dtype=torch.int64, device=device)
        self.total = torch.zeros(num_classes, dtype=torch.int64, device=device)

    def add(self, logits: Tensor, labels: Tensor, valid: Tensor | None = None) -> None:
        """Count a batch, without waiting for the device.

        Args:
            logits: (B, C) of any float type. An image with NaN among its logits counts as wrong:
                its argmax would be an accident.
            labels: (B,) int64, below C where ``valid``.
            valid: (B,) bool, False for padding, which is not counted; all count if omitted.

        Raises:
            ValueError: If the shapes do not belong together; they would broadcast silently.
        """
        valid = torch.ones_like(labels, dtype=torch.bool) if valid is None else valid
        num_images, num_classes = len(labels), len(self.total)
        if (
            logits.shape != (num_images, num_classes)
            or labels.shape != (num_images,)
            or valid.shape != (num_images,)
        ):
            raise ValueError(
                f"logits {tuple(logits.shape)}, labels {tuple(labels.shape)} and valid "
                f"{tuple(valid.shape)} must be (B, {num_classes}), (B,) and (B,)"
            )
        largest, predicted = logits.max(dim=1)
        hits = (predicted == labels) & ~largest.isnan() & valid
        # Padding may carry any label, such as -1; it adds zero to class 0. torch.bincount would
        # do all this in one call, but waits for the device.
        labels = torch.where(valid, labels, 0)
        self.correct.index_add_(0, labels, hits.to(torch.int64))
        self.total.index_add_(0, labels, valid.to(torch.int64))


class GroupMeter:
    """Training accuracy by shot group since the last flush, summed on the device.

    Attributes:
        sums: (3, 2) int64, a row for each of many, medium and few: hits and images.
    """

    sums: Tensor

    def __init__(self, train_counts: ArrayLike, *, device: torch.device | str = "cpu") -> None:
        groups = shot_groups(train_counts)
        group_of_class = np.stack([groups[group] for group in GROUPS]).argmax(axis=0)
        self._group_of_class = torch.as_tensor(group_of_class, dtype=torch.int64, device=device)
        self.sums = torch.zeros(len(GROUPS), 2, dtype=torch.int64, device=device)

    def add(self, hits: Tensor, labels: Tensor, valid: Tensor | None = None) -> None:
        """Count a batch, without waiting for the device.

        Args:
            hits: (B,) bool, whether the task was solved for the image: its class, or its rotation.
            labels: (B,) int64, the class of each image, which decides the group.
            valid: (B,) bool, False for images not to count; all count if omitted.

        Raises:
            ValueError: If the shapes differ.
        """
        valid = torch.ones_like(hits) if valid is None else valid
        if not (hits.shape == labels.shape == valid.shape == (len(labels),)):
            raise ValueError(
                f"hits {tuple(hits.shape)}, labels {tuple(labels.shape)} and valid "
                f"{tuple(valid.shape)} must all be (B,)"
            )
        group = self._group_of_class[torch.where(valid, labels, 0)]
        counts = torch.stack([hits & valid, valid], dim=1).to(torch.int64)
        self.sums.index_add_(0, group, counts)

    def flush(self) -> dict[str, float]:
        """Return the accuracies since the last flush, and start again.

        This is the one place that waits for the device. With several processes `sums` are to be
        set to the sums of all before.

        Returns:
            ``overall`` and each group in percent of the images seen (not of the classes: a window
            is too short for that). A group of which no image was seen has no key.
        """
        rows: list[list[int]] = self.sums.tolist()
        self.sums = torch.zeros_like(self.sums)
        rows = [[sum(column) for column in zip(*rows, strict=True)], *rows]
        return {
            group: 100.0 * hits / seen
            for group, (hits, seen) in zip(("overall", *GROUPS), rows, strict=True)
            if seen
        }


def class_accuracies(correct: ArrayLike | Tensor, total: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Return each class's accuracy in percent, (C,) float64; NaN for a class without images.

    Raises:
        ValueError: If the two are not (C,) counts with 0 <= correct <= total.
    """
    correct, total = _counts(correct, total)
    with np.errstate(invalid="ignore"):
        return 100.0 * correct / total


def accuracies(
    correct: ArrayLike | Tensor, total: ArrayLike | Tensor, train_counts: ArrayLike
) -> dict[str, float | None]:
    """Return overall accuracy, that of the mean class, and that of each shot group.

    Args:
        correct: (C,) integers, correctly classified images of each class.
        total: (C,) integers, classified images of each class.
        train_counts: (C,) integers, training images of each class.

    Returns:
        In percent: ``overall`` over images, ``class_mean`` over classes ("balanced accuracy"; the
        same number where all have as many images), and for each group of `shot_groups` the mean
        over its classes. Classes of which no image was classified are left out. None where nothing
        is left.

    Raises:
        ValueError: If the arguments are not counts of the same classes.

    Source:
        SSD_LT/utils.py:shot_acc, except that it calls the accuracy of an empty group 0.
    """
    correct, total = _counts(correct, total)
    groups = shot_groups(train_counts)
    if len(groups["many"]) != len(total):
        raise ValueError(f"{len(groups['many'])} train_counts for {len(total)} classes")
    per_class = class_accuracies(correct, total)
    images = int(total.sum())
    result: dict[str, float | None] = {
        "overall": 100.0 * float(correct.sum()) / images if images else None,
        "class_mean": _class_mean(correct, total),
    }
    for group, members in groups.items():
        tested = members & (total > 0)
        result[group] = float(per_class[tested].mean()) if tested.any() else None
    return result


def standard_error(correct: ArrayLike | Tensor, total: ArrayLike | Tensor) -> float | None:
    """Return the standard error of overall accuracy in percent, None without images.

    It is that of a share p among n independent images, sqrt(p (1 - p) / n): what another test set
    of this size would change. It knows nothing of the spread between training runs.

    Raises:
        ValueError: If the two are not (C,) counts with 0 <= correct <= total.
    """
    correct, total = _counts(correct, total)
    images = int(total.sum())
    if not images:
        return None
    share = float(correct.sum()) / images
    return 100.0 * float(np.sqrt(share * (1.0 - share) / images))


def class_mean_standard_error(
    correct: ArrayLike | Tensor, total: ArrayLike | Tensor
) -> float | None:
    """Return the standard error of the mean class's accuracy in percent, None without images.

    It is what another test set with as many images of each class would change: a class of n images
    and share p adds p (1 - p) / (n - 1), the unbiased estimate of its variance. One image tells
    nothing of its class's variance: that of such classes together is taken from the spread between
    them, and that of a single one is the largest there is, 1/4.

    Raises:
        ValueError: If the two are not (C,) counts with 0 <= correct <= total.
    """
    correct, total = _counts(correct, total)
    num_classes = int((total > 0).sum())
    if not num_classes:
        return None
    several, alone = total > 1, total == 1
    shares = correct[several] / total[several]
    variance = float((shares * (1.0 - shares) / (total[several] - 1)).sum())
    if (num_alone := int(alone.sum())) > 1:
        variance += float(correct[alone].var(ddof=1)) * num_alone
    else:
        variance += num_alone / 4
    return 100.0 * math.sqrt(variance) / num_classes


def _class_mean(correct: NDArray[np.int64], total: NDArray[np.int64]) -> float | None:
    """Return the mean class's accuracy in percent, rounded once.

    So it has the bits of overall accuracy where the two are the same number, and neither what is
    printed nor the choice of the best weights depends on which of them is looked at.
    """
    tested = total > 0
    if not tested.any():
        return None
    sizes, size_of_class = np.unique(total[tested], return_inverse=True)
    hits = np.zeros_like(sizes)
    np.add.at(hits, size_of_class, correct[tested])
    shares = map(Fraction, hits.tolist(), sizes.tolist())
    return float(100 * sum(shares, Fraction()) / int(tested.sum()))


def _counts(
    correct: ArrayLike | Tensor, total: ArrayLike | Tensor
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return both as checked NumPy arrays; tensors are fetched from their device."""
    pair = [
        np.asarray(counts.cpu() if isinstance(counts, Tensor) else counts)
        for counts in (correct, total)
    ]
    if any(counts.ndim != 1 or counts.dtype.kind not in "iu" for counts in pair):
        raise ValueError("correct and total must be one integer per class")
    if len(pair[0]) != len(pair[1]):
        raise ValueError(f"{len(pair[0])} correct for {len(pair[1])} total")
    if (pair[0] < 0).any() or (pair[0] > pair[1]).any():
        worst = int(np.argmax((pair[0] < 0) | (pair[0] > pair[1])))
        raise ValueError(f"class {worst}: {pair[0][worst]} correct of {pair[1][worst]} images")
    return pair[0].astype(np.int64), pair[1].astype(np.int64)
