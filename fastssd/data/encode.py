"""From a source's content to what is stored, with a real decode of every image on the way."""

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base

from fastssd.data.decode.shrink import shrink
from fastssd.data.decode.torchvision_decoder import decode_pixels
from fastssd.data.jpeg_header import SIGNATURE, read_frame
from fastssd.data.orientation import UPRIGHT, turn
from fastssd.data.storage.image import JPEG, RAW, StoredImage, UInt8

# Modes whose values do not fit in 8 bits and have no known range: Pillow would clip them without a
# word. 16 bits have one.
_DEEP_MODES = ("I", "F")
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")

# What Pillow raises at damaged files, besides OSError.
_DAMAGE = (
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image that was decoded once and can be stored.

    Attributes:
        image: What is stored.
        height: Pixels, as stored.
        width: Pixels, as stored.
        orientation: Exif's, 1 (upright) to 8, of what is stored. Pixels are upright.
    """

    image: StoredImage
    height: int
    width: int
    orientation: int = UPRIGHT


def encode(
    content: bytes | NDArray[np.uint8],
    *,
    keep_jpeg: bool,
    upright: bool = True,
    short_side: int | None = None,
) -> Encoded:
    """Decode an image and return it as it will be stored.

    JPEG files that every decoder reads are kept byte by byte if the format can. Everything else
    becomes RGB pixels, as Pillow's ``convert("RGB")`` gives them: CMYK JPEG and other kinds of
    files, whatever their names say. Grey values of 16 bits lose their lower 8, as Pillow does
    with colours of 16 bits.

    Args:
        content: An encoded file, or (height, width, 3) uint8 pixels.
        keep_jpeg: Whether the format stores JPEG bytes.
        upright: Whether Exif orientation counts. If so, pixels are turned here, and a kept JPEG
            has its orientation beside it.
        short_side: If given, larger images are shrunk to it; a kept JPEG is encoded again.

    Raises:
        ValueError: If it cannot be decoded; the message is the reason alone.
    """
    encoded = _encode(content, keep_jpeg=keep_jpeg, upright=upright)
    if short_side is None or min(encoded.height, encoded.width) <= short_side:
        return encoded
    image = shrink(encoded.image, short_side)
    height, width = decode_pixels(image).shape[:2]
    return Encoded(image, height, width, encoded.orientation)


def _encode(content: bytes | NDArray[np.uint8], *, keep_jpeg: bool, upright: bool) -> Encoded:
    if isinstance(content, np.ndarray):
        if content.dtype != np.uint8 or content.ndim != 3 or content.shape[2] != 3:
            raise ValueError(f"pixels are {content.dtype} {content.shape}, not uint8 (h, w, 3)")
        return _raw(content)
    if not content:
        raise ValueError("the file is empty")
    frame = read_frame(content) if content.startswith(SIGNATURE) else None
    if frame is None or not frame.common:
        return _raw(_decode_any(content, upright))
    orientation = frame.orientation if upright else UPRIGHT
    # A copy, since PyTorch warns when it wraps memory that it may not write.
    jpeg = StoredImage(JPEG, np.frombuffer(content, dtype=np.uint8).copy())
    pixels = decode_pixels(jpeg)
    if keep_jpeg:
        return Encoded(jpeg, pixels.shape[0], pixels.shape[1], orientation)
    return _raw(turn(pixels, orientation))


def _raw(pixels: UInt8) -> Encoded:
    if 0 in pixels.shape:
        raise ValueError(f"it has no pixels: {pixels.shape}")
    return Encoded(StoredImage(RAW, pixels), pixels.shape[0], pixels.shape[1])


def _decode_any(content: bytes, upright: bool) -> UInt8:
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            orientation = image.getexif().get(Base.Orientation, UPRIGHT) if upright else UPRIGHT
            pixels = _rgb(image)
    except (OSError, *_DAMAGE) as error:
        raise ValueError(_pillow_reason(error)) from error
    return turn(pixels, orientation) if orientation in range(1, 9) else pixels


def _rgb(image: Image.Image) -> UInt8:
    if image.mode in _SIXTEEN_BITS:
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode.startswith(_DEEP_MODES):
        raise ValueError(
            f"its pixels have more than 16 bits or none of a known range (mode {image.mode}): "
            "make them 8-bit"
        )
    return np.array(image.convert("RGB"))


def _pillow_reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image file of a known kind"
    return str(error) or type(error).__name__
