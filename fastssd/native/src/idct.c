#include "idct.h"

#include <string.h>

#include "clones.h"

/* The method of Loeffler, Ligtenberg and Moschytz (ICASSP 1989), as libjpeg's jidctint.c scales
   it: constants of 13 bits, 2 more bits between the passes. */
enum { FRACTION = 13, BETWEEN = 2 };
enum {
    F_0_298 = 2446,
    F_0_390 = 3196,
    F_0_541 = 4433,
    F_0_765 = 6270,
    F_0_899 = 7373,
    F_1_175 = 9633,
    F_1_501 = 12299,
    F_1_847 = 15137,
    F_1_961 = 16069,
    F_2_053 = 16819,
    F_2_562 = 20995,
    F_3_072 = 25172
};

static inline uint8_t clamp(int value) {
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* Of a dequantised value: times 4 it has 16 bits. Where only the first row of a block is not zero,
   libjpeg's SIMD lets larger ones wrap, elsewhere not. */
#define LARGEST 8191

static inline int16_t saturate(int value) {
    return (int16_t)(value < -32768 ? -32768 : value > 32767 ? 32767 : value);
}

/* One dimension of eight values; sums of two wrap at 16 bits, as in libjpeg's SIMD. */
static void line(const int16_t in[8], int out[8]) {
    int low = (int16_t)(in[0] + in[4]) * (1 << FRACTION);
    int high = (int16_t)(in[0] - in[4]) * (1 << FRACTION);
    int c = in[2] * F_0_541 + in[6] * (F_0_541 - F_1_847);
    int s = in[2] * (F_0_541 + F_0_765) + in[6] * F_0_541;
    int even[4] = {low + s, high + c, high - c, low - s};
    int z3 = (int16_t)(in[7] + in[3]), z4 = (int16_t)(in[5] + in[1]);
    int a = z3 * (F_1_175 - F_1_961) + z4 * F_1_175;
    int b = z3 * F_1_175 + z4 * (F_1_175 - F_0_390);
    int odd[4] = {
        in[7] * -F_0_899 + in[1] * (F_1_501 - F_0_899) + b,
        in[5] * -F_2_562 + in[3] * (F_3_072 - F_2_562) + a,
        in[5] * (F_2_053 - F_2_562) + in[3] * -F_2_562 + b,
        in[7] * (F_0_298 - F_0_899) + in[1] * -F_0_899 + a,
    };
    for (int i = 0; i < 4; i++) {
        /* Only damaged coefficients overflow; they shall do so in a defined way. */
        out[i] = (int)((unsigned)even[i] + (unsigned)odd[i]);
        out[7 - i] = (int)((unsigned)even[i] - (unsigned)odd[i]);
    }
}

static void idct_plain(const int16_t in[64], uint8_t *out, int stride, int *wild) {
    int16_t between[64];
    int sums[8];
    for (int column = 0; column < 8; column++)
        *wild |= in[column] > LARGEST || in[column] < -LARGEST;
    for (int column = 0; column < 8; column++) {
        int16_t values[8];
        for (int i = 0; i < 8; i++)
            values[i] = in[8 * i + column];
        line(values, sums);
        for (int i = 0; i < 8; i++)
            between[8 * i + column] =
                saturate((sums[i] + (1 << (FRACTION - BETWEEN - 1))) >> (FRACTION - BETWEEN));
    }
    for (int row = 0; row < 8; row++) {
        line(between + 8 * row, sums);
        for (int i = 0; i < 8; i++) {
            int value = (sums[i] + (1 << (FRACTION + BETWEEN + 2))) >> (FRACTION + BETWEEN + 3);
            out[row * stride + i] = clamp(saturate(value) + 128);
        }
    }
}

void fastssd_idct_flat(int16_t coefficient, uint8_t *out, int stride, int size, int *wild) {
    int scaled = coefficient * 4;
    if (__builtin_expect(scaled != (int16_t)scaled, 0))
        *wild = 1;
    uint8_t value = clamp(((scaled + 16) >> 5) + 128);
    for (int row = 0; row < size; row++)
        memset(out + row * stride, value, (size_t)size);
}

/* Means of two neighbours of the eight-point transform, times 2^13. Coefficient 4 cancels. */
static inline void halves(const int16_t *in, int step, int out[4]) {
    int even0 = in[0] * 2896 + in[2 * step] * 2676 - in[6 * step] * 1108;
    int even1 = in[0] * 2896 - in[2 * step] * 2676 + in[6 * step] * 1108;
    int odd0 = in[step] * 3711 + in[3 * step] * 1303 - in[5 * step] * 871 - in[7 * step] * 738;
    int odd1 = in[step] * 1537 - in[3 * step] * 3146 + in[5 * step] * 2102 - in[7 * step] * 306;
    out[0] = even0 + odd0;
    out[1] = even1 + odd1;
    out[2] = even1 - odd1;
    out[3] = even0 - odd0;
}

/* Means of four. The other even coefficients cancel. */
static inline void quarters(const int16_t *in, int step, int out[2]) {
    int odd = in[step] * 2624 - in[3 * step] * 922 + in[5 * step] * 616 - in[7 * step] * 522;
    out[0] = in[0] * 2896 + odd;
    out[1] = in[0] * 2896 - odd;
}

FASTSSD_CLONES_AVX2
static void small(const int16_t *in, uint8_t *out, int stride, int size) {
    int16_t between[4][8];
    int sums[4];
    const int round1 = 1 << (FRACTION - BETWEEN - 1), round2 = 1 << (FRACTION + BETWEEN - 1);
    for (int column = 0; column < 8; column++) {
        if (size == 4)
            halves(in + column, 8, sums);
        else
            quarters(in + column, 8, sums);
        for (int i = 0; i < size; i++)
            between[i][column] = saturate((sums[i] + round1) >> (FRACTION - BETWEEN));
    }
    for (int row = 0; row < size; row++) {
        if (size == 4)
            halves(between[row], 1, sums);
        else
            quarters(between[row], 1, sums);
        for (int i = 0; i < size; i++)
            out[row * stride + i] = clamp(((sums[i] + round2) >> (FRACTION + BETWEEN)) + 128);
    }
}

void fastssd_idct_small(const int16_t coefficients[64], uint8_t *out, int stride, int size) {
    int wild;
    if (size == 1)
        fastssd_idct_flat(coefficients[0], out, stride, 1, &wild);
    else
        small(coefficients, out, stride, size);
}

/* Apart, so that the other way pays nothing for it. */
static __attribute__((noinline)) void plain_pair(const int16_t coefficients[2][64],
                                                 uint8_t *const out[2], const int stride[2],
                                                 int *wild) {
    for (int i = 0; i < 2; i++)
        idct_plain(coefficients[i], out[i], stride[i], wild);
}

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

AVX2 static inline __m256i factors(int a, int b) {
    return _mm256_set1_epi32((int)((uint32_t)(uint16_t)b << 16 | (uint16_t)a));
}

AVX2 static inline __m256i descale(__m256i low, __m256i high, int bits) {
    __m256i round = _mm256_set1_epi32(1 << (bits - 1));
    return _mm256_packs_epi32(_mm256_srai_epi32(_mm256_add_epi32(low, round), bits),
                              _mm256_srai_epi32(_mm256_add_epi32(high, round), bits));
}

/* `line` for the columns of two blocks, one in each half of the vectors. */
AVX2 static inline void lines(__m256i v[8], int bits) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i sum04 = _mm256_add_epi16(v[0], v[4]), difference04 = _mm256_sub_epi16(v[0], v[4]);
    __m256i z3 = _mm256_add_epi16(v[7], v[3]), z4 = _mm256_add_epi16(v[5], v[1]);
    __m256i even[2][4], odd[2][4];
    for (int half = 0; half < 2; half++) {
#define PAIRS(a, b) (half ? _mm256_unpackhi_epi16(a, b) : _mm256_unpacklo_epi16(a, b))
        __m256i low = _mm256_srai_epi32(PAIRS(zero, sum04), 16 - FRACTION);
        __m256i high = _mm256_srai_epi32(PAIRS(zero, difference04), 16 - FRACTION);
        __m256i p26 = PAIRS(v[2], v[6]), p34 = PAIRS(z3, z4);
        __m256i p71 = PAIRS(v[7], v[1]), p53 = PAIRS(v[5], v[3]);
#undef PAIRS
        __m256i c = _mm256_madd_epi16(p26, factors(F_0_541, F_0_541 - F_1_847));
        __m256i s = _mm256_madd_epi16(p26, factors(F_0_541 + F_0_765, F_0_541));
        even[half][0] = _mm256_add_epi32(low, s);
        even[half][1] = _mm256_add_epi32(high, c);
        even[half][2] = _mm256_sub_epi32(high, c);
        even[half][3] = _mm256_sub_epi32(low, s);
        __m256i a = _mm256_madd_epi16(p34, factors(F_1_175 - F_1_961, F_1_175));
        __m256i b = _mm256_madd_epi16(p34, factors(F_1_175, F_1_175 - F_0_390));
        __m256i t0 = _mm256_madd_epi16(p71, factors(-F_0_899, F_1_501 - F_0_899));
        __m256i t1 = _mm256_madd_epi16(p53, factors(-F_2_562, F_3_072 - F_2_562));
        __m256i t2 = _mm256_madd_epi16(p53, factors(F_2_053 - F_2_562, -F_2_562));
        __m256i t3 = _mm256_madd_epi16(p71, factors(F_0_298 - F_0_899, -F_0_899));
        odd[half][0] = _mm256_add_epi32(t0, b);
        odd[half][1] = _mm256_add_epi32(t1, a);
        odd[half][2] = _mm256_add_epi32(t2, b);
        odd[half][3] = _mm256_add_epi32(t3, a);
    }
    for (int i = 0; i < 4; i++) {
        v[i] = descale(_mm256_add_epi32(even[0][i], odd[0][i]),
                       _mm256_add_epi32(even[1][i], odd[1][i]), bits);
        v[7 - i] = descale(_mm256_sub_epi32(even[0][i], odd[0][i]),
                           _mm256_sub_epi32(even[1][i], odd[1][i]), bits);
    }
}

