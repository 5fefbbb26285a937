/* No pixel is ever a NaN or an infinity, and nobody looks at floating-point flags: without these
   promises the compiler makes branches of what is a maximum. Sums keep their order. */
#ifndef __clang__ /* has no such switch */
#pragma GCC optimize("no-trapping-math", "finite-math-only", "no-signed-zeros")
#endif

#include "augment.h"

#include "augment_blur.h"
#include "augment_pixels.h"
#include "pool.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#define MAX_STEPS 5       /* four of the jitter, and grayscale */
#define STRIP_PIXELS 1024 /* of which three planes stay in the nearest cache */
#define BLUR_ROWS 4
#define TURN_TILE 16
#define MIRRORED_BYTES 4096
/* Fewer are done before another thread has woken; of images that are only flipped, four times so
   many. Beside busy loader threads a helper costs more than it does. */
#define THREAD_PIXELS ((int64_t)1 << 16)
#define FLIPPED_THREAD_PIXELS (4 * THREAD_PIXELS)
#define HUGE_PAGE ((uintptr_t)2 << 20)

struct step {
    int operation;
    float factor;
};

struct scratch {
    atomic_flag taken;
    float *planes, *spare, *rows, *padded_row, *weights;
};

struct batch {
    const struct fastssd_augmentation *job;
    ptrdiff_t stride, strip_rows;
    struct scratch *scratch;
};

/* Return an image's steps that change anything. */
static int steps_of(struct step *steps, const struct fastssd_augmentation *job, int64_t image) {
    int num = 0;
    for (int64_t i = 0; job->jitter && i < job->num_steps; i++) {
        int64_t operation = job->order[image * job->num_steps + i];
        float factor = job->jitter[image * job->num_steps + operation];
        if (factor != (operation == HUE ? 0.0f : 1.0f))
            steps[num++] = (struct step){(int)operation, operation == HUE ? 6 * factor : factor};
    }
    if (job->grayscale && job->grayscale[image])
        steps[num++] = (struct step){SATURATION, 0.0f};
    return num;
}

INLINED void apply(struct strip s, ptrdiff_t length, const struct step *steps, int num, float mean) {
    for (int i = 0; i < num; i++)
        switch (steps[i].operation) {
        case BRIGHTNESS: brighten(s, length, steps[i].factor); break;
        case CONTRAST: contrast(s, length, steps[i].factor, mean); break;
        case SATURATION: saturate(s, length, steps[i].factor); break;
        default: turn_hue(s, length, steps[i].factor);
        }
}

INLINED struct strip rows_from(float *planes, ptrdiff_t plane, ptrdiff_t offset) {
    return (struct strip){planes + offset, planes + plane + offset, planes + 2 * plane + offset};
}

/* Colour an image's bytes: into its planes where `keep`, else finished. */
INLINED void colour(const struct batch *batch, int64_t image, struct scratch *scratch, int keep,
                    const struct step *steps, int num) {
    const struct fastssd_augmentation *job = batch->job;
    ptrdiff_t side = job->side, stride = batch->stride, plane = side * stride;
    const uint8_t *bytes = job->pixels + image * side * side * 3;
    float *out = job->finished + image * side * side * 3;
    int flip = job->flip && job->flip[image], first = 0;
    while (first < num && steps[first].operation != CONTRAST)
        first++;
    /* What follows a contrast has to wait for the mean of the whole image. */
    int waits = first < num;
    double sum = 0;
    for (ptrdiff_t y = 0; y < side; y += batch->strip_rows) {
        ptrdiff_t rows = side - y < batch->strip_rows ? side - y : batch->strip_rows;
        struct strip strip = rows_from(scratch->planes, plane, waits || keep ? y * stride : 0);
        for (ptrdiff_t row = 0; row < rows; row++)
            load_row(rows_from(strip.red, plane, row * stride), bytes + (y + row) * side * 3, side,
                     stride, flip, scratch->spare);
        apply(strip, rows * stride, steps, first, 0.0f);
        if (waits)
            sum += sum_of_greys(strip, rows * stride);
        else if (!keep)
            for (ptrdiff_t row = 0; row < rows; row++)
                write_row(rows_from(strip.red, plane, row * stride), out + (y + row) * side * 3,
                          side, job->scale, job->shift);
    }
    if (!waits)
        return;
    float mean = (float)(sum / (double)(side * side));
    for (ptrdiff_t y = 0; y < side; y += batch->strip_rows) {
        ptrdiff_t rows = side - y < batch->strip_rows ? side - y : batch->strip_rows;
        struct strip strip = rows_from(scratch->planes, plane, y * stride);
        apply(strip, rows * stride, steps + first, num - first, mean);
        if (!keep)
            for (ptrdiff_t row = 0; row < rows; row++)
                write_row(rows_from(strip.red, plane, row * stride), out + (y + row) * side * 3,
                          side, job->scale, job->shift);
    }
}

