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
            if (code >= 1 << length || (!is_ac && symbol > 15))
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
