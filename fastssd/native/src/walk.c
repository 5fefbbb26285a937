/* A scan is read in looks of LOOK bits, each of which finds all the coefficients that these bits
   hold whole. A look has to wait for the length that the one before it found, so that a processor
   is mostly idle with one file: the files of two lanes take turns. */
#include "walk.h"

#include <stdlib.h>
#include <string.h>

#include "clones.h"
#include "refill.h"
#include "transcode.h"
#include "walk_looks.h"

#define LOOKS 4    /* of a round; as many blocks may end */
#define MAX_BLOCKS (1 << 20) /* of a segment: so few DC differences do not overflow 32 bits */
#define SLACK 256  /* zeros behind the data, more than a round reads behind its end. Few: in some
                      files a segment is a block. */

/* A block of an MCU; the last is followed by the first. */
struct block {
    const struct fastssd_looks *looks;
    const struct block *following;
    const uint16_t *rest, *first_of_following;
};

/* Where a lane is. Copied while it walks, so that it stays in registers. */
struct cursor {
    uint64_t bits; /* of the segment, from the highest on; `have` of them are true */
    const uint16_t *look;
    int have;
    unsigned used;  /* of which, in bits 0-5, these were read since the refill */
    unsigned place; /* in the block */
    const struct block *block;
    const uint8_t *next;
    int64_t blocks_left; /* of the segment */
};

struct lane {
    struct cursor cursor;
    const uint8_t *limit; /* of the cursor */
    int busy;
    int num_blocks; /* of an MCU */
    struct block blocks[D_MAX_BLOCKS_IN_MCU];
    int64_t mcus_left, interval;
    unsigned restarts;
    const uint8_t *marker, *file_end;
    struct fastssd_bytes data; /* the segment's */
    size_t size;
};

#define COMPONENTS 3
#define NUM_LOOKS (COMPONENTS * FASTSSD_LANES + 2)

/* Most files have the same tables: what one made, the others use. */
struct fastssd_walk {
    struct lane lanes[FASTSSD_LANES];
    struct fastssd_looks looks[NUM_LOOKS];
};

struct fastssd_walk *fastssd_walk_new(void) { return calloc(1, sizeof(struct fastssd_walk)); }

void fastssd_walk_free(struct fastssd_walk *walk) {
    for (int i = 0; walk && i < FASTSSD_LANES; i++)
        free(walk->lanes[i].data.start);
    free(walk);
}

int fastssd_walk_idle(const struct fastssd_walk *walk) {
    for (int i = 0; i < FASTSSD_LANES; i++)
        if (!walk->lanes[i].busy)
            return i;
    return -1;
}

static int is_used(const struct fastssd_walk *walk, const struct fastssd_looks *looks) {
    for (int i = 0; i < FASTSSD_LANES; i++)
        for (int j = 0; j < walk->lanes[i].num_blocks; j++)
            if (walk->lanes[i].blocks[j].looks == looks)
                return 1;
    return 0;
}

/* Return the looks of these tables, NULL where they are none. */
static const struct fastssd_looks *looks_of(struct fastssd_walk *walk, const JHUFF_TBL *dc,
                                            const JHUFF_TBL *ac) {
    if (!dc || !ac)
        return NULL;
    struct fastssd_looks *free = NULL;
    for (struct fastssd_looks *looks = walk->looks; looks < walk->looks + NUM_LOOKS; looks++) {
        if (fastssd_looks_are_of(looks, dc, ac))
            return looks;
        if (!is_used(walk, looks) && (!free || !looks->made))
            free = looks;
    }
    return fastssd_looks_make(free, dc, ac) ? free : NULL;
}

/* Have 56 bits: enough for two looks, or for the longest code with its value. */
static inline __attribute__((always_inline)) void refill(struct cursor *cursor) {
    cursor->have -= (int)(cursor->used & 63);
    cursor->used = 0;
    cursor->place &= ~63u;
    fastssd_refill(&cursor->bits, &cursor->have, &cursor->next);
}

/* Copy the next segment's data, up to its marker and without the bytes stuffed into it. Returns 0
   where there is no marker, or no memory. */
static int start_segment(struct lane *lane, const uint8_t *from) {
    struct fastssd_bytes *data = &lane->data;
    if (!fastssd_bytes_reserve(data, lane->file_end - from + SLACK))
        return 0;
    uint8_t *to = data->start;
    for (;;) {
        const uint8_t *found = memchr(from, 0xFF, lane->file_end - from);
        if (!found || found + 1 == lane->file_end)
            return 0;
        size_t count = found + 1 - from;
        memcpy(to, from, count);
        to += count;
        from = found + 2;
        if (found[1] != 0) {
            to--;
            lane->marker = found;
            break;
        }
    }
    memset(to, 0, SLACK);
    lane->size = to - data->start;
    lane->limit = to + 16;
    int64_t mcus = lane->interval && lane->interval < lane->mcus_left ? lane->interval
                                                                      : lane->mcus_left;
    lane->mcus_left -= mcus;
    lane->cursor = (struct cursor){
        .next = data->start,
        .look = lane->blocks->looks->first,
        .place = FASTSSD_PLACE(0),
        .block = lane->blocks,
        .blocks_left = mcus * lane->num_blocks,
    };
    refill(&lane->cursor);
    return 1;
}

