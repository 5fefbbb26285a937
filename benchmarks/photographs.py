"""The photographs that benchmarks measure on: those of a folder, or synthetic ones.

A synthetic photograph is fractal noise, as the spectra of photographs are: random phases under
amplitudes that fall with the frequency, strong in brightness and weaker in colour, over a smooth
gradient. Sizes and qualities vary around those of ImageNet, so files have about as many bits a
pixel; what they lack are edges. Every fourth is 4:4:4, the others 4:2:0.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

UInt8 = NDArray[np.uint8]

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SUBSAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
SIZES = [(500, 375), (500, 333), (375, 500), (500, 400), (480, 360), (640, 480), (333, 500)]
"""Width and height, those of most of ImageNet's photographs."""
MOSAIC = (800, 600)
"""Width and height of most of iNaturalist 2018's photographs."""
_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Photograph:
    """A JPEG file.

    Attributes:
        content: The file.
        subsampling: Of its chroma: ``4:4:4``, ``4:2:2``, ``4:2:0`` or ``other``.
        width: Pixels.
        height: Pixels.
    """

    content: bytes
    subsampling: str
    width: int
    height: int

    def pixels(self) -> UInt8:
        """Return the (height, width, 3) pixels, by Pillow."""
        return np.asarray(Image.open(io.BytesIO(self.content)).convert("RGB"))


def photographs(folder: Path | None, *, count: int = 48) -> list[Photograph]:
    """Return the photographs below a folder, or synthetic ones.

    Greyscale and CMYK files are left out, since not every peer reads them; files that are not JPEG
    become JPEG of quality 90, 4:2:0.

    Args:
        folder: With images at any depth; None for synthetic photographs.
        count: Of the synthetic ones, or the most that are taken of the folder's, evenly spread.

    Raises:
        SystemExit: If the folder has none.
    """
    if folder is None:
        return [_synthetic(number) for number in range(count)]
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    found = []
    for place in np.unique(np.linspace(0, len(files) - 1, min(count, len(files))).astype(int)):
        photograph = _read(files[place])
        if photograph is not None:
            found.append(photograph)
    if not found:
        raise SystemExit(f"{folder}: no photographs; endings looked for: {', '.join(ENDINGS)}")
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


def summary(found: Sequence[Photograph]) -> dict[str, object]:
    """Return what the photographs are, for a result's environment."""
    pixels = sum(each.width * each.height for each in found)
    num_bytes = sum(len(each.content) for each in found)
    kinds = sorted({each.subsampling for each in found})
    return {
        "photographs": len(found),
        "megapixels_each": round(pixels / len(found) / 1e6, 3),
        "bits_per_pixel": round(8 * num_bytes / pixels, 2),
        "subsampling": {kind: sum(each.subsampling == kind for each in found) for kind in kinds},
    }


def _read(path: Path) -> Photograph | None:
    with Image.open(path) as image:
        if image.format != "JPEG":
            return _encoded(np.asarray(image.convert("RGB")), _QUALITY, "4:2:0")
        if image.mode != "RGB":
            return None
        subsampling = SUBSAMPLINGS.get(get_sampling(image), "other")
        return Photograph(path.read_bytes(), subsampling, image.width, image.height)


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
