"""Making large images smaller before they are stored, once, instead of at every reading."""

import io

import numpy as np
from PIL import Image

from fastssd.data.decode.torchvision_decoder import decode_pixels
from fastssd.data.storage.image import JPEG, RAW, StoredImage

JPEG_QUALITY = 95
"""Of a JPEG that is encoded again: its own loss stays below that of a shrunk photograph."""


def shrink(image: StoredImage, short_side: int) -> StoredImage:
    """Return an image whose shorter side is at most `short_side`, in the mode that it had.

    Smaller images are returned as they are. The others are resized by Pillow's antialiased
    bilinear filter to the sizes and pixels of torchvision's ``Resize(short_side)``; a JPEG is
    then encoded again, as 4:2:0 with `JPEG_QUALITY`, without its Exif data.

    Args:
        image: Stored or about to be.
        short_side: Pixels, at least 1.

    Raises:
        ValueError: If a JPEG is damaged; the message is the reason alone.
    """
    pixels = decode_pixels(image)
    height, width = pixels.shape[:2]
    least = min(height, width)
    if least <= short_side:
        return image
    # Rounded down, as torchvision does.
    sides = [short_side * side // least for side in (width, height)]
    resized = Image.fromarray(pixels).resize((sides[0], sides[1]), Image.Resampling.BILINEAR)
    if image.mode != JPEG:
        return StoredImage(RAW, np.array(resized))
    content = io.BytesIO()
    resized.save(content, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
    return StoredImage(JPEG, np.frombuffer(content.getvalue(), np.uint8).copy())
