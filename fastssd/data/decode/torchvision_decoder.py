"""The decoder that is always there: torchvision's libjpeg-turbo, whole image first, then the boxes.

A JPEG that ends early is an error. One whose compressed data is damaged in the middle but still
ends properly is not seen: libjpeg only warns about it, and torchvision does not pass that on.
"""

import re
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.io import ImageReadMode

from fastssd.data.decode.crop import FILTER, crop_resized
from fastssd.data.decode.decoder import DecodeError, Int64, output_of
from fastssd.data.orientation import turn_batch
from fastssd.data.storage.image import JPEG, StoredImage, UInt8

# The operator behind `torchvision.io.decode_jpeg`. The function itself warns at every call since
# 0.29 that a later torchvision drops it, which costs a quarter of the time for a CIFAR image.
_decode_jpeg = torch.ops.image.decode_jpeg
_RGB: int = ImageReadMode.RGB.value

# What PyTorch puts before the message proper: the function and the line of its own source.
_SOURCE_PREFIX = re.compile(r"^.*?\.cpp:\d+, ")


class TorchvisionDecoder:
    """Decodes image after image on the calling thread, without the GIL while it decodes."""

    name = "torchvision"
    filter = FILTER

    def decode(
        self,
        images: Sequence[StoredImage],
        boxes: Int64,
        size: int,
        *,
        out: UInt8 | None = None,
        turns: NDArray[np.uint8] | None = None,
    ) -> UInt8:
        out = output_of(images, boxes, size, out, turns)
        damaged = {}
        for position, image in enumerate(images):
            try:
                pixels = decode_pixels(image)
            except ValueError as error:
                damaged[position] = str(error)
                continue
            for view, box in enumerate(boxes[position]):
                crop_resized(pixels, box, out[view, position])
        if turns is not None:
            turn_batch(out, turns)
        if damaged:
            raise DecodeError.of(damaged)
        return out


def decode_pixels(image: StoredImage) -> UInt8:
    """Return a stored image's pixels, (height, width, 3) uint8; raw ones are not copied.

    Exif orientation is not applied, as in torchvision's ImageFolder.

    Raises:
        ValueError: If the JPEG is damaged; the message is the reason alone.
    """
    if image.mode != JPEG:
        return image.data
    try:
        tensor: Tensor = _decode_jpeg(torch.from_numpy(image.data), _RGB, False)
    except RuntimeError as error:
        raise ValueError(_SOURCE_PREFIX.sub("", str(error).splitlines()[0])) from error
    pixels: UInt8 = tensor.permute(1, 2, 0).numpy()
    return pixels
