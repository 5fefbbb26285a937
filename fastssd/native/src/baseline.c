#include "baseline.h"

#include <stdio.h>
#include <string.h>

#include "clones.h"
#include "huffman.h"
#include "idct.h"
#include "jpeg_library.h"
#include "jpeg_markers.h"

/* Zeros behind a segment: a damaged block reads that far before it is seen. */
#define PADDING 512

/* By place in zigzag order; those behind the block's end are one. */
static const uint8_t natural_order[FASTSSD_PLACES] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
    [64 ... FASTSSD_PLACES - 1] = 64};

/* What decoding the segments of one image needs. */
struct work {
    const struct fastssd_baseline *image;
    const struct fastssd_huffman *dc[3], *ac[3];
    const struct fastssd_pairs *pairs[3];
    uint16_t quantisers[3][FASTSSD_PLACES]; /* 0 behind the block's end */
    const uint8_t *need;      /* by MCU */
    int first_row, first_column; /* MCUs of the planes' corner */
    struct {
        uint8_t *samples;
        int stride, side; /* side: samples of a block's side */
        int h, v;         /* blocks of an MCU */
    } planes[3];
    int plain;
    /* Blocks wait for a second one: the transform takes two. Behind a block something may be
       written that is not meant: in the second's place, or behind it. */
    int16_t coefficients[3][64] __attribute__((aligned(32)));
    uint8_t *out[2];
    int stride[2];
    int waiting;
    int wild; /* whether a transform overflowed: libjpeg's does so in its own ways */
};

static int fail(char *reason, const char *what) {
    snprintf(reason, FASTSSD_REASON, "%s", what);
    return 0;
}

int fastssd_baseline_scale(const struct fastssd_baseline *image, int scale) {
    /* With chroma halved one way only, blocks would have to become oblong. */
    return image->luma_h == image->luma_v ? scale : 1;
}

/* Read a block's coefficients other than the first, dequantised, to natural order and to one place
   behind it; without a block, pass over them. Returns the last that is not zero, or a zero that was
   sent, -1 for no code. */
static inline int read_block(struct fastssd_bits *bits, const struct fastssd_huffman *table,
                             const struct fastssd_pairs *pairs, const uint16_t *quantisers,
                             int16_t *block) {
    struct fastssd_bits own = *bits; /* in registers */
    int at = 0, last = 0, value;
    for (;;) {
        fastssd_bits_fill(&own);
        int looks = 0;
#pragma GCC unroll 4
        for (; looks < 4; looks++) {
            uint64_t pair = pairs->look[own.held >> (64 - FASTSSD_PAIR_LOOK)];
            int next = at + (int)(pair >> 6 & 127);
            if (__builtin_expect(next >= 63, 0))
                break;
            own.held <<= pair & 31;
            own.count -= (int)(pair & 31);
            if (block) {
                int first = at + (int)(pair >> 16 & 255), second = first + (int)(pair >> 24 & 255);
                block[natural_order[first]] =
                    (int16_t)((int16_t)(pair >> 32) * quantisers[first]);
                block[natural_order[second]] =
                    (int16_t)((int16_t)(pair >> 48) * quantisers[second]);
            }
            at = next;
            if (pair & FASTSSD_ENDS) {
                *bits = own;
                return at - 1;
            }
        }
        if (looks == 4)
            continue;
        /* A long code, or the end of the block is near. */
        last = at;
        uint32_t entry = fastssd_take(&own, table, &value);
        at += (int)(entry >> 16);
        if ((entry >> 8 & 15) == 0) {
            if (entry == 0 || entry >> 16 == 0) {
                last = entry ? last : -1;
                break;
            }
        } else {
            if (at > 63) /* after too many zeros; libjpeg takes it for the last value */
                at = 63;
            if (block)
                block[natural_order[at]] = (int16_t)(value * quantisers[at]);
            last = at;
        }
        if (at >= 63)
            break;
    }
    *bits = own;
    return last;
}

static void transform_waiting(struct work *work) {
    if (work->waiting == 1) { /* alone: twice to the same place */
        memcpy(work->coefficients[1], work->coefficients[0], sizeof work->coefficients[0]);
        work->out[1] = work->out[0];
        work->stride[1] = work->stride[0];
    }
    if (work->waiting)
        fastssd_idct_pair((const int16_t(*)[64])work->coefficients, work->out, work->stride,
                          work->plain, &work->wild);
    work->waiting = 0;
}

