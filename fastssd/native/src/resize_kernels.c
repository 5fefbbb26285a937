#include "resize_kernels.h"

#include <string.h>

#define BLOCK FASTSSD_BLOCK
#define WIDE_TAPS 64 /* from here on a sum of cut products could lose half a grey level */

static inline uint16_t high(uint16_t a, uint16_t b) { return (uint16_t)((uint32_t)a * b >> 16); }

static void vertical_plain(const struct fastssd_vertical *pass, uint16_t *columns) {
    for (int r = 0; r < BLOCK; r++)
        for (int slot = 0; slot < pass->slots; slot++) {
            uint16_t sum = (uint16_t)(pass->num_taps / 2);
            for (int k = 0; k < pass->num_taps; k++) {
                int at = r * pass->num_taps + k;
                sum += high((uint16_t)(pass->rows[at][slot] << 8), pass->taps[at]);
            }
            columns[(size_t)slot * BLOCK + r] = sum;
        }
}

static void horizontal_plain(const struct fastssd_horizontal *pass, const uint16_t *columns) {
    int num_taps = pass->weights->num_taps;
    for (int x = 0; x < pass->size; x++)
        for (int channel = 0; channel < 3; channel++) {
            const uint16_t *taps = pass->weights->taps + (size_t)x * num_taps;
            size_t slot =
                (size_t)pass->weights->first[x] * pass->pixel + (size_t)channel * pass->channel;
            for (int r = 0; r < BLOCK; r++) {
                const uint16_t *column = columns + slot * BLOCK + r;
                uint32_t sum;
                if (num_taps < WIDE_TAPS) {
                    uint16_t cut = (uint16_t)(num_taps / 2 + 128);
                    for (int k = 0; k < num_taps; k++)
                        cut += high(column[(size_t)k * pass->pixel * BLOCK], taps[k]);
                    sum = cut;
                } else {
                    sum = 0;
                    for (int k = 0; k < num_taps; k++)
                        sum += (uint32_t)column[(size_t)k * pass->pixel * BLOCK] * taps[k];
                    sum = (sum >> 16) + 128;
                }
                if (pass->out[r])
                    pass->out[r][3 * x + channel] = (uint8_t)(sum >> 8);
            }
        }
}

void fastssd_wide_add(uint32_t *sums, const uint8_t *row, uint16_t tap, int slots) {
    for (int slot = 0; slot < slots; slot++)
        sums[slot] += (uint32_t)row[slot] * tap;
}

