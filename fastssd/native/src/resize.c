#include <string.h>

#include "picture.h"
#include "resize_kernels.h"
#include "weights.h"

#define BLOCK FASTSSD_BLOCK
#define MARGIN 48 /* bytes behind a row that may be read, or overwritten while it is made */

/* A box of a picture, at the picture's scale, and where its rows are made. */
struct source {
    struct fastssd_scratch *scratch;
    const struct fastssd_picture *picture;
    int plain;
    int64_t x, y; /* of the box */
    int width, height;
    int slots, pixel, channel; /* of a row: bytes, from pixel to pixel, from channel to channel */
    int row_bytes;
    uint8_t *zeros, *rows; /* a row of zeros; `capacity` rows */
    int capacity;
};

static int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

static int open_source(struct source *source, int capacity) {
    const struct fastssd_picture *picture = source->picture;
    if (picture->rgb) {
        source->pixel = 3;
        source->channel = 1;
        source->slots = (3 * source->width + 15) / 16 * 16;
    } else {
        source->pixel = 1;
        source->channel = (source->width + MARGIN + 15) / 16 * 16;
        source->slots = 2 * source->channel + (source->width + 15) / 16 * 16;
    }
    source->row_bytes = (source->slots + MARGIN + 63) / 64 * 64;
    source->capacity = capacity;
    source->zeros = fastssd_room(source->scratch, FASTSSD_ROOM_ROWS,
                                 (size_t)source->row_bytes * ((size_t)capacity + 1));
    if (!source->zeros)
        return 0;
    memset(source->zeros, 0, (size_t)source->row_bytes);
    source->rows = source->zeros + source->row_bytes;
    return 1;
}

/* Return row `row` of the box, slots behind the box being of any content; NULL without memory. */
static const uint8_t *row_of(const struct source *source, int row) {
    const struct fastssd_picture *picture = source->picture;
    const struct fastssd_rect *held = &picture->held;
    int64_t y = source->y + row;
    int64_t x0 = at_least(source->x, held->x0), x1 = at_most(source->x + source->width, held->x1);
    if (y < held->y0 || y >= held->y1 || x0 >= x1)
        return source->zeros;
    int left = (int)(x0 - source->x), count = (int)(x1 - x0);
    int right = source->width - left - count;
    const uint8_t *from = NULL;
    if (picture->rgb) {
        from = picture->rgb + (y - held->y0) * picture->stride + 3 * (x0 - held->x0);
        /* Whole vectors are read: the bytes behind must be the picture's as well. */
        int64_t left_over = (held->y1 - 1 - y) * picture->stride + 3 * (int64_t)(held->x1 - x0);
        if (count == source->width && left_over >= source->slots)
            return from;
    }
    uint8_t *to = source->rows + (size_t)(row % source->capacity) * source->row_bytes;
    if (from) {
        memset(to, 0, 3 * (size_t)left);
        memcpy(to + 3 * left, from, 3 * (size_t)count);
        memset(to + 3 * (left + count), 0, 3 * (size_t)right);
        return to;
    }
    if (!fastssd_picture_row(source->scratch, picture, (int)y, (int)x0, (int)x1, to + left,
                             source->channel, source->plain))
        return NULL;
    if (left + right)
        for (int c = 0; c < 3; c++) {
            memset(to + c * source->channel, 0, (size_t)left);
            memset(to + c * source->channel + left + count, 0, (size_t)right);
        }
    return to;
}

/* Copy a box of interleaved pixels, zeros outside, without a row in between. */
static void copy_straight(const struct source *source, int mirror_y, uint8_t *out) {
    const struct fastssd_picture *picture = source->picture;
    const struct fastssd_rect *held = &picture->held;
    int size = source->width;
    int64_t x0 = at_least(source->x, held->x0), x1 = at_most(source->x + size, held->x1);
    size_t row_bytes = 3 * (size_t)size;
    size_t left = x0 < x1 ? 3 * (size_t)(x0 - source->x) : row_bytes;
    size_t count = x0 < x1 ? 3 * (size_t)(x1 - x0) : 0;
    for (int row = 0; row < size; row++) {
        uint8_t *to = out + row_bytes * (size_t)(mirror_y ? size - 1 - row : row);
        int64_t y = source->y + row;
        if (y < held->y0 || y >= held->y1 || count == 0) {
            memset(to, 0, row_bytes);
            continue;
        }
        memset(to, 0, left);
        memcpy(to + left, picture->rgb + (y - held->y0) * picture->stride + 3 * (x0 - held->x0),
               count);
        memset(to + left + count, 0, row_bytes - left - count);
    }
}

