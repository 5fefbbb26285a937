"""Triton kernels that colour, blur and finish a batch of images on an NVIDIA GPU.

A program works on BLOCK pixels of one image, NUM_BLOCKS of them an image. Colours are floats in
[0, 1]; offsets of images are 64-bit, as a batch may hold more than 2**31 values.
"""

import triton
import triton.language as tl

BRIGHTNESS = tl.constexpr(0)
CONTRAST = tl.constexpr(1)
SATURATION = tl.constexpr(2)
HUE = tl.constexpr(3)


@triton.jit
def add_greys(
    pixels, flip, jitter, order, sums,
    HAS_FLIP: tl.constexpr, NUM_STEPS: tl.constexpr, SIDE: tl.constexpr, BLOCK: tl.constexpr,
    NUM_BLOCKS: tl.constexpr,
):  # fmt: skip
    """Write the sum of each block's greys as they are when the image's contrast begins."""
    program = tl.program_id(0)
    image = (program // NUM_BLOCKS).to(tl.int64)
    if tl.load(jitter + image * NUM_STEPS + CONTRAST) != 1:
        places = program % NUM_BLOCKS * BLOCK + tl.arange(0, BLOCK)
        red, green, blue = _loaded(pixels, flip, image, places, HAS_FLIP, SIDE)
        before = 1.0
        for step in tl.static_range(NUM_STEPS):
            operation = tl.load(order + image * NUM_STEPS + step)
            if operation == CONTRAST:
                before = 0.0
            neutral = tl.where(operation == HUE, 0.0, 1.0)
            factor = tl.load(jitter + image * NUM_STEPS + operation)
            factor = neutral + before * (factor - neutral)
            red, green, blue = _changed(red, green, blue, operation, factor, 0.0, NUM_STEPS)
        grey = tl.where(places < SIDE * SIDE, _luma(red, green, blue), 0.0)
        tl.store(sums + program, tl.sum(grey))


@triton.jit
def colour(
    pixels, flip, jitter, order, sums, grayscale, sigmas, turns, planes, finished, turned,
    scale_0, scale_1, scale_2, shift_0, shift_1, shift_2,
    HAS_FLIP: tl.constexpr, NUM_STEPS: tl.constexpr, HAS_GRAYSCALE: tl.constexpr,
    HAS_BLUR: tl.constexpr, HAS_TURNS: tl.constexpr, SIDE: tl.constexpr, BLOCK: tl.constexpr,
    NUM_BLOCKS: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """Flip, jitter and take colours away; write planes of what will be blurred, finish the rest.

    SUMS is NUM_BLOCKS, rounded up to a power of two.
    """
    program = tl.program_id(0)
    image = (program // NUM_BLOCKS).to(tl.int64)
    places = program % NUM_BLOCKS * BLOCK + tl.arange(0, BLOCK)
    red, green, blue = _loaded(pixels, flip, image, places, HAS_FLIP, SIDE)
    if NUM_STEPS > 0:
        blocks = tl.arange(0, SUMS)
        parts = tl.load(sums + image * NUM_BLOCKS + blocks, mask=blocks < NUM_BLOCKS, other=0.0)
        mean = tl.sum(parts) / (SIDE * SIDE)
        for step in tl.static_range(NUM_STEPS):
            operation = tl.load(order + image * NUM_STEPS + step)
            factor = tl.load(jitter + image * NUM_STEPS + operation)
            red, green, blue = _changed(red, green, blue, operation, factor, mean, NUM_STEPS)
    if HAS_GRAYSCALE:
        factor = tl.where(tl.load(grayscale + image) != 0, 0.0, 1.0)
        red, green, blue = _changed(red, green, blue, 2, factor, 0.0, 0)
    blurs = False
    if HAS_BLUR:
        blurs = tl.load(sigmas + image) > 0
    if blurs:
        first = image * (3 * SIDE * SIDE) + places
        inside = places < SIDE * SIDE
        tl.store(planes + first, red, mask=inside)
        tl.store(planes + first + SIDE * SIDE, green, mask=inside)
        tl.store(planes + first + 2 * SIDE * SIDE, blue, mask=inside)
    else:
        red = red * scale_0 + shift_0
        green = green * scale_1 + shift_1
        blue = blue * scale_2 + shift_2
        _finish(finished, turned, turns, image, places, red, green, blue, HAS_TURNS, SIDE)


@triton.jit
def blur_along(
    planes, sigmas, blurred,
    RADIUS: tl.constexpr, SIDE: tl.constexpr, BLOCK: tl.constexpr, NUM_BLOCKS: tl.constexpr,
):  # fmt: skip
    """Blur the rows of the images that have a sigma."""
    program = tl.program_id(0)
    image = (program // NUM_BLOCKS).to(tl.int64)
    sigma = tl.load(sigmas + image)
    if sigma > 0:
        places = program % NUM_BLOCKS * BLOCK + tl.arange(0, BLOCK)
        first = image * (3 * SIDE * SIDE)
        red, green, blue = _blurred(planes + first, sigma, places, 1, RADIUS, SIDE)
        inside = places < SIDE * SIDE
        tl.store(blurred + first + places, red, mask=inside)
        tl.store(blurred + first + SIDE * SIDE + places, green, mask=inside)
        tl.store(blurred + first + 2 * SIDE * SIDE + places, blue, mask=inside)


@triton.jit
def blur_down(
    planes, sigmas, turns, finished, turned,
    scale_0, scale_1, scale_2, shift_0, shift_1, shift_2,
    HAS_TURNS: tl.constexpr, RADIUS: tl.constexpr, SIDE: tl.constexpr, BLOCK: tl.constexpr,
    NUM_BLOCKS: tl.constexpr,
):  # fmt: skip
    """Blur the columns of the images that have a sigma, and finish those images."""
    program = tl.program_id(0)
    image = (program // NUM_BLOCKS).to(tl.int64)
    sigma = tl.load(sigmas + image)
    if sigma > 0:
        places = program % NUM_BLOCKS * BLOCK + tl.arange(0, BLOCK)
        first = image * (3 * SIDE * SIDE)
        red, green, blue = _blurred(planes + first, sigma, places, 0, RADIUS, SIDE)
        red = red * scale_0 + shift_0
        green = green * scale_1 + shift_1
        blue = blue * scale_2 + shift_2
        _finish(finished, turned, turns, image, places, red, green, blue, HAS_TURNS, SIDE)


@triton.jit
def _loaded(pixels, flip, image, places, HAS_FLIP: tl.constexpr, SIDE: tl.constexpr):
    """Return the channels of an image's pixels, mirrored where it flips."""
    sources = places
    if HAS_FLIP:
        columns = places % SIDE
        mirrored = places - columns + (SIDE - 1 - columns)
        sources = tl.where(tl.load(flip + image) != 0, mirrored, places)
    first = pixels + image * (3 * SIDE * SIDE) + sources * 3
    inside = places < SIDE * SIDE
    red = tl.load(first, mask=inside, other=0).to(tl.float32) * (1.0 / 255.0)
    green = tl.load(first + 1, mask=inside, other=0).to(tl.float32) * (1.0 / 255.0)
    blue = tl.load(first + 2, mask=inside, other=0).to(tl.float32) * (1.0 / 255.0)
    return red, green, blue


@triton.jit
def _finish(
    finished, turned, turns, image, places, red, green, blue,
    HAS_TURNS: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    """Write normalised pixels channels last and, where wanted, again where they turn to."""
    inside = places < SIDE * SIDE
    _store(finished + image * (3 * SIDE * SIDE) + places * 3, red, green, blue, inside)
    if HAS_TURNS:
        quarters = tl.load(turns + image)
        rows, columns = places // SIDE, places % SIDE
        across, down = SIDE - 1 - columns, SIDE - 1 - rows
        row = tl.where(quarters == 1, across, tl.where(quarters == 2, down, columns))
        column = tl.where(quarters == 1, rows, tl.where(quarters == 2, across, down))
        row = tl.where(quarters == 0, rows, row)
        column = tl.where(quarters == 0, columns, column)
        first = turned + image * (3 * SIDE * SIDE) + (row * SIDE + column) * 3
        _store(first, red, green, blue, inside)


@triton.jit
def _store(first, red, green, blue, inside):
    tl.store(first, red, mask=inside)
    tl.store(first + 1, green, mask=inside)
    tl.store(first + 2, blue, mask=inside)


@triton.jit
def _changed(red, green, blue, operation, factor, mean, NUM_STEPS: tl.constexpr):
    """Apply one operation of a jitter; a neutral factor leaves the pixels as they were."""
    if NUM_STEPS > 3 and operation == HUE:
        if factor != 0:
            red, green, blue = _turned_hue(red, green, blue, 6 * factor)
    elif factor != 1:
        grey = _luma(red, green, blue)
        base = tl.where(operation == SATURATION, grey, tl.where(operation == CONTRAST, mean, 0.0))
        red = _clamped(base + factor * (red - base))
        green = _clamped(base + factor * (green - base))
        blue = _clamped(base + factor * (blue - base))
    return red, green, blue


@triton.jit
def _clamped(value):
    return tl.minimum(tl.maximum(value, 0.0), 1.0)


@triton.jit
def _luma(red, green, blue):
    """Return ITU-R BT.601 as torchvision rounds it."""
    return 0.2989 * red + 0.587 * green + 0.114 * blue


@triton.jit
def _turned_hue(red, green, blue, shift):
    """Turn the colours around the HSV circle by sixths of it; see `colour.shift_hue`."""
    high = tl.maximum(tl.maximum(red, green), blue)
    spread = high - tl.minimum(tl.minimum(red, green), blue)
    inverse = 1.0 / tl.maximum(spread, 1e-12)
    others = tl.where(high == green, (blue - red) * inverse + 2.0, (red - green) * inverse + 4.0)
    hue = tl.where(high == red, (green - blue) * inverse, others) + shift
    hue = tl.where(hue < 0, hue + 6.0, hue)
    hue = tl.where(hue >= 6, hue - 6.0, hue)
    red = high - spread * _clamped(2.0 - tl.abs(hue - 3.0))
    green = high - spread * _clamped(tl.abs(hue - 2.0) - 1.0)
    blue = high - spread * _clamped(tl.abs(hue - 4.0) - 1.0)
    return red, green, blue


@triton.jit
def _blurred(planes, sigma, places, ALONG: tl.constexpr, RADIUS: tl.constexpr, SIDE: tl.constexpr):
    """Return the channels blurred along the rows or down the columns, reflecting at the edges."""
    inside = places < SIDE * SIDE
    rows, columns = places // SIDE, places % SIDE
    width = tl.maximum(sigma, 1e-3)
    # Taps beyond it weigh less than the rounding of a float32.
    radius = tl.minimum(RADIUS, (6.1 * width).to(tl.int32) + 1)
    total = 1.0
    red = tl.load(planes + places, mask=inside, other=0.0)
    green = tl.load(planes + SIDE * SIDE + places, mask=inside, other=0.0)
    blue = tl.load(planes + 2 * SIDE * SIDE + places, mask=inside, other=0.0)
    for distance in range(1, radius + 1):
        weight = tl.exp(-0.5 * (distance / width) * (distance / width))
        total += 2 * weight
        if ALONG:
            before, after = tl.abs(columns - distance), columns + distance
            after = tl.where(after < SIDE, after, 2 * (SIDE - 1) - after)
            before, after = rows * SIDE + before, rows * SIDE + after
        else:
            before, after = tl.abs(rows - distance), rows + distance
            after = tl.where(after < SIDE, after, 2 * (SIDE - 1) - after)
            before, after = before * SIDE + columns, after * SIDE + columns
        red += weight * _pair(planes, before, after, inside)
        green += weight * _pair(planes + SIDE * SIDE, before, after, inside)
        blue += weight * _pair(planes + 2 * SIDE * SIDE, before, after, inside)
    return red / total, green / total, blue / total


@triton.jit
def _pair(plane, first, second, inside):
    """Return the sums of the pixels at two places."""
    return tl.load(plane + first, mask=inside, other=0.0) + tl.load(
        plane + second, mask=inside, other=0.0
    )
