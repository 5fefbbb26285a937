/* Walking through a JPEG file from marker to marker. */
#ifndef FASTSSD_JPEG_MARKERS_H
#define FASTSSD_JPEG_MARKERS_H

#include <stddef.h>
#include <stdint.h>

/* Return the first 0xFF from `at` on that is followed by a marker's byte (neither stuffing nor
   fill), or `end`. */
const uint8_t *fastssd_next_marker(const uint8_t *at, const uint8_t *end);

/* Whether the file goes on to its end-of-image marker. */
int fastssd_jpeg_complete(const uint8_t *content, size_t num_bytes);

#endif