int fastssd_walk_begin(struct fastssd_walk *walk, int number, j_decompress_ptr cinfo) {
    struct lane *lane = &walk->lanes[number];
    if (!fastssd_is_ordinary(cinfo))
        return 0;
    int alone = cinfo->num_components == 1; /* then an MCU is a block */
    int64_t columns = 0, rows = 0;
    lane->num_blocks = 0;
    for (int i = 0; i < cinfo->num_components; i++) {
        jpeg_component_info *component = &cinfo->comp_info[i];
        int across = alone ? 1 : component->h_samp_factor;
        int down = alone ? 1 : component->v_samp_factor;
        int64_t wide = (component->width_in_blocks + across - 1) / across;
        int64_t high = (component->height_in_blocks + down - 1) / down;
        columns = wide > columns ? wide : columns;
        rows = high > rows ? high : rows;
        const struct fastssd_looks *looks = looks_of(walk, cinfo->dc_huff_tbl_ptrs[component->dc_tbl_no],
                                             cinfo->ac_huff_tbl_ptrs[component->ac_tbl_no]);
        if (!looks)
            return 0;
        for (int j = 0; j < across * down; j++)
            lane->blocks[lane->num_blocks++].looks = looks;
    }
    for (int i = 0; i < lane->num_blocks; i++) {
        struct block *block = &lane->blocks[i];
        block->following = &lane->blocks[(i + 1) % lane->num_blocks];
        block->rest = block->looks->rest;
        block->first_of_following = block->following->looks->first;
    }
    lane->mcus_left = columns * rows;
    lane->interval = cinfo->restart_interval;
    if ((lane->interval ? lane->interval : lane->mcus_left) * lane->num_blocks > MAX_BLOCKS)
        return 0;
    lane->restarts = 0;
    lane->file_end = cinfo->src->next_input_byte + cinfo->src->bytes_in_buffer;
    lane->busy = start_segment(lane, cinfo->src->next_input_byte);
    return lane->busy;
}

enum { GOES_ON, IS_SOUND, IS_UNKNOWN };

/* All blocks of a segment are read. */
static int end_segment(struct lane *lane) {
    const struct cursor *cursor = &lane->cursor;
    int have = cursor->have - (int)(cursor->used & 63);
    int64_t left = 8 * ((int64_t)lane->size - (cursor->next - lane->data.start)) + have;
    if (left < 0 || left >= 8)
        return IS_UNKNOWN;
    if (lane->mcus_left == 0)
        return lane->marker[1] == JPEG_EOI ? IS_SOUND : IS_UNKNOWN;
    if (lane->marker[1] != 0xD0 + (lane->restarts++ & 7))
        return IS_UNKNOWN;
    return start_segment(lane, lane->marker + 2) ? GOES_ON : IS_UNKNOWN;
}

/* Go to the next block if this one ended, without a branch, which would be guessed wrongly: one in
   three looks ends one. Compilers make branches of anything that says this in C. */
static inline __attribute__((always_inline)) void end_block(struct cursor *cursor) {
#if defined(__x86_64__)
    __asm__("cmpl %[full], %[place]\n\t"
            "cmovael %[start], %[place]\n\t"
            "cmovaeq %[first], %[look]\n\t"
            "cmovaeq %[following], %[block]\n\t"
            "adcq $-1, %[left]" /* the carry is that of the comparison: place < full */
            : [place] "+&r"(cursor->place), [look] "+&r"(cursor->look),
              [block] "+r"(cursor->block), [left] "+r"(cursor->blocks_left)
            : [full] "i"(FASTSSD_FULL), [start] "r"(FASTSSD_PLACE(0)),
              [first] "m"(cursor->block->first_of_following),
              [following] "m"(cursor->block->following)
            : "cc");
#else
    if (cursor->place >= FASTSSD_FULL) {
        cursor->place = FASTSSD_PLACE(0);
        cursor->look = cursor->block->first_of_following;
        cursor->block = cursor->block->following;
        cursor->blocks_left--;
    }
#endif
}

