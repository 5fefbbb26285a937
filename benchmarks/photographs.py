"""The photographs that benchmarks measure on: those of a folder, or synthetic ones.

A synthetic photograph is fractal noise, as the spectra of photographs are: random phases under
amplitudes that fall with the frequency, strong in brightness and weaker in colour, over a smooth
gradient. Sizes and qualities vary around those of ImageNet, so files have about as many bits a
pixel; what they lack are edges. Every fourth is 4:4:4, the others 4:2:0.
"""

import io
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import get_sampling
from resident import free_bytes

from fastssd.data.encode import KEEP, Encoding, encode
from fastssd.data.jpeg_header import SIGNATURE, read_frame
from fastssd.data.orientation import UPRIGHT
from fastssd.data.sources.file_tree import EXTENSIONS
from fastssd.data.storage.image import RAW

UInt8 = NDArray[np.uint8]

LONGEST_SIDE = 4096
"""Pixels. One larger photograph among others would cost FFCV's Loader gigabytes; see
`too_large_for_ffcv`."""
BATCH_PIXELS = 40_000_000
"""Of a batch that is measured, about: 64 photographs of half a megapixel, 8 of a phone's."""
MOST_PIXELS = 500_000_000
"""After so many no further photograph of a folder is taken: 1,000 of iNaturalist's, 41 of a
phone's."""
DAMAGED, GREYSCALE, CMYK = "damaged", "greyscale", "CMYK"
TOO_LARGE = f"too large for FFCV to be measured beside (a side above {LONGEST_SIDE:,} pixels)"
TURNED, ENCODED = "turned", "encoded"
"""What became of a file: its Exif orientation was hidden, or it was no JPEG and is one now."""
SUBSAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
SIZES = [(500, 375), (500, 333), (375, 500), (500, 400), (480, 360), (640, 480), (333, 500)]
"""Width and height, those of most of ImageNet's photographs."""
MOSAIC = (800, 600)
"""Width and height of most of iNaturalist 2018's photographs."""
_QUALITY = 90
_NOT_FOR_ALL = {1: GREYSCALE, 4: CMYK}  # by the components of a JPEG file
_ENDINGS = ", ".join(EXTENSIONS)
_EXIF, _NO_EXIF = b"Exif\0\0", b"none\0\0"
_GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True)
class Photograph:
    """A JPEG file.

    Attributes:
        content: The file.
        subsampling: Of its chroma: ``4:4:4``, ``4:2:2``, ``4:2:0`` or ``other``.
        width: Pixels.
        height: Pixels.
        change: From the file it was taken of: ``turned``, ``encoded`` or nothing.
    """

    content: bytes
    subsampling: str
    width: int
    height: int
    change: str = ""

    def pixels(self) -> UInt8:
        """Return the (height, width, 3) pixels, by Pillow."""
        return np.asarray(Image.open(io.BytesIO(self.content), formats=["JPEG"]).convert("RGB"))


class Photographs(list[Photograph]):
    """Photographs to measure on.

    Attributes:
        left_out: How many images of their folder were looked at and not taken, by the reason.
    """

    def __init__(self, found: Iterable[Photograph] = ()) -> None:
        super().__init__(found)
        self.left_out: Counter[str] = Counter()


def photographs(folder: Path | None, *, count: int = 48) -> Photographs:
    """Return photographs below a folder, or synthetic ones.

    All loaders shall see the same pixels in the same bytes. So damaged files are left out, as are
    those that not every peer reads: greyscale and CMYK ones, and very large ones among others. Exif
    orientations, which only some heed, are hidden. Files that are not JPEG become JPEG of quality
    90, 4:2:0.

    Args:
        folder: With images at any depth; None for synthetic photographs.
        count: Of the synthetic ones, or the most that are taken of the folder's, evenly spread;
            fewer where they have more than `MOST_PIXELS` together.

    Raises:
        SystemExit: If the folder has none.
    """
    if folder is None:
        return Photographs(_synthetic(number) for number in range(count))
    names = folder.rglob("*")
    files = sorted(path for path in names if path.suffix.lower() in EXTENSIONS and path.is_file())
    found = _taken(files, count, longest_side=LONGEST_SIDE)
    if not found and found.left_out[TOO_LARGE]:
        found = _taken(files, count, longest_side=math.inf)
    if not found:
        reasons = [f"{number:,} {reason}" for reason, number in found.left_out.items()]
        raise SystemExit(
            f"{folder}: no photographs; "
            + (f"left out: {', '.join(reasons)}" if reasons else f"looked for: {_ENDINGS}")
        )
    return found


def _taken(files: Sequence[Path], count: int, *, longest_side: float) -> Photographs:
    found, pixels = Photographs(), 0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # it remarks on odd metadata
        for place in _evenly(len(files)):
            if len(found) >= count or pixels >= MOST_PIXELS:
                break
            photograph = _read(files[place], longest_side)
            if isinstance(photograph, str):
                found.left_out[photograph] += 1
            else:
                found.append(photograph)
                pixels += photograph.width * photograph.height
    return found


