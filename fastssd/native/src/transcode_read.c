/* Reading an ordinary scan symbol by symbol, without coefficients. Whatever is not certainly sound
   is left to libjpeg: nothing here says what is wrong. */
#include "transcode.h"

#include <stdlib.h>
#include <string.h>

#include "refill.h"

#define LOOK 11               /* bits of a code that one look finds */
#define MAX_DC_SIZE 11        /* what a baseline file may hold */
#define MAX_AC_SIZE 10
#define MAX_TOKENS (64 << 20) /* 256 MB: several times what any photograph has */
#define MCU_TOKENS (10 * 66)
#define MCU_SLACK 4096        /* bytes: more than the longest codes of an MCU */
#define END_OF_BLOCK 64       /* a step behind any block's end */

/* What the next bits are: the bits of code and value together in the lowest 8 bits, then the step
   to the next coefficient, then the symbol. */
struct huffman {
    JHUFF_TBL from;
    int made;
    uint32_t look[1 << LOOK];  /* 0 for longer codes and none */
    int32_t ends[17];          /* behind the last code of each length */
    int32_t firsts[17];        /* index of a length's first value, less its first code */
};

/* Of the files of a batch most have the same tables. */
struct fastssd_tables {
    struct huffman huffman[6];
};

/* The data of one segment, without the bytes stuffed into it. */
struct reader {
    const uint8_t *start, *next;
    size_t size;
    uint64_t bits;  /* from the highest on */
    int have;       /* of them */
};

/* A component within an MCU, and what its coding needs. */
struct part {
    const struct huffman *dc, *ac;
    int across, down;        /* blocks in an MCU */
    int width, height;       /* blocks that hold pixels */
    int table;               /* in the file that is written */
    int predicted, written;  /* the DC values before, as read and as written */
};

static uint32_t found(int symbol, int length) {
    int step = symbol & 15 || symbol == 0xF0 ? (symbol >> 4) + 1 : END_OF_BLOCK;
    return (uint32_t)symbol << 16 | step << 8 | (length + (symbol & 15));
}

static int make_huffman(const JHUFF_TBL *from, struct huffman *to, int largest) {
    if (!from)
        return 0;
    if (to->made && !memcmp(from->bits, to->from.bits, sizeof from->bits) &&
        !memcmp(from->huffval, to->from.huffval, sizeof from->huffval))
        return 1;
    to->made = 0;
    to->from = *from;
    memset(to->look, 0, sizeof to->look);
    int code = 0, index = 0;
    for (int length = 1; length <= 16; length++) {
        to->firsts[length] = index - code;
        for (int i = 0; i < from->bits[length]; i++, code++, index++) {
            if (index >= 256 || code + 1 >= 1 << length || /* no code is all ones */
                from->huffval[index] > largest)
                return 0;
            if (length <= LOOK) {
                int first = code << (LOOK - length);
                for (int j = 0; j < 1 << (LOOK - length); j++)
                    to->look[first + j] = found(from->huffval[index], length);
            }
        }
        to->ends[length] = code;
        code <<= 1;
    }
    to->made = 1;
    return 1;
}

/* Have 56 bits: more than the longest code and its value. */
static inline __attribute__((always_inline)) void refill(struct reader *reader) {
    fastssd_refill(&reader->bits, &reader->have, &reader->next);
}

static uint32_t look_further(uint64_t bits, const struct huffman *table) {
    for (int length = LOOK + 1; length <= 16; length++) {
        int code = bits >> (64 - length);
        if (code < table->ends[length])
            return found(table->from.huffval[(code + table->firsts[length]) & 0xFF], length);
    }
    return 0;
}

/* Take a code and its value. Returns what was found, 0 for no code, and the bits of its value. */
static inline __attribute__((always_inline)) uint32_t take(
    struct reader *reader, const struct huffman *table, unsigned *value) {
    refill(reader);
    uint32_t what = table->look[reader->bits >> (64 - LOOK)];
    if (__builtin_expect(what == 0, 0))
        what = look_further(reader->bits, table);
    int length = what & 0xFF, size = what >> 16 & 15;
    *value = (reader->bits << (length - size)) >> 1 >> (63 - size);
    reader->bits <<= length;
    reader->have -= length;
    return what;
}

static inline __attribute__((always_inline)) void put(
    struct fastssd_tokens *tokens, unsigned index, unsigned extra) {
    tokens->tokens[tokens->used++] = index << 16 | extra;
    tokens->counts[index]++;
}

static inline __attribute__((always_inline)) int put_dc(
    struct fastssd_tokens *tokens, int table, int difference) {
    unsigned magnitude = difference < 0 ? -difference : difference;
    int size = magnitude ? 32 - __builtin_clz(magnitude) : 0;
    unsigned extra = difference < 0 ? difference + (1 << size) - 1 : difference;
    put(tokens, (unsigned)table << 9 | size, extra);
    return size <= MAX_DC_SIZE;
}

