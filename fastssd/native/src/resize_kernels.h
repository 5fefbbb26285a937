/* The two passes of the resize, over sixteen output rows at a time.

   Vertical: from rows of bytes to columns, uint16 with eight fractional bits, the sixteen rows of
   a column side by side. Horizontal: from those to bytes of the output. Every product is cut to
   16 bits, in every implementation alike, and half a unit a tap is added for it: all give the
   same pixels. */
#ifndef FASTSSD_RESIZE_KERNELS_H
#define FASTSSD_RESIZE_KERNELS_H

#include <stdint.h>

#include "weights.h"

#define FASTSSD_BLOCK 16
#define FASTSSD_MAX_TAPS 32 /* of these kernels; `wide` ones take any number */

/* Sixteen output rows, each of num_taps input rows, `slots` bytes (a multiple of 16) of each. */
struct fastssd_vertical {
    int num_taps;
    int slots;
    const uint8_t *rows[FASTSSD_BLOCK * FASTSSD_MAX_TAPS];
    uint16_t taps[FASTSSD_BLOCK * FASTSSD_MAX_TAPS];
};

/* Where a pixel's channels lie among the slots of a row, and where the output goes. */
struct fastssd_horizontal {
    const struct fastssd_weights *weights;
    int size;
    int pixel, channel; /* slots from pixel to pixel, from channel to channel */
    uint8_t *out[FASTSSD_BLOCK]; /* rows of 3 * size bytes; NULL: of no use */
};

void fastssd_vertical(const struct fastssd_vertical *pass, uint16_t *columns, int plain);
void fastssd_horizontal(const struct fastssd_horizontal *pass, const uint16_t *columns, int plain);

/* For any number of taps, one output row at a time: add a row into `sums`, ... */
void fastssd_wide_add(uint32_t *sums, const uint8_t *row, uint16_t tap, int slots);
/* ... and make it row `row` of the columns. */
void fastssd_wide_finish(const uint32_t *sums, int slots, int row, uint16_t *columns);

#endif
