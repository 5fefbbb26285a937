/* Decoding a batch of stored images: what Python hands over. */
#ifndef FASTSSD_DECODE_H
#define FASTSSD_DECODE_H

#include <stdint.h>

#include "jpeg_library.h"

struct fastssd_batch {
    const uint64_t *addresses; /* (B) of JPEG files, or of raw pixels */
    const int64_t *num_bytes;  /* (B) */
    const uint8_t *raw;        /* (B) whether it is raw pixels */
    const int32_t *sizes;      /* (B, 2) height and width of raw images */
    const int64_t *boxes;      /* (B, V, 4) x, y, width, height */
    const uint8_t *turns;      /* (B) Exif codes 1 to 8, or NULL */
    uint8_t *out;              /* (V, B, S, S, 3) */
    uint8_t *damaged;          /* (B), set */
    char *reasons;             /* (B, FASTSSD_REASON), set where damaged */
    int32_t count, views, size, threads;
    int32_t shrink; /* whether JPEGs may be decoded at a fraction of their size */
    int32_t plain;  /* whether to do without SIMD, for tests */
};

/* Decode each image once and cut its boxes out. Returns the number of damaged images. */
int fastssd_decode(const struct fastssd_batch *batch);

#endif
