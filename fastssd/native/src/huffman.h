/* Huffman decoding of baseline JPEG: tables that give a symbol with all its bits in one look. */
#ifndef FASTSSD_HUFFMAN_H
#define FASTSSD_HUFFMAN_H

#include <stdint.h>
#include <string.h>

#include "refill.h"

#define FASTSSD_LOOK 10 /* bits that are looked at; longer codes take a loop */

/* An entry: bits 0-5 all bits of the symbol (its code's and its value's), 0 for a code that is
   longer or none; 8-11 the value's; 16-20 coefficients to go on by. */
struct fastssd_huffman {
    uint32_t look[1 << FASTSSD_LOOK];
    int32_t beyond[18]; /* by length: the first code, aligned to 16 bits, that is longer */
    int32_t offset[17];
    uint8_t symbols[256];
    int is_ac;
};

/* Build a table from a DHT segment's 16 counts and symbols. Returns 0 if they are none. */
int fastssd_huffman_build(struct fastssd_huffman *table, const uint8_t *counts, int is_ac);

/* The entry of a symbol. */
static inline uint32_t fastssd_huffman_entry(int symbol, int length, int is_ac) {
    int size = symbol & 15, run = symbol >> 4;
    int forward = !is_ac ? 0 : size > 0 ? run + 1 : run == 15 ? 16 : 0;
    return (uint32_t)(length + size) | (uint32_t)size << 8 | (uint32_t)forward << 16;
}

#define FASTSSD_PAIR_LOOK 11
#define FASTSSD_NOWHERE 64 /* added to a place in a block: a place behind every block's end */
#define FASTSSD_PLACES (64 + 2 * FASTSSD_NOWHERE)

/* What the next bits hold whole: two AC coefficients, or one, or one and the end of the block, or
   that alone. An entry: bits 0-4 the bits of it all; 5 whether the block ends; 6-12 coefficients to
   go on by, one more for the end; 16-23 places from here to the first, 24-31 from it to the second,
   each FASTSSD_NOWHERE for none; 32-47 and 48-63 their values. */
struct fastssd_pairs {
    uint64_t look[1 << FASTSSD_PAIR_LOOK];
};

#define FASTSSD_ENDS 32
#define FASTSSD_NO_PAIR (127 << 6) /* goes on too far for every block */

/* Build the table from a DHT segment's 16 counts and symbols, which make a Huffman table. */
void fastssd_pairs_build(struct fastssd_pairs *pairs, const uint8_t *counts);

/* The bits of a segment, left-aligned. Behind `end` there are zeros to be read. */
struct fastssd_bits {
    uint64_t held;
    int count;
    const uint8_t *at, *end;
};

/* Have 56 bits. */
static inline void fastssd_bits_fill(struct fastssd_bits *bits) {
    fastssd_refill(&bits->held, &bits->count, &bits->at);
}

/* The entry of a code of more than FASTSSD_LOOK bits; 0 for none. */
static inline uint32_t fastssd_huffman_long(const struct fastssd_huffman *table, uint64_t held) {
    int32_t code = (int32_t)(held >> 48);
    int length = FASTSSD_LOOK + 1;
    while (length <= 16 && code >= table->beyond[length])
        length++;
    if (length > 16)
        return 0;
    int symbol = table->symbols[((code >> (16 - length)) + table->offset[length]) & 255];
    return fastssd_huffman_entry(symbol, length, table->is_ac);
}

/* Take the next symbol's bits; returns its entry, 0 for none. *value gets its value, if any. */
static inline uint32_t fastssd_take(struct fastssd_bits *bits,
                                    const struct fastssd_huffman *table, int *value) {
    fastssd_bits_fill(bits);
    uint64_t held = bits->held;
    uint32_t entry = table->look[held >> (64 - FASTSSD_LOOK)];
    if (__builtin_expect((entry & 63) == 0, 0)) {
        entry = fastssd_huffman_long(table, held);
        if (entry == 0)
            return 0;
    }
    int all = entry & 63, size = entry >> 8 & 15;
    bits->held = held << all;
    bits->count -= all;
    /* `size` bits, of which a leading 0 says that the value is negative. */
    uint64_t tail = held << (all - size);
    uint32_t negative = (uint32_t)((int64_t)~tail >> 63);
    *value = (int)(tail >> 1 >> (63 - size)) - (int)(negative & ((1u << size) - 1));
    return entry;
}

#endif