/* Blur the planes and finish the image. */
INLINED void blur(const struct batch *batch, int64_t image, struct scratch *scratch) {
    const struct fastssd_augmentation *job = batch->job;
    ptrdiff_t side = job->side, stride = batch->stride, plane = side * stride;
    float *out = job->finished + image * side * side * 3;
    struct kernel kernel = {.weights = scratch->weights};
    make_kernel(&kernel, job->blur[image], (int)job->blur_radius);
    for (ptrdiff_t y = 0; y < side; y += BLUR_ROWS) {
        ptrdiff_t rows = side - y < BLUR_ROWS ? side - y : BLUR_ROWS;
        /* One channel at a time, so that the rows under the kernel stay in the nearest cache. */
        for (int channel = 0; channel < 3; channel++)
            for (ptrdiff_t row = 0; row < rows; row++) {
                blur_down(scratch->padded_row, scratch->planes + channel * plane, y + row, side,
                          stride, &kernel);
                blur_along(scratch->rows + (channel * BLUR_ROWS + row) * stride,
                           scratch->padded_row, side, stride, &kernel);
            }
        for (ptrdiff_t row = 0; row < rows; row++)
            write_row(rows_from(scratch->rows, BLUR_ROWS * stride, row * stride),
                      out + (y + row) * side * 3, side, job->scale, job->shift);
    }
}

#ifdef __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLES /* GCC since 12, clang */
#endif
#endif

typedef uint8_t sixteen __attribute__((vector_size(16)));

/* Mirror a row of `side` bytes RGB, five pixels at a time: as many as a shuffle of 16 bytes holds.
   The sixteenth lies before them, and is written over by what comes next. */
INLINED void mirror_row(uint8_t *restrict to, const uint8_t *restrict row, ptrdiff_t side) {
    ptrdiff_t left = side;
#ifdef SHUFFLES
    for (; left > 5; left -= 5, to += 15) {
        sixteen pixels;
        memcpy(&pixels, row + 3 * left - 16, sizeof pixels);
        pixels = __builtin_shufflevector(pixels, pixels, 13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6,
                                         1, 2, 3, 0);
        memcpy(to, &pixels, sizeof pixels);
    }
#endif
    for (; left > 0; left--, to += 3)
        memcpy(to, row + 3 * (left - 1), 3);
}

/* Finish an image that is only flipped: no planes, one pass. */
INLINED void normalise(const struct batch *batch, int64_t image, struct scratch *scratch) {
    const struct fastssd_augmentation *job = batch->job;
    ptrdiff_t side = job->side;
    const uint8_t *bytes = job->pixels + image * side * side * 3;
    float *out = job->finished + image * side * side * 3;
    float scale[48], shift[48];
    for (int i = 0; i < 48; i++) {
        scale[i] = job->scale[i % 3] / 255.0f;
        shift[i] = job->shift[i % 3];
    }
    int flip = job->flip && job->flip[image];
    /* Several rows at a time: what was just stored in other pieces is slow to load. */
    ptrdiff_t rows = MIRRORED_BYTES / (3 * side);
    rows = !flip || rows > side ? side : rows > 1 ? rows : 1;
    for (ptrdiff_t y = 0; y < side; y += rows) {
        const uint8_t *from = bytes + y * side * 3;
        float *to = out + y * side * 3;
        rows = side - y < rows ? side - y : rows;
        if (flip) {
            uint8_t *mirrored = (uint8_t *)scratch->spare;
            for (ptrdiff_t row = 0; row < rows; row++)
                mirror_row(mirrored + row * side * 3, from + row * side * 3, side);
            from = mirrored;
        }
        ptrdiff_t i = 0, length = rows * side * 3;
        for (; i + 48 <= length; i += 48)
            for (int k = 0; k < 48; k++)
                to[i + k] = from[i + k] * scale[k] + shift[k];
        for (int k = 0; i + k < length; k++)
            to[i + k] = from[i + k] * scale[k] + shift[k];
    }
}

/* Copy an image pixel by pixel, turned; in tiles, as its columns become rows. */
static void turn(float *restrict to, const float *restrict from, ptrdiff_t side, int64_t quarters) {
    /* The pixel of the upright image that comes first, and how far it is to that of the next row
       and column. */
    ptrdiff_t last = side - 1, corner, down, along;
    switch (quarters & 3) {
    case 0: memcpy(to, from, (size_t)(side * side * 3) * sizeof *to); return;
    case 1: corner = last, down = -1, along = side; break;
    case 2: corner = last * side + last, down = -side, along = -1; break;
    default: corner = last * side, down = 1, along = -side;
    }
    for (ptrdiff_t top = 0; top < side; top += TURN_TILE)
        for (ptrdiff_t left = 0; left < side; left += TURN_TILE)
            for (ptrdiff_t y = top; y < side && y < top + TURN_TILE; y++)
                for (ptrdiff_t x = left; x < side && x < left + TURN_TILE; x++)
                    memcpy(to + (y * side + x) * 3, from + (corner + y * down + x * along) * 3,
                           3 * sizeof *to);
}