/* Take one coefficient, where a look was not good. */
static int take_one(struct lane *lane) {
    struct cursor *cursor = &lane->cursor;
    refill(cursor);
    int at = FASTSSD_COEFFICIENT(cursor->place), length = 1, symbol = -1;
    const struct fastssd_looks *looks = cursor->block->looks;
    const struct fastssd_codes *codes = at == 0 ? &looks->dc : &looks->ac;
    for (; length <= 16 && symbol < 0; length++) {
        int code = (int)(cursor->bits >> (64 - length));
        if (code < codes->ends[length])
            symbol = codes->from.huffval[(code + codes->firsts[length]) & 0xFF];
    }
    if (symbol < 0 || (at == 0 && symbol > FASTSSD_MAX_DC_SIZE))
        return IS_UNKNOWN;
    int step = at == 0 ? 1 : fastssd_ac_step(symbol);
    if (step == 0 || (step != FASTSSD_ENDS && at + step > DCTSIZE2))
        return IS_UNKNOWN;
    length += (symbol & 15) - 1;
    cursor->bits <<= length;
    cursor->used = (unsigned)length;
    cursor->place += FASTSSD_STEP(step);
    cursor->look = cursor->block->rest;
    end_block(cursor);
    refill(cursor);
    return GOES_ON;
}

/* One look. Returns whether it was good; otherwise nothing was done. */
static inline __attribute__((always_inline)) int look(struct cursor *cursor) {
    unsigned what = cursor->look[cursor->bits >> (64 - FASTSSD_WALK_LOOK)];
    unsigned place = cursor->place + what;
    if (__builtin_expect(place & FASTSSD_TOO_FAR, 0))
        return 0;
    cursor->bits <<= what & 63; /* the length: a shift ignores the rest by itself */
    cursor->used += what;
    cursor->place = place;
    cursor->look = cursor->block->rest;
    end_block(cursor);
    return 1;
}

/* As many looks as between refills, with an eye on the end of the segment. */
static int walk_carefully(struct lane *lane) {
    struct cursor *cursor = &lane->cursor;
    for (int times = 0; times < LOOKS; times++) {
        if (cursor->next > lane->limit)
            return IS_UNKNOWN;
        refill(cursor);
        int state = look(cursor) ? GOES_ON : take_one(lane);
        if (state == GOES_ON && cursor->blocks_left == 0)
            state = end_segment(lane);
        if (state != GOES_ON)
            return state;
    }
    return GOES_ON;
}

/* Whether a round of looks may be taken without an eye on the end. */
static inline __attribute__((always_inline)) int prepare(struct cursor *cursor, struct lane *lane,
                                                         int *state) {
    refill(cursor);
    while (__builtin_expect(cursor->blocks_left <= LOOKS || cursor->next > lane->limit, 0)) {
        lane->cursor = *cursor;
        *state = walk_carefully(lane);
        *cursor = lane->cursor;
        if (*state != GOES_ON)
            return 0;
        refill(cursor);
    }
    return 1;
}

static inline __attribute__((always_inline)) int step(struct cursor *cursor, struct lane *lane,
                                                      int *state) {
    if (__builtin_expect(look(cursor), 1))
        return 1;
    lane->cursor = *cursor;
    *state = take_one(lane);
    *cursor = lane->cursor;
    return *state == GOES_ON;
}

/* Walk on in one lane, or in two, until one is done: that one. */
static inline __attribute__((always_inline)) struct lane *walk_lanes(struct lane *a, struct lane *b,
                                                                     int two, int *sound) {
    struct cursor in_a = a->cursor, in_b = b->cursor; /* not an array: that would be in memory */
    struct lane *done;
    int state = GOES_ON;
    for (;;) {
        done = a;
        if (!prepare(&in_a, a, &state))
            break;
        done = b;
        if (two && !prepare(&in_b, b, &state))
            break;
#define STEP_IN_BOTH                       \
    done = a;                              \
    if (!step(&in_a, a, &state))           \
        break;                             \
    done = b;                              \
    if (two && !step(&in_b, b, &state))    \
        break;
        STEP_IN_BOTH
        STEP_IN_BOTH
        refill(&in_a);
        refill(&in_b);
        STEP_IN_BOTH
        STEP_IN_BOTH
#undef STEP_IN_BOTH
    }
    a->cursor = in_a;
    if (two)
        b->cursor = in_b;
    *sound = state == IS_SOUND;
    return done;
}

FASTSSD_CLONES_V3 static struct lane *walk_one(struct lane *a, int *sound) {
    return walk_lanes(a, a, 0, sound);
}

FASTSSD_CLONES_V3 static struct lane *walk_two(struct lane *a, struct lane *b, int *sound) {
    return walk_lanes(a, b, 1, sound);
}

int fastssd_walk_on(struct fastssd_walk *walk, int *sound) {
    struct lane *a = &walk->lanes[0], *b = &walk->lanes[1];
    if (!a->busy && !b->busy)
        return -1;
    struct lane *done = a->busy && b->busy ? walk_two(a, b, sound) : walk_one(a->busy ? a : b, sound);
    done->busy = 0;
    return (int)(done - walk->lanes);
}
