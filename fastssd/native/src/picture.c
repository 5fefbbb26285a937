#include "picture.h"

#include <string.h>

#include "clones.h"

/* The arithmetic of libjpeg's fancy upsampling and of its colour conversion, bit for bit. */

#define MARGIN 32 /* bytes behind a row that may be overwritten */

/* 3 * near + far of `count` samples: a column of chroma between two rows, times 4. */
FASTSSD_CLONES_AVX2 static void between_rows(const uint8_t *restrict near,
                                             const uint8_t *restrict far, int count,
                                             int16_t *restrict sums) {
    for (int i = 0; i < count; i++)
        sums[i] = (int16_t)(3 * near[i] + far[i]);
}

FASTSSD_CLONES_AVX2 static void widen_sums(const int16_t *restrict sums, int count,
                                           uint8_t *restrict to) {
    for (int i = 0; i < count; i++) {
        to[2 * i] = (uint8_t)((3 * sums[i] + sums[i - 1] + 8) >> 4);
        to[2 * i + 1] = (uint8_t)((3 * sums[i] + sums[i + 1] + 7) >> 4);
    }
}

FASTSSD_CLONES_AVX2 static void widen_samples(const int16_t *restrict samples, int count,
                                              uint8_t *restrict to) {
    for (int i = 0; i < count; i++) {
        to[2 * i] = (uint8_t)((3 * samples[i] + samples[i - 1] + 1) >> 2);
        to[2 * i + 1] = (uint8_t)((3 * samples[i] + samples[i + 1] + 2) >> 2);
    }
}

static inline uint8_t clamp(int value) {
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static void colours_plain(const uint8_t *luma, const uint8_t *cb, const uint8_t *cr, int count,
                          uint8_t *to, int64_t plane) {
    for (int i = 0; i < count; i++) {
        int y = luma[i], b = cb[i] - 128, r = cr[i] - 128;
        to[i] = clamp(y + ((91881 * r + 32768) >> 16));
        to[plane + i] = clamp(y + ((-22554 * b - 46802 * r + 32768) >> 16));
        to[2 * plane + i] = clamp(y + ((116130 * b + 32768) >> 16));
    }
}

#if defined(__x86_64__)
#include <immintrin.h>

/* Half of a 16 x 16 bit product's upper half, rounded: value * factor / 131072. */
__attribute__((target("avx2"))) static inline __m256i scaled(__m256i value, int factor) {
    __m256i product = _mm256_mulhi_epi16(value, _mm256_set1_epi16((short)factor));
    return _mm256_srai_epi16(_mm256_add_epi16(product, _mm256_set1_epi16(1)), 1);
}

/* Sixteen pixels at a time; reads and writes up to 15 behind the last. */
__attribute__((target("avx2"))) static void colours_avx2(const uint8_t *luma, const uint8_t *cb,
                                                         const uint8_t *cr, int count, uint8_t *to,
                                                         int64_t plane) {
    const __m256i centre = _mm256_set1_epi16(128);
    /* -0.34414 and 1 - 0.71414, so that both fit into 16 bits; the 1 is taken off after. */
    const __m256i green_factors = _mm256_set1_epi32((int)((uint32_t)18734 << 16 | (uint16_t)-22554));
    const __m256i half = _mm256_set1_epi32(32768);
    for (int i = 0; i < count; i += 16) {
        __m256i y = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(luma + i)));
        __m256i b = _mm256_sub_epi16(
            _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(cb + i))), centre);
        __m256i r = _mm256_sub_epi16(
            _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(cr + i))), centre);
        __m256i b2 = _mm256_add_epi16(b, b), r2 = _mm256_add_epi16(r, r);
        __m256i red = _mm256_add_epi16(_mm256_add_epi16(y, r), scaled(r2, 26345));
        __m256i blue = _mm256_add_epi16(_mm256_add_epi16(y, b2), scaled(b2, -14942));
        __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi16(b, r), green_factors);
        __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi16(b, r), green_factors);
        low = _mm256_srai_epi32(_mm256_add_epi32(low, half), 16);
        high = _mm256_srai_epi32(_mm256_add_epi32(high, half), 16);
        __m256i green = _mm256_sub_epi16(_mm256_packs_epi32(low, high), r);
        green = _mm256_add_epi16(y, green);
        __m256i red_green = _mm256_packus_epi16(red, green);
        red_green = _mm256_permute4x64_epi64(red_green, 0xD8);
        __m256i blues = _mm256_permute4x64_epi64(_mm256_packus_epi16(blue, blue), 0xD8);
        _mm_storeu_si128((__m128i *)(to + i), _mm256_castsi256_si128(red_green));
        _mm_storeu_si128((__m128i *)(to + plane + i), _mm256_extracti128_si256(red_green, 1));
        _mm_storeu_si128((__m128i *)(to + 2 * plane + i), _mm256_castsi256_si128(blues));
    }
}
#endif

