/* Writing a baseline file of tokens: optimal Huffman tables, headers, segments with restart markers.
   Byte by byte what libjpeg writes of the same coefficients.

   Source: ITU-T T.81, annexes B (syntax), C (codes) and K.2 (optimal tables). */
#include "transcode.h"

#include <string.h>

#define NUM_SYMBOLS 257  /* and one that keeps the code of ones free */

static const uint8_t zigzag[DCTSIZE2] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

struct code_table {
    uint8_t bits[17], values[256];
    int num_values;
};

/* What is put out for a symbol: its code with room for its extra bits, and the bits of both. */
struct code {
    uint32_t bits;
    uint32_t length;
};

/* Find the least of the frequencies above 0, the last of equal ones, among those before `without`
   and behind it. */
static int least(const uint64_t *counts, int number, int without) {
    int found = -1;
    for (int i = 0; i < number; i++)
        if (i != without && counts[i] && (found < 0 || counts[i] <= counts[found]))
            found = i;
    return found;
}

static void make_code_table(const uint32_t *frequencies, struct code_table *table) {
    uint64_t counts[NUM_SYMBOLS];
    int symbols[NUM_SYMBOLS], sizes[NUM_SYMBOLS] = {0}, after[NUM_SYMBOLS];
    int number = 0;
    for (int i = 0; i < 256; i++)
        if (frequencies[i]) {
            counts[number] = frequencies[i];
            symbols[number++] = i;
        }
    counts[number++] = 1;
    for (int i = 0; i < number; i++)
        after[i] = -1;
    for (;;) {
        int first = least(counts, number, -1), second = least(counts, number, first);
        if (second < 0)
            break;
        counts[first] += counts[second];
        counts[second] = 0;
        for (sizes[first]++; after[first] >= 0; sizes[first]++)
            first = after[first];
        after[first] = second;
        for (sizes[second]++; after[second] >= 0; sizes[second]++)
            second = after[second];
    }
    int lengths[NUM_SYMBOLS + 1] = {0};
    for (int i = 0; i < number; i++)
        lengths[sizes[i]]++;
    for (int i = NUM_SYMBOLS; i > 16; i--)
        while (lengths[i] > 0) {
            int j = i - 2;
            while (lengths[j] == 0)
                j--;
            lengths[i] -= 2;
            lengths[i - 1]++;
            lengths[j + 1] += 2;
            lengths[j]--;
        }
    int longest = 16;
    while (lengths[longest] == 0)
        longest--;
    lengths[longest]--;  /* the code of ones */
    for (int i = 0; i <= 16; i++)
        table->bits[i] = i ? lengths[i] : 0;
    table->num_values = 0;
    for (int size = 1; size <= NUM_SYMBOLS; size++)
        for (int i = 0; i < number - 1; i++)
            if (sizes[i] == size)
                table->values[table->num_values++] = symbols[i];
}

static void make_codes(const struct code_table *table, struct code *codes) {
    uint32_t code = 0;
    int index = 0;
    for (int length = 1; length <= 16; length++, code <<= 1)
        for (int i = 0; i < table->bits[length]; i++, code++, index++) {
            int symbol = table->values[index], extra = symbol & 15;
            codes[symbol] = (struct code){code << extra, length + extra};
        }
}

static uint8_t *put_two(uint8_t *to, unsigned value) {
    *to++ = value >> 8;
    *to++ = value;
    return to;
}

static uint8_t *put_marker(uint8_t *to, int marker, int length) {
    *to++ = 0xFF;
    *to++ = marker;
    return length ? put_two(to, length) : to;
}

