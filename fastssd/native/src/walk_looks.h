/* What the next bits of an entropy-coded block hold, in one look: for `walk.c`, which wants to know
   where a block ends, and no values. */
#ifndef FASTSSD_WALK_LOOKS_H
#define FASTSSD_WALK_LOOKS_H

#include <stdint.h>
#include <stdio.h>

#include <jpeglib.h>

#define FASTSSD_WALK_LOOK 11   /* bits that are looked at */
#define FASTSSD_MAX_DC_SIZE 11 /* bits of a value, in a baseline file */

/* A place in a block: in bits 0-5 a count of bits read, above them 63 and the number of the next
   coefficient, so that what is behind the last has a bit of its own. What a look finds is added to
   it: the bits of all that it holds whole, of which the last value may reach beyond the look, and
   the step to the next coefficient, to which FASTSSD_ENDS is added where the block ends there. */
#define FASTSSD_PLACE(coefficient) ((unsigned)((coefficient) + 63) << 6)
#define FASTSSD_COEFFICIENT(place) ((int)((place) >> 6) - 63)
#define FASTSSD_STEP(step) ((unsigned)(step) << 6)
#define FASTSSD_ENDS 513
/* A sum that is there or behind it is of a block that ended, unless it has one of these bits: the
   steps went behind the last coefficient, or there was nothing. */
#define FASTSSD_FULL FASTSSD_PLACE(DCTSIZE2)
#define FASTSSD_TOO_FAR FASTSSD_STEP(128 + 256)
#define FASTSSD_NOTHING FASTSSD_STEP(256) /* a longer code, or none */

/* A Huffman table as the file has it, and its symbols by code. */
struct fastssd_codes {
    JHUFF_TBL from;
    int32_t ends[17];   /* behind the last code of each length */
    int32_t firsts[17]; /* index of a length's first symbol, less its first code */
};

/* The looks of a block: its first begins with the DC coefficient. */
struct fastssd_looks {
    struct fastssd_codes dc, ac;
    int made;
    uint16_t first[1 << FASTSSD_WALK_LOOK], rest[1 << FASTSSD_WALK_LOOK];
};

/* Whether these looks are of these tables. */
int fastssd_looks_are_of(const struct fastssd_looks *looks, const JHUFF_TBL *dc,
                         const JHUFF_TBL *ac);

/* Make the looks of these tables. Returns 0 where they are none. */
int fastssd_looks_make(struct fastssd_looks *looks, const JHUFF_TBL *dc, const JHUFF_TBL *ac);

/* Step of an AC symbol, 0 for one that is left to libjpeg. */
int fastssd_ac_step(int symbol);

#endif
