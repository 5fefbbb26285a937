#include <string.h>

#include "baseline.h"
#include "jpeg_rules.h"

enum { SOF0 = 0xC0, SOF1 = 0xC1, DHT = 0xC4, SOS = 0xDA, DQT = 0xDB, DRI = 0xDD, DNL = 0xDC };
enum { APP0 = 0xE0, APP14 = 0xEE, APP15 = 0xEF, COM = 0xFE };

#define MAX_MCUS ((int64_t)1 << 22) /* larger images are left to libjpeg, which streams them */

/* What the segments before the scan say. */
struct header {
    struct fastssd_baseline *image;
    const uint8_t *huffman[2][4]; /* DC, AC by slot */
    int has_table[4];
    int ids[3], table_of[3], h[3], v[3];
    int has_frame, jfif, adobe; /* adobe: its transform code, -1 without */
};

static int quantisers(struct header *header, const uint8_t *at, const uint8_t *end) {
    while (at < end) {
        int wide = *at >> 4, slot = *at & 15;
        at++;
        if (wide > 1 || slot > 3 || end - at < 64 * (wide + 1))
            return 0;
        for (int i = 0; i < 64; i++, at += wide + 1)
            header->image->tables[slot][i] = (uint16_t)(wide ? at[0] << 8 | at[1] : at[0]);
        header->has_table[slot] = 1;
    }
    return 1;
}

static int huffman(struct header *header, const uint8_t *at, const uint8_t *end) {
    while (at < end) {
        int kind = *at >> 4, slot = *at & 15, symbols = 0;
        at++;
        if (kind > 1 || slot > 3 || end - at < 16)
            return 0;
        for (int i = 0; i < 16; i++)
            symbols += at[i];
        if (symbols > 256 || end - at < 16 + symbols)
            return 0;
        header->huffman[kind][slot] = at;
        at += 16 + symbols;
    }
    return 1;
}

static int frame(struct header *header, const uint8_t *at, const uint8_t *end) {
    struct fastssd_baseline *image = header->image;
    if (header->has_frame || end - at < 6 || at[0] != 8)
        return 0;
    image->height = at[1] << 8 | at[2];
    image->width = at[3] << 8 | at[4];
    image->num_components = at[5];
    if (image->height < 1 || image->width < 1 || (at[5] != 1 && at[5] != 3) ||
        end - at != 6 + 3 * at[5])
        return 0;
    for (int c = 0; c < at[5]; c++) {
        const uint8_t *component = at + 6 + 3 * c;
        header->ids[c] = component[0];
        header->h[c] = component[1] >> 4;
        header->v[c] = component[1] & 15;
        header->table_of[c] = component[2];
    }
    header->has_frame = 1;
    return 1;
}

/* As libjpeg guesses. */
static int is_ycbcr(const struct header *header) {
    const int *ids = header->ids;
    if (header->jfif)
        return 1;
    if (header->adobe >= 0)
        return header->adobe == 1;
    return ids[0] == 1 && ids[1] == 2 && ids[2] == 3;
}

static int layout(struct header *header) {
    struct fastssd_baseline *image = header->image;
    image->luma_h = image->luma_v = 1;
    if (image->num_components == 3) {
        image->luma_h = header->h[0];
        image->luma_v = header->v[0];
        for (int c = 1; c < 3; c++)
            if (header->h[c] != 1 || header->v[c] != 1)
                return 0;
        int known = image->luma_v == 1 ? image->luma_h == 1 || image->luma_h == 2
                                       : image->luma_v == 2 && image->luma_h == 2;
        if (!known || !is_ycbcr(header))
            return 0;
    } else if (header->h[0] < 1 || header->h[0] > 4 || header->v[0] < 1 || header->v[0] > 4) {
        return 0; /* of no meaning with one component, but an error */
    }
    /* libjpeg says what is wrong with one too large. */
    if (image->width > JPEG_MAX_DIMENSION || image->height > JPEG_MAX_DIMENSION ||
        (int64_t)image->width * image->height > FASTSSD_MAX_PIXELS)
        return 0;
    image->mcus_across = (image->width + 8 * image->luma_h - 1) / (8 * image->luma_h);
    image->mcus_down = (image->height + 8 * image->luma_v - 1) / (8 * image->luma_v);
    return (int64_t)image->mcus_across * image->mcus_down <= MAX_MCUS;
}

static int scan(struct header *header, const uint8_t *at, const uint8_t *end) {
    struct fastssd_baseline *image = header->image;
    int count = image->num_components;
    if (!header->has_frame || end - at != 4 + 2 * count || at[0] != count || !layout(header))
        return 0;
    for (int c = 0; c < count; c++) {
        int dc = at[2 + 2 * c] >> 4, ac = at[2 + 2 * c] & 15, table = header->table_of[c];
        if (at[1 + 2 * c] != header->ids[c] || dc > 3 || ac > 3 || table > 3)
            return 0;
        if (!header->huffman[0][dc] || !header->huffman[1][ac] || !header->has_table[table])
            return 0;
        image->dc[c] = header->huffman[0][dc];
        image->ac[c] = header->huffman[1][ac];
        image->quantisers[c] = image->tables[table];
    }
    const uint8_t *band = at + 1 + 2 * count;
    image->scan = end;
    return band[0] == 0 && band[1] == 63 && band[2] == 0;
}

int fastssd_baseline_open(struct fastssd_baseline *image, const uint8_t *content,
                          size_t num_bytes) {
    struct header header = {.image = image, .adobe = -1};
    const uint8_t *at = content + 2, *end = content + num_bytes;
    if (num_bytes < 4 || content[0] != 0xFF || content[1] != 0xD8)
        return 0;
    image->restart_interval = 0;
    image->end = end;
    while (end - at >= 4 && at[0] == 0xFF) {
        int marker = at[1], length = at[2] << 8 | at[3], fits = 1;
        if (marker == 0xFF) { /* a fill byte */
            at++;
            continue;
        }
        if (length < 2 || end - at < 2 + length)
            return 0;
        const uint8_t *payload = at + 4, *next = at + 2 + length;
        if (marker == DQT)
            fits = quantisers(&header, payload, next);
        else if (marker == DHT)
            fits = huffman(&header, payload, next);
        else if (marker == SOF0 || marker == SOF1)
            fits = frame(&header, payload, next);
        else if (marker == SOS)
            return scan(&header, payload, next);
        else if (marker == DRI && length == 4)
            image->restart_interval = payload[0] << 8 | payload[1];
        else if (marker == APP0 && length >= 16 && memcmp(payload, "JFIF", 5) == 0)
            header.jfif = 1;
        else if (marker == APP14 && length >= 14 && memcmp(payload, "Adobe", 5) == 0)
            header.adobe = payload[11];
        else if ((marker < APP0 || marker > APP15) && marker != COM)
            return 0;
        if (!fits)
            return 0;
        at = next;
    }
    return 0;
}