FOR_EACH_PROCESSOR static void finish(const struct batch *batch, int64_t image,
                                      struct scratch *scratch) {
    const struct fastssd_augmentation *job = batch->job;
    struct step steps[MAX_STEPS];
    int num = steps_of(steps, job, image), blurs = job->blur && job->blur[image] > 0;
    if (num || blurs)
        colour(batch, image, scratch, blurs, steps, num);
    else
        normalise(batch, image, scratch);
    if (blurs)
        blur(batch, image, scratch);
    if (job->turned) {
        ptrdiff_t values = job->side * job->side * 3;
        turn(job->turned + image * values, job->finished + image * values, job->side,
             job->turns[image]);
    }
}

static void task(void *context, int image) {
    const struct batch *batch = context;
    struct scratch *scratch = batch->scratch;
    /* There are as many as threads, so one is free. */
    while (atomic_flag_test_and_set_explicit(&scratch->taken, memory_order_acquire))
        scratch++;
    finish(batch, image, scratch);
    atomic_flag_clear_explicit(&scratch->taken, memory_order_release);
}

/* A large result comes as untouched memory, and a page fault for each 4 KiB would cost as much as
   the work. */
static void ask_for_huge_pages(float *values, size_t num) {
#ifdef MADV_HUGEPAGE
    uintptr_t first = ((uintptr_t)values + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    uintptr_t end = (uintptr_t)(values + num) / HUGE_PAGE * HUGE_PAGE;
    if (values && first < end)
        madvise((void *)first, end - first, MADV_HUGEPAGE);
#endif
}

static size_t whole_lines(size_t num) {
    return (num + FASTSSD_LANES - 1) / FASTSSD_LANES * FASTSSD_LANES;
}

/* An order that names no factor would be read from elsewhere. */
static int orders_are_known(const struct fastssd_augmentation *job) {
    for (int64_t i = 0; job->jitter && i < job->num_images * job->num_steps; i++)
        if (job->order[i] < 0 || job->order[i] >= job->num_steps)
            return 0;
    return job->num_steps <= MAX_STEPS - 1;
}

int fastssd_augment(const struct fastssd_augmentation *job, int threads) {
    if (!orders_are_known(job))
        return FASTSSD_AUGMENT_ORDER;
    size_t side = (size_t)job->side, radius = (size_t)job->blur_radius;
    size_t stride = (side + FASTSSD_ROW_UNIT - 1) / FASTSSD_ROW_UNIT * FASTSSD_ROW_UNIT;
    size_t strip_rows = stride < STRIP_PIXELS ? STRIP_PIXELS / stride : 1;
    int recolours = job->jitter || job->grayscale || job->blur;
    /* Read around their ends, so each part starts a line after the one before. */
    size_t planes = recolours ? 3 * side * stride : 0;
    size_t spare = 3 * stride + MIRRORED_BYTES / sizeof(float);
    size_t rows = 3 * BLUR_ROWS * stride, before = whole_lines(radius);
    size_t padded_row = before + stride + before + FASTSSD_ROW_UNIT;
    size_t each = planes + spare + rows + padded_row + whole_lines(radius + 1);
    int64_t worth = 1 + job->num_images * job->side * job->side /
                            (recolours ? THREAD_PIXELS : FLIPPED_THREAD_PIXELS);
    if (threads > worth)
        threads = (int)worth;
    if (threads > job->num_images)
        threads = (int)job->num_images;
    if (threads < 1)
        threads = 1;
    struct scratch *scratch = calloc((size_t)threads, sizeof *scratch);
    float *memory = aligned_alloc(64, (size_t)threads * each * sizeof *memory);
    if (!scratch || !memory) {
        free(scratch);
        free(memory);
        return FASTSSD_AUGMENT_MEMORY;
    }
    memset(memory, 0, (size_t)threads * each * sizeof *memory);
    for (int i = 0; i < threads; i++) {
        float *next = memory + (size_t)i * each;
        atomic_flag_clear(&scratch[i].taken);
        scratch[i].planes = next;
        scratch[i].spare = next += planes;
        scratch[i].rows = next += spare;
        scratch[i].padded_row = (next += rows) + before;
        scratch[i].weights = next + padded_row;
    }
    size_t values = (size_t)job->num_images * side * side * 3;
    ask_for_huge_pages(job->finished, values);
    ask_for_huge_pages(job->turned, values);
    struct batch batch = {job, (ptrdiff_t)stride, (ptrdiff_t)strip_rows, scratch};
    fastssd_parallel(threads, (int)job->num_images, task, &batch);
    free(scratch);
    free(memory);
    return 0;
}
