"""What every loss on class labels has in common, so that a stage builds and calls any of them.

Shape letters: B images in the batch, C classes.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastssd.core.class_frequency import Float64, Int64, checked_counts


class Loss(nn.Module):
    """A loss of logits and labels. It has no weights, and nothing of it enters a checkpoint.

    Args:
        options: Of the class's `Options`.
        counts: (C,) int64, training images of each class. Zeros are allowed: each loss says what
            it makes of a class without images, and none gives NaN.
        scale: What the head multiplies its cosines by, None if its logits are no fixed multiple
            of cosines (`cosine_scale` of a head). Only losses that need it look at it.

    Raises:
        ValueError: If the counts are no counts.
    """

    Options: ClassVar[type]

    def __init__(
        self,
        options: Any,  # noqa: ANN401 of the class's own type
        counts: Int64,
        *,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.options = options
        self.counts = checked_counts(counts)

    def forward(
        self, logits_BC: Tensor, labels_B: Tensor, class_weights_C: Tensor | None = None
    ) -> Tensor:
        """Return the loss.

        Args:
            logits_BC: As the head gives them, of any floating-point type; computed in float32.
            labels_B: int64, in [0, C).
            class_weights_C: What an image of each class weighs, on the logits' device; all the
                same if omitted. The mean is weighted: divided by the sum of the batch's weights.

        Returns:
            float32 scalar, mean over the batch, in nats.
        """
        raise NotImplementedError

    def _keep(self, name: str, values_C: Float64) -> None:
        """Register a tensor that follows from the counts: it moves with the module, unsaved."""
        self.register_buffer(name, torch.from_numpy(values_C).to(torch.float32), persistent=False)
