#include "walk_looks.h"

#include <string.h>

#define LOOK FASTSSD_WALK_LOOK
#define MAX_AC_SIZE 10 /* bits of a value, in a baseline file */

int fastssd_ac_step(int symbol) {
    int size = symbol & 15;
    if (size == 0)
        return symbol == 0xF0 ? 16 : symbol == 0 ? FASTSSD_ENDS : 0;
    return size > MAX_AC_SIZE ? 0 : (symbol >> 4) + 1;
}

static int same(const JHUFF_TBL *a, const JHUFF_TBL *b) {
    return !memcmp(a->bits, b->bits, sizeof a->bits) &&
           !memcmp(a->huffval, b->huffval, sizeof a->huffval);
}

int fastssd_looks_are_of(const struct fastssd_looks *looks, const JHUFF_TBL *dc,
                         const JHUFF_TBL *ac) {
    return looks->made && same(dc, &looks->dc.from) && same(ac, &looks->ac.from);
}

static int make_codes(const JHUFF_TBL *from, struct fastssd_codes *codes, int largest) {
    codes->from = *from;
    int code = 0, index = 0;
    for (int length = 1; length <= 16; length++) {
        codes->firsts[length] = index - code;
        for (int i = 0; i < from->bits[length]; i++, code++, index++)
            if (index >= 256 || code + 1 >= 1 << length || /* no code is all ones */
                from->huffval[index] > largest)
                return 0;
        codes->ends[length] = code;
        code <<= 1;
    }
    return 1;
}

/* Write what the first `have` bits find, for all their values, where what fewer bits find is known:
   that of n bits at found + (1 << n). A symbol is followed by what the bits behind it find. */
static void find(const struct fastssd_codes *codes, int is_dc, int have, const uint16_t *found,
                 uint16_t *to) {
    memset(to, 0, sizeof *to << have);
    for (int length = 1, index = 0, code = 0; length <= have; length++, code <<= 1)
        for (int i = 0; i < codes->from.bits[length]; i++, index++, code++) {
            int symbol = codes->from.huffval[index], size = symbol & 15;
            int step = !is_dc ? fastssd_ac_step(symbol) : size > FASTSSD_MAX_DC_SIZE ? 0 : 1;
            if (step == 0)
                continue;
            uint16_t what = (uint16_t)(FASTSSD_STEP(step) + (unsigned)(length + size));
            uint16_t *out = to + ((size_t)code << (have - length));
            uint16_t *end = out + ((size_t)1 << (have - length));
            if (have - length - size <= 0 || step == FASTSSD_ENDS) {
                while (out < end)
                    *out++ = what;
                continue;
            }
            size_t count = (size_t)1 << (have - length - size);
            for (; out < end; out += count)
                for (size_t j = 0; j < count; j++)
                    out[j] = (uint16_t)(what + found[count + j]);
        }
}

static void mark_nothing(uint16_t *looks) {
    for (int i = 0; i < 1 << LOOK; i++)
        if (looks[i] == 0)
            looks[i] = FASTSSD_NOTHING;
}

int fastssd_looks_make(struct fastssd_looks *looks, const JHUFF_TBL *dc, const JHUFF_TBL *ac) {
    looks->made = 0;
    if (!make_codes(dc, &looks->dc, 15) || !make_codes(ac, &looks->ac, 255))
        return 0;
    uint16_t found[2 << LOOK];
    found[1] = 0;
    for (int have = 1; have <= LOOK; have++)
        find(&looks->ac, 0, have, found, found + (1 << have));
    memcpy(looks->rest, found + (1 << LOOK), sizeof looks->rest);
    find(&looks->dc, 1, LOOK, found, looks->first);
    mark_nothing(looks->first);
    mark_nothing(looks->rest);
    looks->made = 1;
    return 1;
}
