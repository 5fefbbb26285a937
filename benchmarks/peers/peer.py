"""What a benchmark needs of any loader, ours or another project's."""

import argparse
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Protocol

import numpy as np
from harness import num_cores
from numpy.typing import NDArray
from torch import Tensor

Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
Pixels = UInt8 | Tensor
"""Of a batch, uint8: an array of the host, or a tensor where a loader leaves them on a GPU."""

SIDE = 224
"""Of the output, in pixels."""
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
"""Of RandomResizedCrop: least and greatest part of the area, and width over height."""


class Loader(Protocol):
    """Makes batches of random resized crops."""

    def batches(self, samples: Int64) -> Iterator[tuple[Pixels, Int64]]:
        """Yield uint8 pixels, (B, 224, 224, 3) or (B, 3, 224, 224), and the samples they are of.

        Every batch is full; what is left of `samples` is dropped.

        Args:
            samples: Rows of the store, which may repeat; a peer brings them into an order of its
                own.
        """

    def close(self) -> None:
        """End threads and processes."""


def on_host(pixels: Pixels) -> UInt8:
    """Return pixels as an array."""
    return pixels.cpu().numpy() if isinstance(pixels, Tensor) else pixels


def add_loader_options(parser: argparse.ArgumentParser) -> None:
    """Add what benchmarks of loaders are asked: `threads` of each, and `alone`."""
    parser.add_argument("--threads", type=int, default=num_cores(), help="of every loader")
    parser.add_argument("--alone", action="store_true", help="without peers, so without ratios")


def is_measured(module: str, options: argparse.Namespace) -> bool:
    """Return whether a peer takes part: its module is installed, and it was not left out."""
    if options.alone:
        return False
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
