#include "weights.h"

#include <math.h>
#include <string.h>

#define ONE 65536.0

static int most_taps(int64_t length, int scale, int size) {
    double step = (double)length / scale / size;
    return 2 * (int)ceil(step > 1 ? step : 1) + 1;
}

size_t fastssd_weights_bytes(int64_t length, int scale, int size) {
    size_t taps = (size_t)most_taps(length, scale, size);
    /* As doubles for one output, then as numbers for all. */
    return taps * sizeof(double) + (size_t)size * (sizeof(int) + taps * sizeof(uint16_t));
}

/* The exact taps of one output; returns how many, from *first on. */
static int exact_taps(double centre, double support, int count, double *taps, int *first) {
    double low = centre - support + 0.5, high = centre + support + 0.5;
    int begin = low > 0 ? (int)low : 0;
    int end = high < count ? (int)high : count;
    double sum = 0;
    int num = 0;
    for (int i = begin; i < end; i++) {
        double distance = fabs(i + 0.5 - centre) / support;
        double weight = distance < 1 ? 1 - distance : 0;
        if (num == 0 && weight == 0) {
            begin = i + 1;
            continue;
        }
        taps[num++] = weight;
        sum += weight;
    }
    while (num > 0 && taps[num - 1] == 0)
        num--;
    if (num == 0) { /* the border lies on a pixel's centre: that pixel */
        begin = (int)centre < count ? (int)centre : count - 1;
        taps[num++] = sum = 1;
    }
    for (int k = 0; k < num; k++)
        taps[k] /= sum;
    *first = begin;
    return num;
}

/* Round taps so that they sum to one, as far as 16 bits hold it. */
static void round_taps(const double *exact, int num, uint16_t *taps) {
    int rest = (int)ONE, largest = 0;
    for (int k = 0; k < num; k++) {
        int value = (int)(exact[k] * ONE + 0.5);
        if (exact[k] > exact[largest])
            largest = k;
        taps[k] = (uint16_t)(value < 65535 ? value : 65535);
        rest -= taps[k];
    }
    if (rest >= -taps[largest] && rest <= taps[largest]) {
        int value = taps[largest] + rest;
        taps[largest] = (uint16_t)(value < 65535 ? value : 65535);
        return;
    }
    /* Thousands of small taps, whose errors add up: round the sums of the first ones instead. */
    double sum = 0;
    for (int k = 0, before = 0; k < num; k++) {
        sum += exact[k];
        int here = k + 1 < num ? (int)(sum * ONE + 0.5) : (int)ONE;
        taps[k] = (uint16_t)(here - before);
        before = here;
    }
}

void fastssd_weights_fill(struct fastssd_weights *weights, void *room, int64_t start,
                          int64_t length, int scale, int count, int size) {
    double step = (double)length / scale / size;
    double support = step > 1 ? step : 1;
    double offset = (double)(start % scale) / scale; /* a scaled box lies within the image */
    int most = most_taps(length, scale, size);
    if (scale == 1)
        offset = 0;
    double *exact = room;
    weights->first = (int *)(exact + most);
    weights->taps = (uint16_t *)(weights->first + size);
    memset(weights->taps, 0, (size_t)size * most * sizeof(uint16_t));
    int num_taps = 1;
    for (int i = 0; i < size; i++) {
        int num = exact_taps(offset + (i + 0.5) * step, support, count, exact, &weights->first[i]);
        round_taps(exact, num, weights->taps + (size_t)i * most);
        if (num > num_taps)
            num_taps = num;
    }
    /* Close up the table; at the far border the taps move so that all of them are in the image. */
    weights->num_taps = num_taps;
    for (int i = 0; i < size; i++) {
        uint16_t *taps = weights->taps + (size_t)i * num_taps;
        int shift = weights->first[i] + num_taps - count;
        if (shift < 0)
            shift = 0;
        memmove(taps + shift, weights->taps + (size_t)i * most,
                (size_t)(num_taps - shift) * sizeof(uint16_t));
        memset(taps, 0, (size_t)shift * sizeof(uint16_t));
        weights->first[i] -= shift;
    }
}
