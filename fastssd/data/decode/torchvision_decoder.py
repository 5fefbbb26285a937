"""The decoder that is always there: torchvision's libjpeg-turbo, whole image first, then the boxes.

A JPEG that ends early is an error. One whose compressed data is damaged in the middle but still
ends properly is not seen: libjpeg only warns about it, and torchvision does not pass that on.
"""

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode

from fastssd.data.decode.crop import FILTER, crop_resized
from fastssd.data.decode.decoder import DecodeError, Int64
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

    def decode(self, images: Sequence[StoredImage], boxes: Int64, size: int) -> UInt8:
        if boxes.ndim != 3 or boxes.shape[0] != len(images) or boxes.shape[2] != 4:
            raise ValueError(f"boxes of shape {boxes.shape} for {len(images)} images")
        out = np.empty((boxes.shape[1], len(images), size, size, 3), dtype=np.uint8)
        for position, image in enumerate(images):
            try:
                pixels = decode_pixels(image)
            except ValueError as error:
                raise DecodeError(position, str(error)) from error
            for view, box in enumerate(boxes[position]):
                crop_resized(pixels, box, out[view, position])
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
