#include "jpeg_markers.h"

#include <string.h>

#define END_OF_IMAGE 0xD9

enum { ALONE = 0x01 }; /* a marker of no meaning, without a segment */

const uint8_t *fastssd_next_marker(const uint8_t *at, const uint8_t *end) {
    while (end - at >= 2) {
        const uint8_t *found = memchr(at, 0xFF, (size_t)(end - at) - 1);
        if (!found)
            return end;
        if (found[1] != 0 && found[1] != 0xFF)
            return found;
        at = found + (found[1] == 0 ? 2 : 1);
    }
    return end;
}

static int is_restart(uint8_t marker) { return marker >= 0xD0 && marker <= 0xD7; }

int fastssd_jpeg_complete(const uint8_t *content, size_t num_bytes) {
    const uint8_t *end = content + num_bytes, *at = content;
    if (num_bytes < 4)
        return 0;
    for (at += 2; end - at >= 2;) {
        at = fastssd_next_marker(at, end);
        if (end - at < 2)
            return 0;
        uint8_t marker = at[1];
        at += 2;
        if (marker == END_OF_IMAGE)
            return 1;
        if (is_restart(marker) || marker == ALONE)
            continue;
        if (end - at < 2)
            return 0;
        int length = at[0] << 8 | at[1];
        if (end - at < length)
            return 0;
        at += length;
    }
    return 0;
}