static int copy(struct source *source, int mirror_x, int mirror_y, uint8_t *out) {
    int size = source->width;
    if (source->picture->rgb && !mirror_x) {
        copy_straight(source, mirror_y, out);
        return 1;
    }
    if (!open_source(source, 1))
        return 0;
    for (int y = 0; y < size; y++) {
        const uint8_t *row = row_of(source, y);
        uint8_t *to = out + (size_t)3 * size * (mirror_y ? size - 1 - y : y);
        if (!row)
            return 0;
        const uint8_t *green = row + source->channel, *blue = green + source->channel;
        for (int x = 0; x < size; x++) {
            uint8_t *at = to + 3 * (mirror_x ? size - 1 - x : x);
            at[0] = row[(size_t)x * source->pixel];
            at[1] = green[(size_t)x * source->pixel];
            at[2] = blue[(size_t)x * source->pixel];
        }
    }
    return 1;
}

/* Make sixteen rows of columns, from output row `first` on, by rows that are kept. */
static int narrow_block(const struct source *source, const struct fastssd_weights *rows, int first,
                        int size, const uint8_t **kept, int *next, uint16_t *columns) {
    struct fastssd_vertical pass = {.num_taps = rows->num_taps, .slots = source->slots};
    for (int r = 0; r < BLOCK; r++) {
        int y = first + r < size ? first + r : size - 1;
        for (int k = 0; k < rows->num_taps; k++) {
            int row = rows->first[y] + k;
            while (*next <= row) {
                const uint8_t *made = row_of(source, *next);
                if (!made)
                    return 0;
                kept[(*next)++ % source->capacity] = made;
            }
            pass.rows[r * rows->num_taps + k] = kept[row % source->capacity];
            pass.taps[r * rows->num_taps + k] = rows->taps[(size_t)y * rows->num_taps + k];
        }
    }
    fastssd_vertical(&pass, columns, source->plain);
    return 1;
}

/* The same for any number of taps, row by row. */
static int wide_block(const struct source *source, const struct fastssd_weights *rows, int first,
                      int size, uint32_t *sums, uint16_t *columns) {
    for (int r = 0; r < BLOCK && first + r < size; r++) {
        memset(sums, 0, (size_t)source->slots * sizeof *sums);
        for (int k = 0; k < rows->num_taps; k++) {
            const uint8_t *row = row_of(source, rows->first[first + r] + k);
            if (!row)
                return 0;
            fastssd_wide_add(sums, row, rows->taps[(size_t)(first + r) * rows->num_taps + k],
                             source->slots);
        }
        fastssd_wide_finish(sums, source->slots, r, columns);
    }
    return 1;
}

/* Put the weights of output i to where a mirrored output has it. */
static void mirror(struct fastssd_weights *weights, int size) {
    for (int i = 0, j = size - 1; i < j; i++, j--) {
        uint16_t *a = weights->taps + (size_t)i * weights->num_taps;
        uint16_t *b = weights->taps + (size_t)j * weights->num_taps;
        for (int k = 0; k < weights->num_taps; k++) {
            uint16_t tap = a[k];
            a[k] = b[k];
            b[k] = tap;
        }
        int first = weights->first[i];
        weights->first[i] = weights->first[j];
        weights->first[j] = first;
    }
}

