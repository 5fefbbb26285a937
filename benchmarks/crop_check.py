"""Whether a loader gives the right pixels: ours against Pillow, peers by their mean colours."""

from collections.abc import Iterator, Sequence

import numpy as np
from peers.peer import Int64, Pixels, UInt8, on_host
from photographs import Photograph
from PIL import Image

from fastssd.augment.augmentation import Augmentation
from fastssd.data.draws import Draws

MEAN_LEVELS = 2.0
"""Grey levels of 256 that crops may differ from Pillow's on average: scaled decodes and DALI's
filter differ by about one, a crop from the wrong place by tens."""
_LEAST_CORRELATION = 0.4
"""Of crops' mean colours with their photographs'; that of others' is near 0."""
CROPS_TO_LOOK_AT = 512
"""At random crops of a few photographs: so many that chance does not decide."""


def difference_from_pillow(
    pixels: UInt8,
    draws: Draws,
    photographs: Sequence[Photograph],
    augmentation: Augmentation,
) -> float:
    """Return the mean difference of crops from those of the original files by Pillow.

    Each file is decoded whole, the box cut out and resized by Pillow's antialiased bilinear filter.

    Args:
        pixels: (V, B, S, S, 3) uint8.
        draws: Of the batch.
        photographs: As they were before the conversion, by sample.
        augmentation: Made the boxes.

    Returns:
        Grey levels.
    """
    sizes = np.array([(each.height, each.width) for each in photographs])
    boxes = augmentation.boxes(draws.samples, draws.views, sizes[draws.samples])
    total = 0.0
    for row, sample in enumerate(draws.samples):
        image = Image.fromarray(photographs[sample].pixels())
        for view, (x, y, width, height) in enumerate(boxes[row].tolist()):
            crop = image.crop((x, y, x + width, y + height))
            side = pixels.shape[2]
            expected = np.asarray(crop.resize((side, side), Image.Resampling.BILINEAR), np.float64)
            total += float(np.abs(expected - pixels[view, row]).mean())
    return total / (pixels.shape[0] * pixels.shape[1])


def require_close(name: str, levels: float) -> float:
    """Return the levels, or refuse to go on with a loader whose pixels are wrong.

    Raises:
        SystemExit: If they differ too much.
    """
    if not levels <= MEAN_LEVELS:
        raise SystemExit(f"{name}: crops differ by {levels:.1f} levels from Pillow's on average")
    return levels


def require_plausible(
    name: str, batches: Iterator[tuple[Pixels, Int64]], photographs: Sequence[Photograph]
) -> None:
    """Refuse a peer whose crops do not have the colours of the photographs they are said to be of.

    Raises:
        SystemExit: If shape or type are wrong, or the mean colours hardly correlate.
    """
    expected = np.stack([each.pixels().mean(axis=(0, 1)) for each in photographs])
    totals, counts = np.zeros_like(expected), np.zeros(len(expected))
    for made, samples in batches:
        pixels = on_host(made)
        if pixels.dtype != np.uint8 or pixels.ndim != 4:
            raise SystemExit(f"{name}: gave {pixels.dtype} of {pixels.shape}")
        channels_last = pixels if pixels.shape[3] == 3 else pixels.transpose(0, 2, 3, 1)
        np.add.at(totals, samples, channels_last.mean(axis=(1, 2)))
        np.add.at(counts, samples, 1)
    found = totals[counts > 0] / counts[counts > 0, None]
    correlation = np.corrcoef(found.ravel(), expected[counts > 0].ravel())[0, 1]
    if not correlation >= _LEAST_CORRELATION:
        raise SystemExit(f"{name}: its crops' colours correlate by {correlation:.2f} only")
