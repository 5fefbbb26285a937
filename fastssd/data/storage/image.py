"""A stored image as it lies in its format: the value that storages give and decoders take."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]

JPEG = "jpeg"
RAW = "raw"


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One image, not yet decoded.

    Attributes:
        mode: ``jpeg`` or ``raw``.
        data: The bytes of the JPEG file, (num_bytes,) uint8, or RGB pixels, (height, width, 3)
            uint8. May be a view into a mapped file: do not write to it.
    """

    mode: str
    data: UInt8