static uint8_t *put_application_header(j_decompress_ptr cinfo, uint8_t *to) {
    if (cinfo->jpeg_color_space == JCS_RGB) {  /* transform 0 of 3 components */
        static const uint8_t adobe[] = {'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0, 0};
        to = put_marker(to, 0xEE, 2 + sizeof adobe);
        memcpy(to, adobe, sizeof adobe);
        return to + sizeof adobe;
    }
    int said = cinfo->saw_JFIF_marker, known = said && cinfo->JFIF_major_version == 1;
    to = put_marker(to, 0xE0, 16);
    memcpy(to, "JFIF", 5);
    to += 5;
    *to++ = 1;
    *to++ = known ? cinfo->JFIF_minor_version : 1;
    *to++ = said ? cinfo->density_unit : 0;
    to = put_two(to, said ? cinfo->X_density : 1);
    to = put_two(to, said ? cinfo->Y_density : 1);
    return put_two(to, 0);  /* no thumbnail */
}

/* Put the quantisation tables out; `*deep` tells whether one has values above 255. */
static uint8_t *put_quantisation(j_decompress_ptr cinfo, uint8_t *to, int *deep) {
    int sent = 0;
    *deep = 0;
    for (int i = 0; i < cinfo->num_components; i++) {
        int number = cinfo->comp_info[i].quant_tbl_no, wide = 0;
        const UINT16 *values = cinfo->quant_tbl_ptrs[number]->quantval;
        for (int k = 0; k < DCTSIZE2; k++)
            wide |= values[k] > 255;
        *deep |= wide;
        if (sent & 1 << number)
            continue;
        sent |= 1 << number;
        to = put_marker(to, 0xDB, 3 + DCTSIZE2 * (1 + wide));
        *to++ = wide << 4 | number;
        for (int k = 0; k < DCTSIZE2; k++) {
            if (wide)
                *to++ = values[zigzag[k]] >> 8;
            *to++ = values[zigzag[k]];
        }
    }
    return to;
}

static uint8_t *put_frame(j_decompress_ptr cinfo, uint8_t *to, int deep) {
    to = put_marker(to, deep ? 0xC1 : 0xC0, 8 + 3 * cinfo->num_components);
    *to++ = 8;
    to = put_two(to, cinfo->image_height);
    to = put_two(to, cinfo->image_width);
    *to++ = cinfo->num_components;
    for (int i = 0; i < cinfo->num_components; i++) {
        const jpeg_component_info *component = &cinfo->comp_info[i];
        *to++ = component->component_id;
        *to++ = component->h_samp_factor << 4 | component->v_samp_factor;
        *to++ = component->quant_tbl_no;
    }
    return to;
}

static uint8_t *put_code_table(const struct code_table *table, uint8_t *to, int number) {
    to = put_marker(to, 0xC4, 19 + table->num_values);
    *to++ = (number & 1) << 4 | number >> 1;
    memcpy(to, table->bits + 1, 16);
    memcpy(to + 16, table->values, table->num_values);
    return to + 16 + table->num_values;
}

static uint8_t *put_scan_header(j_decompress_ptr cinfo, uint8_t *to, int interval) {
    to = put_marker(to, 0xDD, 4);
    to = put_two(to, interval);
    to = put_marker(to, 0xDA, 6 + 2 * cinfo->num_components);
    *to++ = cinfo->num_components;
    for (int i = 0; i < cinfo->num_components; i++) {
        int table = fastssd_table_of(cinfo, i);
        *to++ = cinfo->comp_info[i].component_id;
        *to++ = table << 4 | table;
    }
    *to++ = 0;
    *to++ = DCTSIZE2 - 1;
    *to++ = 0;
    return to;
}

static inline __attribute__((always_inline)) uint8_t *put_byte(uint8_t *to, uint8_t byte) {
    *to++ = byte;
    if (byte == 0xFF)
        *to++ = 0;
    return to;
}

static uint8_t *put_segment(
    const uint32_t *token, const uint32_t *end, const struct code *codes, uint8_t *to) {
    uint64_t bits = 0;
    int have = 0;
    for (; token < end; token++) {
        const struct code code = codes[*token >> 16];
        bits = bits << code.length | code.bits | (*token & 0xFFFF);
        have += code.length;
        if (have >= 32) {
            have -= 32;
            uint32_t four = bits >> have;
            if (__builtin_expect(!((~four - 0x01010101u) & four & 0x80808080u), 1)) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
                four = __builtin_bswap32(four);
#endif
                memcpy(to, &four, 4);
                to += 4;
            } else {
                for (int shift = 24; shift >= 0; shift -= 8)
                    to = put_byte(to, four >> shift);
            }
        }
    }
    for (; have >= 8; have -= 8)
        to = put_byte(to, bits >> (have - 8));
    if (have) /* the last byte is filled up with ones */
        to = put_byte(to, bits << (8 - have) | 0xFF >> have);
    return to;
}

/* Bytes of a segment and its marker at most: a token has 27 bits, and every byte may be FF and need
   another. */
static size_t most_bytes(const uint32_t *token, const uint32_t *end) {
    return (size_t)(end - token) * 8 + 16;
}

int fastssd_write_scan(
    j_decompress_ptr cinfo, struct fastssd_tokens *tokens, int interval,
    struct fastssd_bytes *out) {
    struct code codes[4 * 256];
    struct code_table tables[4];
    if (!fastssd_bytes_reserve(out, 1 << 13))
        return 0;
    uint8_t *to = out->start + out->used;
    to = put_marker(to, 0xD8, 0);
    to = put_application_header(cinfo, to);
    int deep, sent = 0;
    to = put_quantisation(cinfo, to, &deep);
    to = put_frame(cinfo, to, deep);
    for (int i = 0; i < cinfo->num_components; i++) {
        int table = fastssd_table_of(cinfo, i);
        for (int number = 2 * table; number < 2 * table + 2 && !(sent & 1 << table); number++) {
            make_code_table(tokens->counts + 256 * number, &tables[number]);
            make_codes(&tables[number], codes + 256 * number);
            to = put_code_table(&tables[number], to, number);
        }
        sent |= 1 << table;
    }
    to = put_scan_header(cinfo, to, interval);
    out->used = to - out->start;
    const uint32_t *token = tokens->tokens;
    for (size_t i = 0; i < tokens->num_segments; i++) {
        const uint32_t *end = tokens->tokens + tokens->segments[i];
        if (!fastssd_bytes_reserve(out, most_bytes(token, end)))
            return 0;
        to = put_segment(token, end, codes, out->start + out->used);
        int last = i + 1 == tokens->num_segments;
        to = put_marker(to, last ? JPEG_EOI : 0xD0 + (i & 7), 0);
        out->used = to - out->start;
        token = end;
    }
    return 1;
}
