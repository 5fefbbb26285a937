/* A Gaussian blur of rows within an image's planes, reflecting at the edges. */
#ifndef FASTSSD_AUGMENT_BLUR_H
#define FASTSSD_AUGMENT_BLUR_H

#include "augment_pixels.h"

#include <math.h>
#include <stdlib.h>

typedef float lanes __attribute__((vector_size(4 * FASTSSD_LANES)));
typedef lanes unaligned __attribute__((aligned(4), may_alias));

struct kernel {
    int radius;
    float *weights; /* by distance from the centre */
};

static double tap(int distance, float sigma) {
    double widths = distance / (sigma > 1e-3 ? sigma : 1e-3);
    return exp(-0.5 * widths * widths);
}

/* Taps that together weigh less than the rounding of a float32 are left out. */
static void make_kernel(struct kernel *kernel, float sigma, int radius) {
    double sum = 1, rest = 0;
    for (int n = 1; n <= radius; n++)
        sum += 2 * tap(n, sigma);
    while (radius > 0 && rest + 2 * tap(radius, sigma) < 3e-8 * sum)
        rest += 2 * tap(radius--, sigma);
    kernel->radius = radius;
    for (int n = 0; n <= radius; n++)
        kernel->weights[n] = (float)(tap(n, sigma) / (sum - rest));
}

INLINED ptrdiff_t reflected(ptrdiff_t position, ptrdiff_t side) {
    position = labs(position);
    return position < side ? position : 2 * (side - 1) - position;
}

/* Blur down the columns: row `y` of a plane to `to`. */
INLINED void blur_down(float *restrict to, const float *plane, ptrdiff_t y, ptrdiff_t side,
                       ptrdiff_t stride, const struct kernel *kernel) {
    for (ptrdiff_t x = 0; x < stride; x += FASTSSD_ROW_UNIT) {
        const float *centre = plane + y * stride + x;
        lanes first = *(const unaligned *)centre * kernel->weights[0];
        lanes second = *(const unaligned *)(centre + FASTSSD_LANES) * kernel->weights[0];
        for (int n = 1; n <= kernel->radius; n++) {
            const float *up = plane + reflected(y - n, side) * stride + x;
            const float *down = plane + reflected(y + n, side) * stride + x;
            first += (*(const unaligned *)up + *(const unaligned *)down) * kernel->weights[n];
            up += FASTSSD_LANES, down += FASTSSD_LANES;
            second += (*(const unaligned *)up + *(const unaligned *)down) * kernel->weights[n];
        }
        *(unaligned *)(to + x) = first;
        *(unaligned *)(to + x + FASTSSD_LANES) = second;
    }
}

/* Blur along a row. `from` has room for the radius before its pixels and after them. */
INLINED void blur_along(float *restrict to, float *restrict from, ptrdiff_t side, ptrdiff_t stride,
                        const struct kernel *kernel) {
    for (ptrdiff_t n = 1; n <= kernel->radius; n++) {
        from[-n] = from[n];
        from[side - 1 + n] = from[side - 1 - n];
    }
    for (ptrdiff_t x = 0; x < stride; x += FASTSSD_ROW_UNIT) {
        const float *centre = from + x;
        lanes first = *(const unaligned *)centre * kernel->weights[0];
        lanes second = *(const unaligned *)(centre + FASTSSD_LANES) * kernel->weights[0];
        for (int n = 1; n <= kernel->radius; n++) {
            const float *left = centre - n, *right = centre + n;
            first += (*(const unaligned *)left + *(const unaligned *)right) * kernel->weights[n];
            left += FASTSSD_LANES, right += FASTSSD_LANES;
            second += (*(const unaligned *)left + *(const unaligned *)right) * kernel->weights[n];
        }
        *(unaligned *)(to + x) = first;
        *(unaligned *)(to + x + FASTSSD_LANES) = second;
    }
}

#endif
