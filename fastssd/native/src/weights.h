/* The taps of antialiased bilinear interpolation along one axis, in fixed point. */
#ifndef FASTSSD_WEIGHTS_H
#define FASTSSD_WEIGHTS_H

#include <stdint.h>

#include "scratch.h"

/* Output i is the sum of taps[i * num_taps + k] / 65536 times input first[i] + k. */
struct fastssd_weights {
    int num_taps;
    int *first;
    uint16_t *taps;
};

/* Bytes that the weights of an axis take at most. */
size_t fastssd_weights_bytes(int64_t length, int scale, int size);

/* Fill `weights`, in `room`, for a box of `length` pixels at full scale that starts at `start`,
   seen in an image of 1 / scale of the size, of which `count` pixels from start / scale on are
   there. The filter is Pillow's: a triangle whose half-width is the larger of an input and an
   output pixel, cut at the box's border. */
void fastssd_weights_fill(struct fastssd_weights *weights, void *room, int64_t start,
                          int64_t length, int scale, int count, int size);

#endif
