"""What every backbone is: images in, one feature vector each out."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """A network without its classifier.

    `forward` takes (B, 3, S, S) normalised floating-point images in any memory format and
    returns (B, width) pooled features.

    Attributes:
        width: Length of the feature vector.
    """

    width: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return (B, width) features of (B, 3, S, S) images."""
