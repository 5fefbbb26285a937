"""A small network that treats every image alone, whatever batch it comes in."""

import torch.nn.functional as F
from torch import Tensor, nn

from fastssd.models.backbone import Backbone

_WIDTHS = (32, 64, 128)


class PlainCnn(Backbone):
    """Three 3x3 convolutions with ReLU, each but the first halving the resolution; no BatchNorm.

    BatchNorm couples the images of a process's batch, so a run's numbers change with the process
    count. This network has no such coupling: runs over different counts can be compared.
    """

    width = _WIDTHS[-1]

    def __init__(self) -> None:
        super().__init__()
        convs = [
            nn.Conv2d(in_width, width, 3, stride=stride, padding=1)
            for in_width, width, stride in zip((3, *_WIDTHS[:-1]), _WIDTHS, (1, 2, 2), strict=True)
        ]
        for conv in convs:
            # Without normalisation the activations keep their size only from such weights.
            nn.init.kaiming_normal_(conv.weight)
        self.convs = nn.ModuleList(convs)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for conv in self.convs:
            x = F.relu(conv(x))
        return x.mean(dim=(2, 3))