AVX2 static inline void exchange(__m256i v[8]) {
    __m256i a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_epi16(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_epi16(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            b[4 * i + 2 * j] = _mm256_unpacklo_epi32(a[4 * i + j], a[4 * i + 2 + j]);
            b[4 * i + 2 * j + 1] = _mm256_unpackhi_epi32(a[4 * i + j], a[4 * i + 2 + j]);
        }
    for (int j = 0; j < 4; j++) {
        v[2 * j] = _mm256_unpacklo_epi64(b[j], b[4 + j]);
        v[2 * j + 1] = _mm256_unpackhi_epi64(b[j], b[4 + j]);
    }
}

AVX2 static inline void store_two(uint8_t *out, int stride, __m128i rows) {
    _mm_storel_epi64((__m128i *)out, rows);
    _mm_storel_epi64((__m128i *)(out + stride), _mm_unpackhi_epi64(rows, rows));
}

AVX2 static void idct_avx2(const int16_t coefficients[2][64], uint8_t *const out[2],
                           const int stride[2], int *wild) {
    __m256i v[8];
    for (int i = 0; i < 8; i++)
        v[i] = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_load_si128((const __m128i *)(coefficients[0] + 8 * i))),
            _mm_load_si128((const __m128i *)(coefficients[1] + 8 * i)), 1);
    __m256i beyond = _mm256_subs_epu16(_mm256_abs_epi16(v[0]), _mm256_set1_epi16(LARGEST));
    if (__builtin_expect(!_mm256_testz_si256(beyond, beyond), 0))
        *wild = 1;
    lines(v, FRACTION - BETWEEN);
    exchange(v);
    lines(v, FRACTION + BETWEEN + 3);
    /* v[i] is column i now. */
    __m256i p[4], t[4], u[4];
    const __m256i centre = _mm256_set1_epi8((char)128);
    for (int j = 0; j < 4; j++)
        p[j] = _mm256_add_epi8(_mm256_packs_epi16(v[j], v[j + 4]), centre);
    for (int j = 0; j < 2; j++) {
        t[j] = _mm256_unpacklo_epi8(p[2 * j], p[2 * j + 1]);
        t[2 + j] = _mm256_unpackhi_epi8(p[2 * j], p[2 * j + 1]);
    }
    for (int j = 0; j < 2; j++) {
        u[2 * j] = _mm256_unpacklo_epi16(t[2 * j], t[2 * j + 1]);
        u[2 * j + 1] = _mm256_unpackhi_epi16(t[2 * j], t[2 * j + 1]);
    }
    for (int j = 0; j < 4; j++) {
        __m256i rows = j & 1 ? _mm256_unpackhi_epi32(u[j / 2], u[2 + j / 2])
                             : _mm256_unpacklo_epi32(u[j / 2], u[2 + j / 2]);
        store_two(out[0] + 2 * j * stride[0], stride[0], _mm256_castsi256_si128(rows));
        store_two(out[1] + 2 * j * stride[1], stride[1], _mm256_extracti128_si256(rows, 1));
    }
}
#endif

void fastssd_idct_pair(const int16_t coefficients[2][64], uint8_t *const out[2],
                       const int stride[2], int plain, int *wild) {
#if defined(__x86_64__)
    if (!plain && __builtin_cpu_supports("avx2")) {
        idct_avx2(coefficients, out, stride, wild);
        return;
    }
#else
    (void)plain;
#endif
    plain_pair(coefficients, out, stride, wild);
}
