"""Whether a loader gives the right pixels: ours against Pillow, peers by their mean colours."""

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from our_loader import random_resized_crops
from peers.peer import Int64, Pixels, UInt8, on_host
from photographs import Photograph
from PIL import Image

from fastssd.augment.augmentation import Augmentation
from fastssd.data.draws import Draws

MEAN_LEVELS = 2.0
"""Grey levels of 256 that crops may differ from Pillow's on average: scaled decodes and DALI's
filter differ by about one, a crop from the wrong place by tens."""
_MEAN_COLOURS = 10.0
"""Grey levels that the mean colours of many crops differ by from those of others, by photograph."""
_CROPS, _SIDE = 64, 64
"""Of a photograph, to know the mean colour of its crops; its shorter side, in pixels, for that."""
_LEAST_CORRELATION = 0.4
"""Of crops' mean colours with their photographs'; that of others' is near 0."""
CROPS_TO_LOOK_AT = 512
"""At random crops of a few photographs: so many that chance does not decide."""
_LEAST_CROPS, _PIXELS_TO_LOOK_AT, _CROPS_EACH = 64, 400e6, 8


def samples_to_look_at(photographs: Sequence[Photograph], batch_size: int) -> Int64:
    """Return which photographs a loader shall crop for `require_plausible`: whole batches.

    They are several times the first ones, which lie anywhere in a folder; fewer if they are large.
    """
    pixels = np.mean([each.width * each.height for each in photographs])
    crops = int(np.clip(_PIXELS_TO_LOOK_AT / pixels, _LEAST_CROPS, CROPS_TO_LOOK_AT))
    different = min(len(photographs), crops // _CROPS_EACH)
    return np.resize(np.arange(different), -(-crops // batch_size) * batch_size)


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

    Of few photographs many crops were made, whose mean colours are known; of many photographs few,
    whose colours correlate. Where photographs are few, or look alike, correlation says nothing.

    Raises:
        SystemExit: If shape or type are wrong, or the mean colours differ and hardly correlate.
    """
    totals, counts = np.zeros((len(photographs), 3)), np.zeros(len(photographs))
    for made, samples in batches:
        pixels = on_host(made)
        if pixels.dtype != np.uint8 or pixels.ndim != 4:
            raise SystemExit(f"{name}: gave {pixels.dtype} of {pixels.shape}")
        channels_last = pixels if pixels.shape[3] == 3 else pixels.transpose(0, 2, 3, 1)
        np.add.at(totals, samples, channels_last.mean(axis=(1, 2)))
        np.add.at(counts, samples, 1)
    seen = np.flatnonzero(counts)
    found = totals[seen] / counts[seen, None]
    expected = np.stack([_mean_colour(photographs[sample]) for sample in seen])
    # The median, since peers cut differently where no crop of the right shape fits an image.
    levels = np.median(np.abs(found - expected).mean(axis=1))
    if levels <= _MEAN_COLOURS:
        return
    with np.errstate(invalid="ignore"):  # all of one colour: not a number
        correlation = np.corrcoef(found.ravel(), expected.ravel())[0, 1]
    if not correlation >= _LEAST_CORRELATION:
        raise SystemExit(
            f"{name}: its crops' colours differ by {levels:.0f} levels from what they are in the "
            f"photographs, and correlate by {correlation:.2f} only"
        )


@cache
def _mean_colour(photograph: Photograph) -> NDArray[np.float64]:
    """Return the mean colour of random crops of a photograph, of whose middle there is more."""
    pixels = photograph.pixels()
    step = max(1, min(pixels.shape[:2]) // _SIDE)
    small = pixels[::step, ::step]
    views = np.arange(_CROPS)
    sizes = np.tile(small.shape[:2], (_CROPS, 1))
    boxes = random_resized_crops().boxes(np.zeros_like(views), views, sizes)[:, 0]
    crops = [small[y : y + height, x : x + width] for x, y, width, height in boxes.tolist()]
    return np.mean([crop.mean(axis=(0, 1)) for crop in crops], axis=0)
