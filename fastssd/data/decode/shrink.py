"""Making large images smaller before they are stored, once, instead of at every reading."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fastssd.data.decode.torchvision_decoder import decode_pixels
from fastssd.data.storage.image import JPEG, RAW, StoredImage

JPEG_QUALITY = 95
"""Of a JPEG that is encoded again, by default: its own loss stays below that of a shrunk photo."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """How large images may be.

    Attributes:
        short_side: Of the shorter side, in pixels, at least 1; None for no limit.
        max_side: Of the longer side, in pixels, at least 1; None for no limit.
        quality: Of a JPEG that is encoded again, 1 to 100.
    """

    short_side: int | None = None
    max_side: int | None = None
    quality: int = JPEG_QUALITY

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of an image of this size afterwards, in pixels.

        Both limits hold; sides keep their ratio, rounded down as torchvision does.
        """
        sides = (self.short_side, min(height, width)), (self.max_side, max(height, width))
        scales = [(limit, side) for limit, side in sides if limit is not None and limit < side]
        if not scales:
            return height, width
        limit, side = min(scales, key=lambda scale: scale[0] / scale[1])
        return max(1, limit * height // side), max(1, limit * width // side)


def shrink(image: StoredImage, limit: Limit) -> StoredImage:
    """Return an image within a limit, in the mode that it had.

    Images within it are returned as they are. The others are resized by Pillow's antialiased
    bilinear filter, to the sizes and pixels of torchvision's ``Resize(short_side)``; a JPEG is
    then encoded again, as 4:2:0 without its Exif data.

    Args:
        image: Stored or about to be.
        limit: How large it may be.

    Raises:
        ValueError: If a JPEG is damaged; the message is the reason alone.
    """
    pixels = decode_pixels(image)
    before = (pixels.shape[0], pixels.shape[1])
    height, width = limit.size(*before)
    if (height, width) == before:
        return image
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    if image.mode != JPEG:
        return StoredImage(RAW, np.array(resized))
    content = io.BytesIO()
    resized.save(content, "JPEG", quality=limit.quality, subsampling="4:2:0")
    return StoredImage(JPEG, np.frombuffer(content.getvalue(), np.uint8).copy())
