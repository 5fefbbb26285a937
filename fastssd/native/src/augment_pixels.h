/* What happens to the pixels of a strip of rows: planes of floats in [0, 1], in cache.

   Every function is inlined into its caller and so compiled for each processor that the caller is
   cloned for. What pads a strip's rows is zero until a contrast. */
#ifndef FASTSSD_AUGMENT_PIXELS_H
#define FASTSSD_AUGMENT_PIXELS_H

#include <stddef.h>
#include <stdint.h>

#define FASTSSD_LANES 16
#define FASTSSD_ROW_UNIT (2 * FASTSSD_LANES) /* rows of planes are padded to a multiple of it */
#define INLINED static inline __attribute__((always_inline))

/* Cloning needs the dynamic linker to choose among the clones. */
#if defined(__x86_64__) && defined(__GLIBC__) && __GNUC__ >= 12 && !defined(__clang__) \
    && !defined(FASTSSD_ONE_CLONE)
#define FOR_EACH_PROCESSOR \
    __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

/* Columns of the factors, and the numbers that an order consists of. */
enum { BRIGHTNESS, CONTRAST, SATURATION, HUE };

struct strip {
    float *restrict red, *restrict green, *restrict blue;
};

/* Written as the processors' own least and greatest are defined. */
INLINED float clamped(float value) {
    value = value > 0.0f ? value : 0.0f;
    return value < 1.0f ? value : 1.0f;
}

/* ITU-R BT.601 as torchvision rounds it. */
INLINED float luma(float red, float green, float blue) {
    return 0.2989f * red + 0.587f * green + 0.114f * blue;
}

INLINED float blended(float base, float factor, float value) {
    return clamped(base + factor * (value - base));
}

INLINED void brighten(struct strip s, ptrdiff_t length, float factor) {
    for (ptrdiff_t i = 0; i < length; i++) {
        s.red[i] = clamped(factor * s.red[i]);
        s.green[i] = clamped(factor * s.green[i]);
        s.blue[i] = clamped(factor * s.blue[i]);
    }
}

INLINED void contrast(struct strip s, ptrdiff_t length, float factor, float mean) {
    for (ptrdiff_t i = 0; i < length; i++) {
        s.red[i] = blended(mean, factor, s.red[i]);
        s.green[i] = blended(mean, factor, s.green[i]);
        s.blue[i] = blended(mean, factor, s.blue[i]);
    }
}

INLINED void saturate(struct strip s, ptrdiff_t length, float factor) {
    for (ptrdiff_t i = 0; i < length; i++) {
        float grey = luma(s.red[i], s.green[i], s.blue[i]);
        s.red[i] = blended(grey, factor, s.red[i]);
        s.green[i] = blended(grey, factor, s.green[i]);
        s.blue[i] = blended(grey, factor, s.blue[i]);
    }
}

INLINED float magnitude(float value) { return value < 0.0f ? -value : value; }

/* Turn the colours around the HSV circle; `shift` is in sixths of it, within 3. */
INLINED void turn_hue(struct strip s, ptrdiff_t length, float shift) {
    for (ptrdiff_t i = 0; i < length; i++) {
        float red = s.red[i], green = s.green[i], blue = s.blue[i];
        float high = red > green ? red : green, low = red < green ? red : green;
        high = high > blue ? high : blue;
        low = low < blue ? low : blue;
        float spread = high - low;
        float inverse = 1.0f / (spread > 1e-12f ? spread : 1e-12f);
        /* 0 is red, 2 green, 4 blue: of the largest channel, the others pull to either side. */
        float above_red = (green - blue) * inverse;
        float above_green = (blue - red) * inverse + 2.0f;
        float above_blue = (red - green) * inverse + 4.0f;
        float hue = high == green ? above_green : above_blue;
        hue = (high == red ? above_red : hue) + shift;
        hue = hue < 0.0f ? hue + 6.0f : hue;
        hue = hue >= 6.0f ? hue - 6.0f : hue;
        /* A channel falls short of the largest by the spread times its distance from its third. */
        s.red[i] = high - spread * clamped(2.0f - magnitude(hue - 3.0f));
        s.green[i] = high - spread * clamped(magnitude(hue - 2.0f) - 1.0f);
        s.blue[i] = high - spread * clamped(magnitude(hue - 4.0f) - 1.0f);
    }
}

/* Return the sum of a strip's greys, always added up in the same order. */
INLINED double sum_of_greys(struct strip s, ptrdiff_t length) {
    float lanes[FASTSSD_LANES] = {0};
    for (ptrdiff_t i = 0; i < length; i += FASTSSD_LANES)
        for (int lane = 0; lane < FASTSSD_LANES; lane++)
            lanes[lane] += luma(s.red[i + lane], s.green[i + lane], s.blue[i + lane]);
    double sum = 0;
    for (int lane = 0; lane < FASTSSD_LANES; lane++)
        sum += lanes[lane];
    return sum;
}

INLINED void reverse(float *restrict to, const float *restrict from, ptrdiff_t length) {
    for (ptrdiff_t i = 0; i < length; i++)
        to[i] = from[length - 1 - i];
}

INLINED void split(struct strip s, const uint8_t *restrict bytes, ptrdiff_t side) {
    for (ptrdiff_t i = 0; i < side; i++) {
        s.red[i] = bytes[3 * i] * (1.0f / 255.0f);
        s.green[i] = bytes[3 * i + 1] * (1.0f / 255.0f);
        s.blue[i] = bytes[3 * i + 2] * (1.0f / 255.0f);
    }
}

/* Make planes of a row of `side` bytes RGB, the last pixel first where it is flipped, and zero the
   rest of the row's `stride`. `spare` holds three such rows. */
INLINED void load_row(struct strip s, const uint8_t *bytes, ptrdiff_t side, ptrdiff_t stride,
                      int flip, float *spare) {
    if (flip) {
        struct strip straight = {spare, spare + stride, spare + 2 * stride};
        split(straight, bytes, side);
        reverse(s.red, straight.red, side);
        reverse(s.green, straight.green, side);
        reverse(s.blue, straight.blue, side);
    } else {
        split(s, bytes, side);
    }
    for (ptrdiff_t i = side; i < stride; i++)
        s.red[i] = s.green[i] = s.blue[i] = 0.0f;
}

/* Write a row of `side` normalised pixels RGB. */
INLINED void write_row(struct strip s, float *restrict out, ptrdiff_t side, const float *scale,
                       const float *shift) {
    for (ptrdiff_t i = 0; i < side; i++) {
        out[3 * i] = s.red[i] * scale[0] + shift[0];
        out[3 * i + 1] = s.green[i] * scale[1] + shift[1];
        out[3 * i + 2] = s.blue[i] * scale[2] + shift[2];
    }
}

#endif
