"""From a source's content to what is stored, with a real decode of every image on the way."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fastssd.data.decode.torchvision_decoder import decode_pixels
from fastssd.data.jpeg_header import SIGNATURE, read_frame
from fastssd.data.storage.image import JPEG, RAW, StoredImage, UInt8

# Modes whose values do not fit in 8 bits: Pillow would clip them without a word.
_DEEP_MODES = ("I", "F")


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image that was decoded once and can be stored.

    Attributes:
        image: What is stored.
        height: Pixels.
        width: Pixels.
    """

    image: StoredImage
    height: int
    width: int


def encode(content: bytes | NDArray[np.uint8], *, keep_jpeg: bool) -> Encoded:
    """Decode an image and return it as it will be stored.

    JPEG files that every decoder reads are kept byte by byte if the format can. Everything else
    becomes RGB pixels, as Pillow's ``convert("RGB")`` gives them: CMYK JPEG and other kinds of
    files, whatever their names say. Exif orientation is not applied.

    Args:
        content: An encoded file, or (height, width, 3) uint8 pixels.
        keep_jpeg: Whether the format stores JPEG bytes.

    Raises:
        ValueError: If it cannot be decoded; the message is the reason alone.
    """
    if isinstance(content, np.ndarray):
        if content.dtype != np.uint8 or content.ndim != 3 or content.shape[2] != 3:
            raise ValueError(f"pixels are {content.dtype} {content.shape}, not uint8 (h, w, 3)")
        return _raw(content)
    if not content.startswith(SIGNATURE) or not read_frame(content).common:
        return _raw(_decode_any(content))
    # A copy, since PyTorch warns when it wraps memory that it may not write.
    jpeg = StoredImage(JPEG, np.frombuffer(content, dtype=np.uint8).copy())
    pixels = decode_pixels(jpeg)
    if keep_jpeg:
        return Encoded(jpeg, pixels.shape[0], pixels.shape[1])
    return _raw(pixels)


def _raw(pixels: UInt8) -> Encoded:
    if 0 in pixels.shape:
        raise ValueError(f"it has no pixels: {pixels.shape}")
    return Encoded(StoredImage(RAW, pixels), pixels.shape[0], pixels.shape[1])


def _decode_any(content: bytes) -> UInt8:
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode.startswith(_DEEP_MODES):
                raise ValueError(
                    f"its pixels have more than 8 bits (mode {image.mode}): make them 8-bit"
                )
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(_pillow_reason(error)) from error


def _pillow_reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image file of a known kind"
    return str(error) or type(error).__name__