static void colours(const uint8_t *luma, const uint8_t *cb, const uint8_t *cr, int count,
                    uint8_t *to, int64_t plane, int plain) {
#if defined(__x86_64__)
    if (!plain && __builtin_cpu_supports("avx2")) {
        colours_avx2(luma, cb, cr, count, to, plane);
        return;
    }
#else
    (void)plain;
#endif
    colours_plain(luma, cb, cr, count, to, plane);
}

static const uint8_t *sample_at(const struct fastssd_plane *plane, int x, int y) {
    return plane->samples + (int64_t)(y - plane->y0) * plane->stride + (x - plane->x0);
}

/* Upsample a row of chroma; the sample of pixel x0 & ~1 comes to to[0].

   At the image's borders libjpeg repeats the last row and column, which gives the outermost
   sample itself; it does not interpolate images of one or two chroma columns at all. */
static void upsample(const struct fastssd_picture *picture, const struct fastssd_plane *plane,
                     int y, int x0, int x1, int16_t *sums, uint8_t *to) {
    int width = picture->half_x ? (picture->width + 1) / 2 : picture->width;
    int height = picture->half_y ? (picture->height + 1) / 2 : picture->height;
    int row = picture->half_y ? y / 2 : y;
    int first = x0 / 2, last = (x1 + 1) / 2; /* chroma columns */
    if (width <= 2) {
        const uint8_t *from = sample_at(plane, first, row);
        for (int i = 0; i < last - first; i++)
            to[2 * i] = to[2 * i + 1] = from[i];
        return;
    }
    int begin = first > 0 ? first - 1 : 0, end = last < width ? last + 1 : width;
    int16_t *at = sums + 1 + (begin - (first - 1)); /* sums[1] belongs to column first - 1 */
    const uint8_t *near = sample_at(plane, begin, row);
    if (picture->half_y) {
        int other = y & 1 ? row + 1 : row - 1;
        other = other < 0 ? 0 : other >= height ? height - 1 : other;
        between_rows(near, sample_at(plane, begin, other), end - begin, at);
    } else {
        for (int i = 0; i < end - begin; i++)
            at[i] = near[i];
    }
    int16_t *own = sums + 2; /* of column `first` */
    if (first == 0)
        own[-1] = own[0];
    if (last == width)
        own[last - first] = own[last - first - 1];
    if (picture->half_y)
        widen_sums(own, last - first, to);
    else
        widen_samples(own, last - first, to);
}

int fastssd_picture_row(struct fastssd_scratch *scratch, const struct fastssd_picture *picture,
                        int y, int x0, int x1, uint8_t *to, int64_t plane, int plain) {
    const uint8_t *luma = sample_at(&picture->planes[0], x0, y);
    int count = x1 - x0;
    if (picture->num_planes == 1) {
        for (int c = 0; c < 3; c++)
            memcpy(to + c * plane, luma, (size_t)count);
        return 1;
    }
    if (!picture->half_x) {
        colours(luma, sample_at(&picture->planes[1], x0, y), sample_at(&picture->planes[2], x0, y),
                count, to, plane, plain);
        return 1;
    }
    size_t width = (size_t)count + 2 * MARGIN; /* of an upsampled row */
    uint8_t *room = fastssd_room(scratch, FASTSSD_ROOM_CHROMA,
                                 2 * width + (width + MARGIN) * sizeof(int16_t));
    if (!room)
        return 0;
    int16_t *sums = (int16_t *)(room + 2 * width);
    upsample(picture, &picture->planes[1], y, x0, x1, sums, room);
    upsample(picture, &picture->planes[2], y, x0, x1, sums, room + width);
    colours(luma, room + (x0 & 1), room + width + (x0 & 1), count, to, plane, plain);
    return 1;
}
