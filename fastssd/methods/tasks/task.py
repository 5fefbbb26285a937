"""What a self-supervised task is to the supervised method that it stands beside."""

from typing import Any, ClassVar

from torch import Tensor, nn

from fastssd.methods.batch import Batch, Output
from fastssd.methods.options import NoTaskOptions
from fastssd.models.backbone import Backbone


class Task(nn.Module):
    """A task on the backbone's features. This one asks for nothing: the supervised loss alone.

    Args:
        options: Of the class's `Options`.
        backbone: Shared with the classifier; a task keeps what it needs of it, not itself.
        seed: Of its initial weights.
    """

    Options: ClassVar[type] = NoTaskOptions
    rotates: ClassVar[bool] = False
    """Whether its images are also wanted turned."""

    def __init__(self, options: Any, backbone: Backbone, *, seed: int) -> None:  # noqa: ANN401
        super().__init__()
        self.options = options

    def forward(self, backbone: Backbone, batch: Batch) -> tuple[Tensor, Output]:
        """Return the (B, D) features of the images to classify, and the task's losses."""
        return backbone(batch.images), Output({}, {})

    def after_step(self, backbone: Backbone) -> None:
        """Update state that no gradient reaches; called once per optimizer step."""


NoTask = Task
