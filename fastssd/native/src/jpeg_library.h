/* Decoding a part of any JPEG by libjpeg-turbo, and what decides whether one can be decoded. */
#ifndef FASTSSD_JPEG_LIBRARY_H
#define FASTSSD_JPEG_LIBRARY_H

#include "jpeg_rules.h"
#include "picture.h"

/* Return why no decoder here takes a file whose header was read, NULL for one that is taken. */
const char *fastssd_refusal(j_decompress_ptr jpeg);

/* Read all of a file as decoding all its pixels would, at less cost. Returns 0, and the reason, if
   that cannot be done without a warning of libjpeg's. */
int fastssd_library_check(const uint8_t *content, size_t num_bytes, char *reason);

/* Read the size out of a JPEG's header. Returns 0, and the reason, if that cannot be done. */
int fastssd_library_size(const uint8_t *content, size_t num_bytes, int *width, int *height,
                         char *reason);

/* Decode the pixels `wanted`, not empty, of an image at 1 / scale of its size into the thread's
   scratch. Returns 0, and the reason, if the image is damaged or of a kind that is not read. */
int fastssd_library_decode(struct fastssd_scratch *scratch, const uint8_t *content,
                           size_t num_bytes, struct fastssd_rect wanted, int scale,
                           struct fastssd_picture *picture, char *reason);

#endif