def mosaics(source: Sequence[Photograph], *, count: int) -> list[Photograph]:
    """Return photographs of 800 x 600, each of four others' native pixels, 4:2:0, quality 90.

    Every quarter is cut from the middle of a photograph; one that is smaller is reflected at its
    edges. No pixel is resized, so the detail a pixel is that of the originals.
    """
    width, height = MOSAIC[0] // 2, MOSAIC[1] // 2
    result = []
    for number in range(count):
        picked = [source[(number + i * max(1, len(source) // 4)) % len(source)] for i in range(4)]
        parts = [_middle(photograph.pixels(), width, height) for photograph in picked]
        upper, lower = np.hstack(parts[:2]), np.hstack(parts[2:])
        result.append(_encoded(np.vstack([upper, lower]), _QUALITY, "4:2:0"))
    return result


def summary(found: Photographs) -> dict[str, object]:
    """Return what the photographs are, for a result's environment."""
    pixels = sum(each.width * each.height for each in found)
    num_bytes = sum(len(each.content) for each in found)
    result: dict[str, object] = {
        "photographs": len(found),
        "megapixels_each": round(pixels / len(found) / 1e6, 3),
        "bits_per_pixel": round(8 * num_bytes / pixels, 2),
        "subsampling": dict(sorted(Counter(each.subsampling for each in found).items())),
    }
    result |= Counter(each.change for each in found if each.change)
    return result | ({"left_out": dict(found.left_out)} if found.left_out else {})


def batch_size_for(found: Sequence[Photograph], most: int) -> int:
    """Return how many photographs a batch is measured with: fewer of large ones, at least 8."""
    pixels = sum(each.width * each.height for each in found) / len(found)
    return min(most, max(8, int(BATCH_PIXELS / pixels)))


def too_large_for_ffcv(
    found: Sequence[Photograph], batch_size: int, *, limit: float = math.inf
) -> str:
    """Return why FFCV's Loader cannot be measured on these photographs; empty where it can be.

    It allocates room for the greatest height times the greatest width for every image of five
    batches. Half of the free memory is what it may have, and all of a limit in bytes.
    """
    height, width = max(each.height for each in found), max(each.width for each in found)
    needed, room = 5 * batch_size * 3 * height * width, min(free_bytes() / 2, limit)
    if needed <= room:
        return ""
    return (
        f"FFCV's Loader is left out: {batch_size} photographs a batch, of up to {width:,} x "
        f"{height:,} pixels, are {needed / 1e9:.0f} GB to it, and it may have {room / 1e9:.0f} GB"
    )


def _evenly(number: int) -> NDArray[np.int64]:
    """Return an order of so many places in which the first few, however many, lie evenly."""
    return np.argsort(np.arange(number) * _GOLDEN_RATIO % 1)


def _read(path: Path, longest_side: float) -> Photograph | str:
    """Return a file's photograph, or why it has none."""
    try:
        content = path.read_bytes()
        if content.startswith(SIGNATURE):
            frame = read_frame(content)
            if frame.num_components in _NOT_FOR_ALL:
                return _NOT_FOR_ALL[frame.num_components]
            if max(frame.height, frame.width) > longest_side:  # said before all of it is read
                return TOO_LARGE
        checked = encode(content, Encoding(jpeg=KEEP))
        if max(checked.height, checked.width) > longest_side:
            return TOO_LARGE
        if checked.image.mode == RAW:
            return replace(_encoded(checked.image.data, _QUALITY, "4:2:0"), change=ENCODED)
        change = "" if checked.orientation == UPRIGHT else TURNED
        if change:
            content = content.replace(_EXIF, _NO_EXIF)
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            subsampling = SUBSAMPLINGS.get(get_sampling(image), "other")
    except (OSError, ValueError):
        return DAMAGED
    return Photograph(content, subsampling, checked.width, checked.height, change)


def _synthetic(number: int) -> Photograph:
    random = np.random.default_rng(number)
    width, height = SIZES[number % len(SIZES)]
    brightness = _fractal(random, height, width, power=1.1)
    colours = [_fractal(random, height, width, power=1.5) for _ in range(2)]
    slope = np.linspace(-1, 1, height)[:, None] * random.uniform(10, 40)
    grey = random.uniform(90, 150) + slope + 45 * brightness
    first, second = 18 * colours[0], 18 * colours[1]
    planes = [grey + first, grey - 0.5 * (first + second), grey + second]
    pixels = np.clip(np.stack(planes, axis=2), 0, 255).astype(np.uint8)
    quality = int(random.integers(88, 97))
    return _encoded(pixels, quality, "4:4:4" if number % 4 == 0 else "4:2:0")


def _fractal(
    random: np.random.Generator, height: int, width: int, *, power: float
) -> NDArray[np.float64]:
    """Return noise of mean 0 and deviation 1 whose amplitudes fall as frequency ** -power."""
    spectrum = np.fft.rfft2(random.standard_normal((height, width)))
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequencies[0, 0] = np.inf
    noise = np.fft.irfft2(spectrum * frequencies**-power, s=(height, width))
    return noise / noise.std()


def _middle(pixels: UInt8, width: int, height: int) -> UInt8:
    missing = [max(0, height - pixels.shape[0]), max(0, width - pixels.shape[1])]
    if any(missing):
        pads = [(more // 2, more - more // 2) for more in missing]
        pixels = np.pad(pixels, [*pads, (0, 0)], mode="symmetric")
    y, x = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[y : y + height, x : x + width]


def _encoded(pixels: UInt8, quality: int, subsampling: str) -> Photograph:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    height, width = pixels.shape[:2]
    return Photograph(buffer.getvalue(), subsampling, width, height)
