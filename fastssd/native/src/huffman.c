#include "huffman.h"

int fastssd_huffman_build(struct fastssd_huffman *table, const uint8_t *counts, int is_ac) {
    const uint8_t *symbols = counts + 16;
    int code = 0, at = 0;
    memset(table->look, 0, sizeof table->look);
    table->is_ac = is_ac;
    for (int length = 1; length <= 16; length++) {
        table->offset[length] = at - code;
        for (int i = 0; i < counts[length - 1]; i++, at++, code++) {
            int symbol = symbols[at];
            /* No code is all ones. */
            if (code + 1 >= 1 << length || (!is_ac && symbol > 15))
                return 0;
            table->symbols[at] = (uint8_t)symbol;
            if (length > FASTSSD_LOOK)
                continue;
            int spare = FASTSSD_LOOK - length;
            for (int j = 0; j < 1 << spare; j++)
                table->look[(code << spare) + j] = fastssd_huffman_entry(symbol, length, is_ac);
        }
        table->beyond[length] = code << (16 - length);
        code <<= 1;
    }
    return 1;
}

enum { LOOK = FASTSSD_PAIR_LOOK };

/* An entry of one symbol. */
static uint64_t alone(int symbol, int length, int value) {
    int size = symbol & 15, run = symbol >> 4;
    if (size > 0)
        return (uint64_t)(uint16_t)value << 32 | (uint64_t)(run + 1) << 16 |
               (uint64_t)(run + 1) << 6 | (uint64_t)(length + size);
    if (run == 15) /* sixteen zeros, of which the last is written */
        return 16 << 16 | 16 << 6 | (uint64_t)length;
    return FASTSSD_NOWHERE << 16 | 1 << 6 | FASTSSD_ENDS | (uint64_t)length;
}

/* What an entry adds to that of the symbol before it. */
static uint64_t as_second(uint64_t entry) {
    return (entry & 0xFFFF) | (entry & 0xFF0000) << 8 | (entry & 0xFFFF00000000) << 16;
}

/* Write the entries of all symbols that `LOOK` bits can hold; behind each, where `seconds` are
   given, what the bits that it leaves hold: those of n bits at seconds + (1 << n). */
static void write_entries(const uint8_t *counts, const uint64_t *seconds, uint64_t *to) {
    const uint8_t *symbols = counts + 16;
    for (int length = 1, code = 0, at = 0; length <= LOOK; length++, code <<= 1)
        for (int i = 0; i < counts[length - 1]; i++, at++, code++) {
            int size = symbols[at] & 15, left = LOOK - length - size;
            if (left < 0)
                continue;
            uint64_t *out = to + ((size_t)code << (LOOK - length));
            int count = 1 << left, middle = size ? 1 << (size - 1) : 0;
            for (int bits = 0; bits < 1 << size; bits++, out += count) {
                int value = bits < middle ? bits - (1 << size) + 1 : bits;
                uint64_t entry = alone(symbols[at], length, value);
                const uint64_t *second = seconds ? seconds + count : NULL;
                if (!seconds)
                    for (int j = 0; j < count; j++)
                        out[j] = entry;
                else if (entry & FASTSSD_ENDS)
                    for (int j = 0; j < count; j++)
                        out[j] = entry | (uint64_t)FASTSSD_NOWHERE << 24;
                else
                    for (int j = 0; j < count; j++)
                        out[j] = entry + second[j];
            }
        }
}

void fastssd_pairs_build(struct fastssd_pairs *pairs, const uint8_t *counts) {
    uint64_t one[1 << LOOK], seconds[1 << LOOK];
    memset(one, 0, sizeof one);
    write_entries(counts, NULL, one);
    for (int bits = 0; bits < LOOK; bits++)
        for (int j = 0; j < 1 << bits; j++) {
            uint64_t entry = one[(size_t)j << (LOOK - bits)];
            int length = entry & 31;
            seconds[(1 << bits) + j] = length > 0 && length <= bits
                                           ? as_second(entry)
                                           : (uint64_t)FASTSSD_NOWHERE << 24;
        }
    for (int i = 0; i < 1 << LOOK; i++)
        pairs->look[i] = FASTSSD_NO_PAIR;
    write_entries(counts, seconds, pairs->look);
}