static inline int needed_block(struct work *work, struct fastssd_bits *bits, int c, int dc,
                               uint8_t *out) {
    int16_t *block = work->coefficients[work->waiting];
    const uint16_t *quantisers = work->quantisers[c];
    int stride = work->planes[c].stride, side = work->planes[c].side;
    memset(block, 0, 64 * sizeof *block);
    block[0] = (int16_t)((unsigned)dc * quantisers[0]);
    int last = read_block(bits, work->ac[c], work->pairs[c], quantisers, block);
    if (last < 0)
        return 0;
    if (last == 0) {
        fastssd_idct_flat(block[0], out, stride, side, &work->wild);
    } else if (side < 8) {
        fastssd_idct_small(block, out, stride, side);
    } else {
        work->out[work->waiting] = out;
        work->stride[work->waiting] = stride;
        if (++work->waiting == 2)
            transform_waiting(work);
    }
    return 1;
}

/* Decode MCUs first to last, of one segment. Returns 0 if the bits are no blocks. */
FASTSSD_CLONES_V3 static int decode_mcus(struct work *work, struct fastssd_bits *bits, int first,
                                         int last) {
    const struct fastssd_baseline *image = work->image;
    int dc[3] = {0, 0, 0};
    int row = first / image->mcus_across, column = first % image->mcus_across;
    for (int mcu = first; mcu <= last; mcu++) {
        int needed = work->need[mcu];
        for (int c = 0; c < image->num_components; c++) {
            int h = work->planes[c].h, v = work->planes[c].v, side = work->planes[c].side;
            int stride = work->planes[c].stride;
            uint8_t *corner = NULL;
            if (needed)
                corner = work->planes[c].samples +
                         (int64_t)(row - work->first_row) * v * side * stride +
                         (int64_t)(column - work->first_column) * h * side;
            for (int b = 0; b < h * v; b++) {
                int difference;
                uint32_t entry = fastssd_take(bits, work->dc[c], &difference);
                if (entry == 0)
                    return 0;
                if (entry >> 8 & 15)
                    dc[c] = (int)((unsigned)dc[c] + (unsigned)difference);
                int read;
                if (needed)
                    read = needed_block(work, bits, c, dc[c],
                                        corner + (b / h) * side * stride + (b % h) * side);
                else
                    read = read_block(bits, work->ac[c], work->pairs[c], NULL, NULL) >= 0;
                if (!read || bits->at > bits->end + 16)
                    return 0;
            }
        }
        if (++column == image->mcus_across) {
            column = 0;
            row++;
        }
    }
    return 1;
}

/* Copy a segment without its stuffing; returns how many bytes stay, -1 where several FF stand
   before a stuffed zero: what libjpeg makes of it depends on which of its paths it is on. */
static int64_t unstuff(const uint8_t *from, const uint8_t *end, uint8_t *to) {
    uint8_t *start = to;
    while (from < end) {
        const uint8_t *found = memchr(from, 0xFF, (size_t)(end - from));
        size_t count = (size_t)((found ? found + 1 : end) - from);
        memcpy(to, from, count);
        to += count;
        from += count;
        if (!found)
            break;
        if (from < end && *from == 0) {
            from++;
            continue;
        }
        while (from < end && *from == 0xFF)
            from++;
        return from == end ? to - start - 1 : -1; /* fill bytes before a marker */
    }
    return to - start;
}

/* Find where each segment starts, and the marker behind the last. Returns 0 if there are not as
   many as the image has, each with its number, or if the file doesn't end behind them. */
static int find_segments(const struct fastssd_baseline *image, const uint8_t **starts, int count,
                         char *reason) {
    const uint8_t *at = image->scan;
    for (int i = 0; i < count; i++) {
        starts[i] = at;
        at = fastssd_next_marker(at, image->end);
        if (image->end - at < 2)
            return fail(reason, "the file ends early");
        int expected = i + 1 < count ? 0xD0 + i % 8 : 0xD9;
        if (at[1] != expected) {
            snprintf(reason, FASTSSD_REASON,
                     "damaged image data: marker 0x%02x where 0x%02x is due", at[1], expected);
            return 0;
        }
        at += 2;
    }
    starts[count] = at;
    return 1;
}

