import math

import pytest
import torch

from fastssd.losses.classification import classification_loss


def test_it_is_the_mean_negative_log_probability_of_the_labels():
    logits = [[1.0, -2.0, 0.5], [0.0, 3.0, 3.0]]
    labels = [2, 1]

    loss = classification_loss(torch.tensor(logits), torch.tensor(labels))

    expected = -sum(
        z[y] - math.log(sum(math.exp(each) for each in z))
        for z, y in zip(logits, labels, strict=True)
    )
    assert loss.item() == pytest.approx(expected / 2, rel=1e-6)


def test_half_precision_logits_are_summed_in_float32():
    # A float16 sum over 8,142 classes would be off in the third digit.
    loss = classification_loss(torch.zeros(4, 8142, dtype=torch.float16), torch.zeros(4).long())

    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(8142), rel=1e-6)


@pytest.mark.parametrize("labels", [(4, 3), (3,), (1,), (4, 1)])
def test_labels_that_are_not_one_an_image_are_refused(labels):
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        classification_loss(torch.zeros(4, 3), torch.zeros(labels))
