"""Image files that Pillow reads: which kinds, of how many pixels, and what is wrong with one.

Pillow tells a file's kind by its content and knows more than forty, some of which it hands to
other programs: Ghostscript for EPS. Only the kinds that are listed here are opened, and here alone.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base

from fastssd.core.reading import reason_of
from fastssd.data.orientation import UPRIGHT, turn
from fastssd.data.storage.image import MAX_PIXELS, UInt8

_PLUGINS = {
    "JPEG": "Jpeg",
    "PNG": "Png",
    "WEBP": "WebP",
    "GIF": "Gif",
    "BMP": "Bmp",
    "PPM": "Ppm",
    "TIFF": "Tiff",
    "AVIF": "Avif",
    "JPEG2000": "Jpeg2K",
}
KINDS = tuple(_PLUGINS)
"""The kinds of files that are read, by Pillow's names."""

# Modes whose values do not fit in 8 bits and have no known range: Pillow would clip them without a
# word. 16 bits have one.
_DEEP_MODES = ("I", "F")
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


def _installed() -> list[str]:
    """Import Pillow's own readers of `KINDS`; return those that this Pillow has."""
    for plugin in _PLUGINS.values():
        try:
            import_module(f"PIL.{plugin}ImagePlugin")
        except ImportError:  # of a later Pillow
            continue
    return [kind for kind in KINDS if kind in Image.OPEN]


_INSTALLED = _installed()


def check_pixels(height: int, width: int, max_pixels: int) -> None:
    """Check that an image may be decoded.

    Raises:
        ValueError: If it has more pixels than `max_pixels`; the message is the reason alone.
    """
    if height * width > max_pixels:
        raise ValueError(f"it has {width:,} x {height:,} pixels, {_limit(max_pixels)}")


def decode_file(content: bytes, *, upright: bool, max_pixels: int) -> UInt8:
    """Decode a file of one of `KINDS`.

    Grey values of 16 bits lose their lower 8, as Pillow does with colours of 16 bits.

    Args:
        content: The file.
        upright: Whether to turn it as its Exif data say.
        max_pixels: What is larger is not decoded.

    Returns:
        (height, width, 3) uint8, as Pillow's ``convert("RGB")`` gives them.

    Raises:
        ValueError: If it cannot be decoded; the message is the reason alone.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_INSTALLED) as image:
            check_pixels(image.height, image.width, max_pixels)
            image.load()
            orientation = image.getexif().get(Base.Orientation, UPRIGHT) if upright else UPRIGHT
            pixels = _rgb(image)
    except UnidentifiedImageError as error:
        raise ValueError(f"it is none of the image files that are read: {', '.join(KINDS)}") from (
            error
        )
    except Image.DecompressionBombError as error:
        raise ValueError(f"it has too many pixels, {_limit(max_pixels)}") from error
    except Exception as error:  # each of Pillow's readers raises what its damaged files lead to
        raise ValueError(reason_of(error)) from error
    return turn(pixels, orientation) if orientation in range(1, 9) else pixels


@contextmanager
def pillow_limit(max_pixels: int) -> Iterator[None]:
    """Let Pillow, which has a limit of its own for the whole process, open such images."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _limit(max_pixels: int) -> str:
    if max_pixels < MAX_PIXELS:
        remedy = f"make it smaller, or allow up to {MAX_PIXELS:,} with --max-pixels"
    else:
        remedy = "which no decoder takes: make it smaller"
    return f"more than {max_pixels:,}: {remedy}"


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