void fastssd_wide_finish(const uint32_t *sums, int slots, int row, uint16_t *columns) {
    for (int slot = 0; slot < slots; slot++)
        columns[(size_t)slot * BLOCK + row] = (uint16_t)((sums[slot] + 128) >> 8);
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

/* From eight vectors, each eight values of a row and as many of the row eight below, to eight
   columns of sixteen rows. */
AVX2 static inline void store_columns(const uint16_t (*rows)[BLOCK], int half, uint16_t *columns) {
    __m256i a[8], b[8];
    for (int r = 0; r < 8; r++) {
        __m128i above = _mm_load_si128((const __m128i *)(rows[r] + half));
        __m128i below = _mm_load_si128((const __m128i *)(rows[r + 8] + half));
        a[r] = _mm256_inserti128_si256(_mm256_castsi128_si256(above), below, 1);
    }
    for (int i = 0; i < 4; i++) {
        b[2 * i] = _mm256_unpacklo_epi16(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm256_unpackhi_epi16(a[2 * i], a[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            a[4 * i + 2 * j] = _mm256_unpacklo_epi32(b[4 * i + j], b[4 * i + 2 + j]);
            a[4 * i + 2 * j + 1] = _mm256_unpackhi_epi32(b[4 * i + j], b[4 * i + 2 + j]);
        }
    for (int j = 0; j < 4; j++) {
        __m256i *to = (__m256i *)(columns + (size_t)2 * j * BLOCK);
        _mm256_store_si256(to, _mm256_unpacklo_epi64(a[j], a[4 + j]));
        _mm256_store_si256(to + 1, _mm256_unpackhi_epi64(a[j], a[4 + j]));
    }
}

AVX2 static inline void vertical_taps(const struct fastssd_vertical *pass, const __m256i *taps,
                                      int num_taps, uint16_t *columns) {
    const __m256i start = _mm256_set1_epi16((short)(num_taps / 2));
    for (int slot = 0; slot < pass->slots; slot += 16) {
        uint16_t block[BLOCK][BLOCK] __attribute__((aligned(32)));
        for (int r = 0; r < BLOCK; r++) {
            __m256i sum = start;
            for (int k = 0; k < num_taps; k++) {
                int at = r * num_taps + k;
                const __m128i *from = (const __m128i *)(pass->rows[at] + slot);
                __m256i value = _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(from)), 8);
                sum = _mm256_add_epi16(sum, _mm256_mulhi_epu16(value, taps[at]));
            }
            _mm256_store_si256((__m256i *)block[r], sum);
        }
        store_columns((const uint16_t(*)[BLOCK])block, 0, columns + (size_t)slot * BLOCK);
        store_columns((const uint16_t(*)[BLOCK])block, 8, columns + (size_t)(slot + 8) * BLOCK);
    }
}

AVX2 static void vertical_avx2(const struct fastssd_vertical *pass, uint16_t *columns) {
    __m256i taps[BLOCK * FASTSSD_MAX_TAPS];
    for (int i = 0; i < BLOCK * pass->num_taps; i++)
        taps[i] = _mm256_set1_epi16((short)pass->taps[i]);
    /* A count that the compiler knows: the loop over the taps is laid out straight. */
    switch (pass->num_taps) {
    case 2: vertical_taps(pass, taps, 2, columns); break;
    case 3: vertical_taps(pass, taps, 3, columns); break;
    case 4: vertical_taps(pass, taps, 4, columns); break;
    case 5: vertical_taps(pass, taps, 5, columns); break;
    default: vertical_taps(pass, taps, pass->num_taps, columns);
    }
}

/* From sixteen columns of sixteen values below 256 to sixteen bytes of each of sixteen rows. */
AVX2 static inline void store_rows(const __m256i *column, uint8_t *const *to, int at, int count) {
    __m256i p[8], t[8], u[8], w[8];
    for (int j = 0; j < 8; j++)
        p[j] = _mm256_packus_epi16(column[j], column[j + 8]);
    for (int j = 0; j < 4; j++) {
        t[j] = _mm256_unpacklo_epi8(p[2 * j], p[2 * j + 1]);
        t[4 + j] = _mm256_unpackhi_epi8(p[2 * j], p[2 * j + 1]);
    }
    for (int j = 0; j < 4; j++) {
        u[2 * j] = _mm256_unpacklo_epi16(t[2 * j], t[2 * j + 1]);
        u[2 * j + 1] = _mm256_unpackhi_epi16(t[2 * j], t[2 * j + 1]);
    }
    for (int j = 0; j < 2; j++) {
        w[4 * j] = _mm256_unpacklo_epi32(u[4 * j], u[4 * j + 2]);
        w[4 * j + 1] = _mm256_unpackhi_epi32(u[4 * j], u[4 * j + 2]);
        w[4 * j + 2] = _mm256_unpacklo_epi32(u[4 * j + 1], u[4 * j + 3]);
        w[4 * j + 3] = _mm256_unpackhi_epi32(u[4 * j + 1], u[4 * j + 3]);
    }
    for (int r = 0; r < 8; r++) {
        __m256i pair = r & 1 ? _mm256_unpackhi_epi64(w[r / 2], w[4 + r / 2])
                             : _mm256_unpacklo_epi64(w[r / 2], w[4 + r / 2]);
        __m128i half[2] = {_mm256_castsi256_si128(pair), _mm256_extracti128_si256(pair, 1)};
        for (int i = 0; i < 2; i++) {
            uint8_t *row = to[r + 8 * i];
            if (row && count == 16)
                _mm_storeu_si128((__m128i *)(row + at), half[i]);
            else if (row)
                memcpy(row + at, &half[i], (size_t)count);
        }
    }
}

AVX2 static inline void horizontal_taps(const struct fastssd_horizontal *pass,
                                        const uint16_t *columns, int num_taps) {
    const __m256i start = _mm256_set1_epi16((short)(num_taps / 2 + 128));
    for (int x0 = 0; x0 < pass->size; x0 += 16) {
        __m256i block[48];
        int count = pass->size - x0 < 16 ? pass->size - x0 : 16;
        for (int x = 0; x < count; x++) {
            const uint16_t *taps = pass->weights->taps + (size_t)(x0 + x) * num_taps;
            const __m256i *from =
                (const __m256i *)columns + (size_t)pass->weights->first[x0 + x] * pass->pixel;
            __m256i red = start, green = start, blue = start;
            for (int k = 0; k < num_taps; k++) {
                __m256i tap = _mm256_set1_epi16((short)taps[k]);
                const __m256i *at = from + (size_t)k * pass->pixel;
                red = _mm256_add_epi16(red, _mm256_mulhi_epu16(at[0], tap));
                green = _mm256_add_epi16(green, _mm256_mulhi_epu16(at[pass->channel], tap));
                blue = _mm256_add_epi16(blue, _mm256_mulhi_epu16(at[2 * pass->channel], tap));
            }
            block[3 * x] = _mm256_srli_epi16(red, 8);
            block[3 * x + 1] = _mm256_srli_epi16(green, 8);
            block[3 * x + 2] = _mm256_srli_epi16(blue, 8);
        }
        for (int i = 3 * count; i < 48; i++)
            block[i] = _mm256_setzero_si256();
        for (int i = 0; i < 3 * count; i += 16) {
            int left = 3 * count - i;
            store_rows(block + i, pass->out, 3 * x0 + i, left < 16 ? left : 16);
        }
    }
}

AVX2 static void horizontal_avx2(const struct fastssd_horizontal *pass, const uint16_t *columns) {
    switch (pass->weights->num_taps) {
    case 2: horizontal_taps(pass, columns, 2); break;
    case 3: horizontal_taps(pass, columns, 3); break;
    case 4: horizontal_taps(pass, columns, 4); break;
    case 5: horizontal_taps(pass, columns, 5); break;
    default: horizontal_taps(pass, columns, pass->weights->num_taps);
    }
}

void fastssd_vertical(const struct fastssd_vertical *pass, uint16_t *columns, int plain) {
    if (plain || !__builtin_cpu_supports("avx2"))
        vertical_plain(pass, columns);
    else
        vertical_avx2(pass, columns);
}

void fastssd_horizontal(const struct fastssd_horizontal *pass, const uint16_t *columns, int plain) {
    if (plain || pass->weights->num_taps >= WIDE_TAPS || !__builtin_cpu_supports("avx2"))
        horizontal_plain(pass, columns);
    else
        horizontal_avx2(pass, columns);
}

#else

void fastssd_vertical(const struct fastssd_vertical *pass, uint16_t *columns, int plain) {
    (void)plain;
    vertical_plain(pass, columns);
}

void fastssd_horizontal(const struct fastssd_horizontal *pass, const uint16_t *columns, int plain) {
    (void)plain;
    horizontal_plain(pass, columns);
}

#endif