/* Read a block into tokens; a block without pixels is written as the one before it with
   nothing in it, as libjpeg does. */
static inline __attribute__((always_inline)) int block(
    struct reader *reader, struct part *part, struct fastssd_tokens *tokens, int has_pixels) {
    unsigned value;
    uint32_t what = take(reader, part->dc, &value);
    int size = what >> 16;
    if (what == 0 || size > MAX_DC_SIZE)
        return 0;
    int difference = value;
    if (size && difference < 1 << (size - 1))
        difference -= (1 << size) - 1;
    part->predicted += difference;
    if (part->predicted != (int16_t)part->predicted)
        return 0;
    if (!put_dc(tokens, part->table, has_pixels ? part->predicted - part->written : 0))
        return 0;
    if (has_pixels)
        part->written = part->predicted;
    unsigned table = (unsigned)part->table << 9 | 1 << 8;
    int at = 1, runs = 0;  /* runs: of 16 zeros, which count if a value follows */
    while (at < DCTSIZE2) {
        what = take(reader, part->ac, &value);
        size = what >> 16 & 15;
        if (what == 0 || size > MAX_AC_SIZE)
            return 0;
        at += what >> 8 & 0xFF;
        if (has_pixels) {
            if (size) {
                for (; runs; runs--)
                    put(tokens, table | 0xF0, 0);
                put(tokens, table | what >> 16, value);
            } else if ((what >> 8 & 0xFF) != END_OF_BLOCK) {
                runs++;
            }
        }
    }
    if (at > DCTSIZE2 || runs || !has_pixels)
        put(tokens, table, 0);
    /* Behind the end by an end of block, or by zeros or a value that do not fit in. */
    return at <= DCTSIZE2 || (what >> 8 & 0xFF) == END_OF_BLOCK;
}

static inline int64_t bits_left(const struct reader *reader) {
    return 8 * ((int64_t)reader->size - (reader->next - reader->start)) + reader->have;
}

static inline __attribute__((always_inline)) int mcu(
    struct reader *reader, struct part *parts, int num_parts, int column, int row,
    struct fastssd_tokens *tokens) {
    for (struct part *part = parts; part < parts + num_parts; part++)
        for (int y = 0; y < part->down; y++)
            for (int x = 0; x < part->across; x++) {
                int has_pixels = column * part->across + x < part->width &&
                                 row * part->down + y < part->height;
                if (!block(reader, part, tokens, has_pixels))
                    return 0;
            }
    return bits_left(reader) >= 0;
}

static int make_room(struct fastssd_tokens *tokens) {
    if (tokens->room - tokens->used < MCU_TOKENS) {
        size_t room = tokens->room ? 2 * tokens->room : 1 << 16;
        uint32_t *grown = room > MAX_TOKENS ? NULL : realloc(tokens->tokens, room * sizeof *grown);
        if (!grown)
            return 0;
        tokens->tokens = grown;
        tokens->room = room;
    }
    return 1;
}

/* Copy a segment's data, up to its marker, to the start of the scratch. Returns the marker, or NULL
   where there is none or no memory. */
static const uint8_t *unstuff(
    const uint8_t *from, const uint8_t *end, struct fastssd_tokens *tokens,
    struct reader *reader) {
    struct fastssd_bytes *scratch = &tokens->scratch;
    size_t before = scratch->room;
    if (!fastssd_bytes_reserve(scratch, end - from + MCU_SLACK))
        return NULL;
    memset(scratch->start + before, 0, scratch->room - before);
    uint8_t *to = scratch->start;
    for (;;) {
        const uint8_t *found = memchr(from, 0xFF, end - from);
        if (!found || found + 1 == end)
            return NULL;
        memcpy(to, from, found - from);
        to += found - from;
        from = found + 2;
        if (found[1] != 0) {
            *reader = (struct reader){
                .start = scratch->start, .next = scratch->start, .size = to - scratch->start};
            return found;
        }
        *to++ = 0xFF;
    }
}

static int end_segment(struct fastssd_tokens *tokens) {
    if (tokens->num_segments == tokens->segment_room) {
        size_t room = tokens->segment_room ? 2 * tokens->segment_room : 1 << 10;
        size_t *grown = realloc(tokens->segments, room * sizeof *grown);
        if (!grown)
            return 0;
        tokens->segments = grown;
        tokens->segment_room = room;
    }
    tokens->segments[tokens->num_segments++] = tokens->used;
    return 1;
}