/* Rows that a block of output rows spans at most. */
static int span_of(const struct fastssd_weights *rows, int size) {
    int most = 0;
    for (int y = 0; y < size; y += BLOCK) {
        int last = y + BLOCK <= size ? y + BLOCK - 1 : size - 1;
        int span = rows->first[last] + rows->num_taps - rows->first[y];
        most = span > most ? span : most;
    }
    return most;
}

static int resize(struct source *source, struct fastssd_box box, int scale, int size, int mirror_x,
                  int mirror_y, uint8_t *out) {
    struct fastssd_weights across, down;
    size_t bytes_across = (fastssd_weights_bytes(box.width, scale, size) + 63) / 64 * 64;
    size_t bytes_down = (fastssd_weights_bytes(box.height, scale, size) + 63) / 64 * 64;
    size_t pointers = (size_t)source->height * sizeof(uint8_t *);
    uint8_t *room = fastssd_room(source->scratch, FASTSSD_ROOM_WEIGHTS,
                                 bytes_across + bytes_down + pointers);
    if (!room)
        return 0;
    fastssd_weights_fill(&across, room, box.x, box.width, scale, source->width, size);
    fastssd_weights_fill(&down, room + bytes_across, box.y, box.height, scale, source->height,
                         size);
    const uint8_t **kept = (const uint8_t **)(room + bytes_across + bytes_down);
    if (mirror_x)
        mirror(&across, size);
    int wide = down.num_taps > FASTSSD_MAX_TAPS;
    if (!open_source(source, wide ? 1 : span_of(&down, size)))
        return 0;
    size_t column_bytes = (size_t)source->slots * BLOCK * sizeof(uint16_t);
    uint8_t *columns = fastssd_room(source->scratch, FASTSSD_ROOM_COLUMNS,
                                    column_bytes + (size_t)source->slots * sizeof(uint32_t));
    if (!columns)
        return 0;
    struct fastssd_horizontal pass = {.weights = &across,
                                      .size = size,
                                      .pixel = source->pixel,
                                      .channel = source->channel};
    int next = 0;
    for (int y = 0; y < size; y += BLOCK) {
        int made = wide ? wide_block(source, &down, y, size, (uint32_t *)(columns + column_bytes),
                                     (uint16_t *)columns)
                        : narrow_block(source, &down, y, size, kept, &next, (uint16_t *)columns);
        if (!made)
            return 0;
        for (int r = 0; r < BLOCK; r++)
            pass.out[r] = y + r >= size ? NULL
                          : out + (size_t)3 * size * (mirror_y ? size - 1 - y - r : y + r);
        fastssd_horizontal(&pass, (uint16_t *)columns, source->plain);
    }
    return 1;
}

int fastssd_resize(struct fastssd_scratch *scratch, const struct fastssd_picture *picture,
                   struct fastssd_box box, int scale, int size, int turn, int plain, uint8_t *out) {
    struct source source = {.scratch = scratch, .picture = picture, .plain = plain};
    if (scale == 1) {
        source.x = box.x;
        source.y = box.y;
        source.width = (int)box.width;
        source.height = (int)box.height;
    } else { /* such a box lies within the image */
        source.x = box.x / scale;
        source.y = box.y / scale;
        source.width = (int)((box.x + box.width + scale - 1) / scale - source.x);
        source.height = (int)((box.y + box.height + scale - 1) / scale - source.y);
    }
    int mirror_x = turn == 2 || turn == 3 || turn == 7 || turn == 8;
    int mirror_y = turn == 3 || turn == 4 || turn == 6 || turn == 7;
    uint8_t *upright = out;
    if (turn >= 5) {
        out = fastssd_room(scratch, FASTSSD_ROOM_TURN, (size_t)3 * size * size);
        if (!out)
            return 0;
    }
    int done = source.width == size && source.height == size && scale == 1
                   ? copy(&source, mirror_x, mirror_y, out)
                   : resize(&source, box, scale, size, mirror_x, mirror_y, out);
    if (done && turn >= 5)
        for (int y = 0; y < size; y++)
            for (int x = 0; x < size; x++)
                memcpy(upright + ((size_t)y * size + x) * 3, out + ((size_t)x * size + y) * 3, 3);
    return done;
}
