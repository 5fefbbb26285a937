"""The residual networks that long-tailed CIFAR is reported with.

"ResNet-32" names several networks in this literature; this is the 0.46 M one of widths 16, 32 and
64 with parameter-free shortcuts.

Source:
    He et al., "Deep residual learning for image recognition" (CVPR 2016), section 4.2; shortcut
    and initialisation as in BBN, whose CIFAR recipe the SSD paper follows.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from fastssd.models.backbone import Backbone

_WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters ("option A").

    Where the block halves the resolution, its shortcut takes every second pixel and pads the new
    channels with zeros, half before and half after the old ones.
    """

    def __init__(self, in_width: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride = stride
        self.padding = (width - in_width) // 2

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = F.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        if self.padding:
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(residual + x)


class CifarResNet(Backbone):
    """A residual network of 6n + 2 layers, without the last.

    Args:
        depth: 8, 14, 20, ... : 6n + 2, counting the classifier that is not part of it.

    Raises:
        ValueError: If `depth` is not of that form.
    """

    width = _WIDTHS[-1]

    def __init__(self, depth: int) -> None:
        super().__init__()
        num_blocks, rest = divmod(depth - 2, 6)
        if num_blocks < 1 or rest:
            raise ValueError(f"depth={depth} is not 6n + 2 with n >= 1 (8, 14, 20, 32, ...)")
        self.conv = nn.Conv2d(3, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(_WIDTHS[0])
        blocks: list[nn.Module] = []
        in_width = _WIDTHS[0]
        for width in _WIDTHS:
            for _ in range(num_blocks):
                blocks.append(BasicBlock(in_width, width, stride=1 if width == in_width else 2))
                in_width = width
        self.blocks = nn.Sequential(*blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        x: Tensor = F.relu(self.bn(self.conv(images)))
        x = self.blocks(x)
        # A mean, not adaptive pooling, whose backward pass on CUDA may not repeat its bits.
        return x.mean(dim=(2, 3))