/* The last MCU of first..last that is needed, -1 for none. */
static int last_needed(const uint8_t *need, int first, int last) {
    while (last >= first && !need[last])
        last--;
    return last >= first ? last : -1;
}

static int decode_segments(struct fastssd_scratch *scratch, struct work *work,
                           const struct fastssd_rect *mcus, char *reason) {
    const struct fastssd_baseline *image = work->image;
    int total = image->mcus_across * image->mcus_down;
    int interval = image->restart_interval ? image->restart_interval : total;
    int count = (total + interval - 1) / interval;
    const uint8_t **starts =
        fastssd_room(scratch, FASTSSD_ROOM_STARTS, ((size_t)count + 1) * sizeof *starts);
    if (!starts)
        return fail(reason, "there is not enough memory");
    if (!find_segments(image, starts, count, reason))
        return 0;
    int end_mcu = mcus->y1 * image->mcus_across;
    for (int i = mcus->y0 * image->mcus_across / interval; i < count; i++) {
        int first = i * interval;
        if (first >= end_mcu)
            break;
        int segment_end = interval < total - first ? first + interval : total;
        int last = last_needed(work->need, first, segment_end - 1);
        if (last < 0)
            continue;
        size_t num_bytes = (size_t)(starts[i + 1] - starts[i]) - 2;
        uint8_t *clean = fastssd_room(scratch, FASTSSD_ROOM_BITS, num_bytes + PADDING);
        if (!clean)
            return fail(reason, "there is not enough memory");
        int64_t length = unstuff(starts[i], starts[i] + num_bytes, clean);
        if (length < 0)
            return fail(reason, "damaged image data: a byte that means nothing");
        memset(clean + length, 0, PADDING);
        struct fastssd_bits bits = {.at = clean, .end = clean + length};
        if (!decode_mcus(work, &bits, first, last))
            return fail(reason, "damaged image data: a code that is none");
        int64_t left = (bits.end - bits.at) * 8 + bits.count;
        if (left < 0)
            return fail(reason, "damaged image data: a segment ends early");
        if (left >= 8 && last == segment_end - 1)
            return fail(reason, "damaged image data: a segment goes on too long");
    }
    transform_waiting(work);
    if (work->wild)
        return fail(reason, "damaged image data: values beyond all measure");
    return 1;
}

/* The MCUs that a rectangle needs. */
static struct fastssd_rect mcus_of(const struct fastssd_baseline *image,
                                   const struct fastssd_rect *rect, int scale) {
    int width = 8 * image->luma_h / scale, height = 8 * image->luma_v / scale;
    /* Upsampling looks at the chroma beside, which is at most two pixels away. */
    int beside_x = image->luma_h > 1 && scale == 1 ? 2 : 0;
    int beside_y = image->luma_v > 1 && scale == 1 ? 2 : 0;
    struct fastssd_rect mcus = {
        rect->x0 > beside_x ? (rect->x0 - beside_x) / width : 0,
        rect->y0 > beside_y ? (rect->y0 - beside_y) / height : 0,
        (rect->x1 + beside_x + width - 1) / width,
        (rect->y1 + beside_y + height - 1) / height,
    };
    mcus.x1 = mcus.x1 < image->mcus_across ? mcus.x1 : image->mcus_across;
    mcus.y1 = mcus.y1 < image->mcus_down ? mcus.y1 : image->mcus_down;
    return mcus;
}

/* Mark the MCUs that the rectangles need; *around is what holds them all. */
static uint8_t *mark_needed(struct fastssd_scratch *scratch, const struct fastssd_baseline *image,
                            const struct fastssd_rect *rects, int count, int scale,
                            struct fastssd_rect *around) {
    size_t total = (size_t)image->mcus_across * image->mcus_down;
    uint8_t *need = fastssd_room(scratch, FASTSSD_ROOM_NEED, total);
    if (!need)
        return NULL;
    memset(need, 0, total);
    for (int i = 0; i < count; i++) {
        struct fastssd_rect mcus = mcus_of(image, &rects[i], scale);
        for (int y = mcus.y0; y < mcus.y1; y++)
            memset(need + (size_t)y * image->mcus_across + mcus.x0, 1,
                   (size_t)(mcus.x1 - mcus.x0));
        if (i == 0)
            *around = mcus;
        around->x0 = mcus.x0 < around->x0 ? mcus.x0 : around->x0;
        around->y0 = mcus.y0 < around->y0 ? mcus.y0 : around->y0;
        around->x1 = mcus.x1 > around->x1 ? mcus.x1 : around->x1;
        around->y1 = mcus.y1 > around->y1 ? mcus.y1 : around->y1;
    }
    return need;
}

