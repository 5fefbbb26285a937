/* Our own decoder of the commonest JPEGs: it enters them at restart markers.

   Taken are Huffman-coded sequential images of 8 bits in one interleaved scan, grey or YCbCr with
   whole or halved chroma. Everything else is for libjpeg, and so is what no encoder writes in them,
   though libjpeg may read it: only there is it said what it means. */
#ifndef FASTSSD_BASELINE_H
#define FASTSSD_BASELINE_H

#include "picture.h"

struct fastssd_baseline {
    int width, height, num_components;
    int luma_h, luma_v;          /* luma blocks of an MCU; chroma has one */
    int mcus_across, mcus_down;
    int restart_interval;        /* MCUs; 0 where there are no restart markers */
    const uint16_t *quantisers[3]; /* 64 of a component, in zigzag order */
    const uint8_t *dc[3], *ac[3];  /* of a component: how many codes of each length, symbols */
    uint16_t tables[4][64];
    const uint8_t *scan, *end;   /* entropy-coded bytes and what follows */
};

/* Read a header. Returns whether the image is one that this decoder takes. */
int fastssd_baseline_open(struct fastssd_baseline *image, const uint8_t *content,
                          size_t num_bytes);

/* The largest of 1, 2, 4, 8 up to `scale` that this decoder can divide an image's size by. */
int fastssd_baseline_scale(const struct fastssd_baseline *image, int scale);

/* Decode the pixels of `count` rectangles, none empty, of an image at 1 / scale of its size, each
   block of it once. Returns 0, and the reason, if what they need is damaged or unusual. */
int fastssd_baseline_decode(struct fastssd_scratch *scratch, const struct fastssd_baseline *image,
                            const struct fastssd_rect *rects, int count, int scale, int plain,
                            struct fastssd_picture *picture, char *reason);

#endif
