/* Decoded pixels of a part of an image, and the resize that cuts boxes out of them. */
#ifndef FASTSSD_PICTURE_H
#define FASTSSD_PICTURE_H

#include <stdint.h>

#include "scratch.h"

/* Pixels x0 <= x < x1 of a row. */
struct fastssd_rect {
    int x0, y0, x1, y1;
};

/* One component of a JPEG at its own resolution: samples (x0, y0) and on. */
struct fastssd_plane {
    const uint8_t *samples;
    int stride;
    int x0, y0;
};

/* An image whose pixels within `held` are in memory, as RGB or as the planes of YCbCr.
   `width` and `height` are those of the image at this scale. */
struct fastssd_picture {
    int width, height;
    struct fastssd_rect held;
    const uint8_t *rgb; /* of pixel (held.x0, held.y0); NULL where there are planes */
    int64_t stride;     /* bytes from row to row of rgb */
    int num_planes;     /* 1 (grey) or 3 */
    int half_x, half_y; /* whether the chroma planes have half the columns, rows */
    struct fastssd_plane planes[3];
};

/* A box of the image at full scale, which may leave it. */
struct fastssd_box {
    int64_t x, y, width, height;
};

/* Write the pixels x0 <= x < x1 of row y, which lie within `held`, as R, G and B planes:
   to[0], to[plane], to[2 * plane] and on; up to 31 bytes behind each plane's end are overwritten.
   Returns 0 without memory. */
int fastssd_picture_row(struct fastssd_scratch *scratch, const struct fastssd_picture *picture,
                        int y, int x0, int x1, uint8_t *to, int64_t plane, int plain);

/* Cut a box out of a picture of 1 / scale of the image's size and write it, resized by antialiased
   bilinear interpolation to size x size and turned (Exif code 1 to 8), to `out`. `plain`: without
   SIMD, to the same pixels. Returns 0 without memory. */
int fastssd_resize(struct fastssd_scratch *scratch, const struct fastssd_picture *picture,
                   struct fastssd_box box, int scale, int size, int turn, int plain, uint8_t *out);

#endif