/* Lay out the planes for the MCUs, and describe them. Returns 0 without memory. */
static int make_planes(struct fastssd_scratch *scratch, struct work *work,
                       const struct fastssd_rect *mcus, int scale,
                       struct fastssd_picture *picture) {
    const struct fastssd_baseline *image = work->image;
    int rows = mcus->y1 - mcus->y0, columns = mcus->x1 - mcus->x0;
    int subsampled = image->luma_h > 1 || image->luma_v > 1;
    size_t bytes = 0, starts[3];
    *picture = (struct fastssd_picture){
        .width = (image->width + scale - 1) / scale,
        .height = (image->height + scale - 1) / scale,
        .num_planes = image->num_components,
        .half_x = image->luma_h > 1 && scale == 1,
        .half_y = image->luma_v > 1 && scale == 1,
    };
    for (int c = 0; c < image->num_components; c++) {
        /* Halved chroma is not upsampled where the luma is halved as well. */
        int side = c > 0 && subsampled && scale > 1 ? 16 / scale : 8 / scale;
        int h = c == 0 ? image->luma_h : 1, v = c == 0 ? image->luma_v : 1;
        work->planes[c].h = h;
        work->planes[c].v = v;
        work->planes[c].side = side;
        /* Vectors of 32 bytes read over the end of a row. */
        work->planes[c].stride = (columns * h * side + 63) / 64 * 64;
        starts[c] = bytes;
        bytes += (size_t)work->planes[c].stride * rows * v * side + 64;
        picture->planes[c].stride = work->planes[c].stride;
        picture->planes[c].x0 = mcus->x0 * h * side;
        picture->planes[c].y0 = mcus->y0 * v * side;
    }
    uint8_t *samples = fastssd_room(scratch, FASTSSD_ROOM_PIXELS, bytes);
    if (!samples)
        return 0;
    for (int c = 0; c < image->num_components; c++)
        picture->planes[c].samples = work->planes[c].samples = samples + starts[c];
    int width = 8 * image->luma_h / scale, height = 8 * image->luma_v / scale;
    picture->held = (struct fastssd_rect){mcus->x0 * width, mcus->y0 * height, mcus->x1 * width,
                                          mcus->y1 * height};
    if (picture->held.x1 > picture->width)
        picture->held.x1 = picture->width;
    if (picture->held.y1 > picture->height)
        picture->held.y1 = picture->height;
    return 1;
}

int fastssd_baseline_decode(struct fastssd_scratch *scratch, const struct fastssd_baseline *image,
                            const struct fastssd_rect *rects, int count, int scale, int plain,
                            struct fastssd_picture *picture, char *reason) {
    struct fastssd_huffman tables[2][3];
    struct fastssd_pairs pairs[3];
    struct fastssd_rect mcus = {0, 0, 0, 0};
    struct work work = {.image = image, .plain = plain};
    work.need = mark_needed(scratch, image, rects, count, scale, &mcus);
    if (!work.need || !make_planes(scratch, &work, &mcus, scale, picture))
        return fail(reason, "there is not enough memory for its pixels");
    work.first_row = mcus.y0;
    work.first_column = mcus.x0;
    for (int c = 0; c < image->num_components; c++) {
        int same = c == 2 && image->dc[1] == image->dc[2] && image->ac[1] == image->ac[2];
        int at = same ? 1 : c;
        if (!same && (!fastssd_huffman_build(&tables[0][c], image->dc[c], 0) ||
                      !fastssd_huffman_build(&tables[1][c], image->ac[c], 1)))
            return fail(reason, "a Huffman table that is none");
        if (!same)
            fastssd_pairs_build(&pairs[c], image->ac[c]);
        memcpy(work.quantisers[c], image->quantisers[c], 64 * sizeof *image->quantisers[c]);
        work.pairs[c] = &pairs[at];
        work.dc[c] = &tables[0][at];
        work.ac[c] = &tables[1][at];
    }
    return decode_segments(scratch, &work, &mcus, reason);
}