int fastssd_is_ordinary(j_decompress_ptr cinfo) {
    if (cinfo->progressive_mode || cinfo->arith_code || cinfo->data_precision != 8 ||
        (cinfo->num_components != 1 && cinfo->num_components != 3) ||
        cinfo->comps_in_scan != cinfo->num_components || cinfo->Ss != 0 ||
        cinfo->Se != DCTSIZE2 - 1 || cinfo->Ah != 0 || cinfo->Al != 0)
        return 0;
    int blocks = 0;
    for (int i = 0; i < cinfo->num_components; i++) {
        jpeg_component_info *component = &cinfo->comp_info[i];
        /* libjpeg looks at these numbers only when it begins to decode. */
        if (component->quant_tbl_no < 0 || component->quant_tbl_no >= NUM_QUANT_TBLS ||
            component->dc_tbl_no < 0 || component->dc_tbl_no >= NUM_HUFF_TBLS ||
            component->ac_tbl_no < 0 || component->ac_tbl_no >= NUM_HUFF_TBLS)
            return 0;
        if (cinfo->cur_comp_info[i] != component || !cinfo->quant_tbl_ptrs[component->quant_tbl_no])
            return 0;
        blocks += component->h_samp_factor * component->v_samp_factor;
    }
    return cinfo->num_components == 1 || blocks <= 10;
}

static int make_parts(
    j_decompress_ptr cinfo, struct fastssd_tables *tables, struct part *parts) {
    int alone = cinfo->num_components == 1;  /* then an MCU is a block */
    for (int i = 0; i < cinfo->num_components; i++) {
        jpeg_component_info *component = &cinfo->comp_info[i];
        struct huffman *dc = &tables->huffman[2 * i], *ac = &tables->huffman[2 * i + 1];
        if (!make_huffman(cinfo->dc_huff_tbl_ptrs[component->dc_tbl_no], dc, 15) ||
            !make_huffman(cinfo->ac_huff_tbl_ptrs[component->ac_tbl_no], ac, 255))
            return 0;
        parts[i] = (struct part){
            .dc = dc,
            .ac = ac,
            .across = alone ? 1 : component->h_samp_factor,
            .down = alone ? 1 : component->v_samp_factor,
            .width = component->width_in_blocks,
            .height = component->height_in_blocks,
            .table = fastssd_table_of(cinfo, i),
        };
    }
    return 1;
}

static int read_mcus(
    j_decompress_ptr cinfo, struct part *parts, struct fastssd_tokens *tokens, int interval) {
    const uint8_t *end = cinfo->src->next_input_byte + cinfo->src->bytes_in_buffer;
    struct reader reader;
    const uint8_t *marker = unstuff(cinfo->src->next_input_byte, end, tokens, &reader);
    if (!marker)
        return 0;
    int num_parts = cinfo->num_components;
    int columns = (parts->width + parts->across - 1) / parts->across;
    int rows = (parts->height + parts->down - 1) / parts->down;
    for (int i = 1; i < num_parts; i++) {  /* the first need not be the one with most blocks */
        int wide = (parts[i].width + parts[i].across - 1) / parts[i].across;
        int high = (parts[i].height + parts[i].down - 1) / parts[i].down;
        columns = wide > columns ? wide : columns;
        rows = high > rows ? high : rows;
    }
    unsigned until_restart = cinfo->restart_interval, restarts = 0;
    for (int row = 0; row < rows; row++)
        for (int column = 0; column < columns; column++) {
            if (cinfo->restart_interval && until_restart-- == 0) {
                if (bits_left(&reader) >= 8 || marker[1] != 0xD0 + (restarts++ & 7))
                    return 0;
                marker = unstuff(marker + 2, end, tokens, &reader);
                if (!marker)
                    return 0;
                until_restart = cinfo->restart_interval - 1;
                for (int i = 0; i < num_parts; i++)
                    parts[i].predicted = 0;
            }
            if (column % interval == 0) {
                if ((row || column) && !end_segment(tokens))
                    return 0;
                for (int i = 0; i < num_parts; i++)
                    parts[i].written = 0;
            }
            if (!make_room(tokens))
                return 0;
            if (!mcu(&reader, parts, num_parts, column, row, tokens))
                return 0;
        }
    if (bits_left(&reader) >= 8 || marker[1] != JPEG_EOI)
        return 0;
    return end_segment(tokens);
}

int fastssd_read_scan(j_decompress_ptr cinfo, struct fastssd_tokens *tokens, int interval) {
    struct part parts[3];
    if (!tokens->tables)
        tokens->tables = calloc(1, sizeof *tokens->tables);
    if (!tokens->tables || !fastssd_is_ordinary(cinfo) || !make_parts(cinfo, tokens->tables, parts))
        return 0;
    tokens->used = tokens->num_segments = 0;
    memset(tokens->counts, 0, sizeof tokens->counts);
    return read_mcus(cinfo, parts, tokens, interval);
}
