/* Filling up the bits of a segment, for all that read Huffman codes. */
#ifndef FASTSSD_REFILL_H
#define FASTSSD_REFILL_H

#include <stdint.h>
#include <string.h>

/* Have 56 bits, from the highest on, where `have` of them are there: more than the longest code
   with its value. Reads 8 bytes; no branch, which would be guessed wrongly. */
static inline __attribute__((always_inline)) void fastssd_refill(
    uint64_t *bits, int *have, const uint8_t **next) {
    uint64_t eight;
    memcpy(&eight, *next, sizeof eight);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    eight = __builtin_bswap64(eight);
#endif
    *bits |= eight >> *have;
    *next += (63 - *have) >> 3;
    *have |= 56;
}

#endif
