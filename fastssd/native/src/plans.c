/* The loops of the samplers that NumPy would do by sorting millions of numbers. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"

#define PHILOX_BLOCKS 512 /* at a time */
#define BUCKET 8          /* images of a bucket, about: few enough for an insertion sort */

void fastssd_philox(const uint32_t *counters, int64_t num, uint64_t key, uint32_t *blocks);

/* Write the rows of each label, label after label and ascending within each. `next` holds where
   each label begins and is left at its end. */
void fastssd_group(const int64_t *labels, int64_t num, int64_t *next, int64_t *order) {
    for (int64_t i = 0; i < num; i++)
        order[next[labels[i]]++] = i;
}

/* Write how often each value has occurred before. `seen` holds a zero for every value. */
void fastssd_running_count(const int64_t *values, int64_t num, int32_t *seen, int64_t *counts) {
    for (int64_t i = 0; i < num; i++)
        counts[i] = seen[values[i]]++;
}

/* Write, for each chance, how many of the `num_bounds` ascending bounds are at most chance * total.
   `guide[(int64_t)(x * scale)]` is a lower limit of that for x, and never past it. */
void fastssd_search(const double *chances, int64_t num, double total, const double *bounds,
                    int64_t num_bounds, const int64_t *guide, double scale, int64_t *found) {
    for (int64_t i = 0; i < num; i++) {
        double x = chances[i] * total;
        int64_t at = guide[(int64_t)(x * scale)];
        while (at < num_bounds && bounds[at] <= x)
            at++;
        found[i] = at;
    }
}

/* Write the image of each class that a chance in [0, 1) falls on. `order` has the images class
   after class, `starts` and `counts` say where. */
void fastssd_within(const int64_t *classes, const double *chances, int64_t num,
                    const int64_t *starts, const int64_t *counts, const int64_t *order,
                    int64_t *samples) {
    for (int64_t i = 0; i < num; i++) {
        int64_t class = classes[i];
        samples[i] = order[starts[class] + (int64_t)(chances[i] * (double)counts[class])];
    }
}

struct image {
    uint64_t chance;
    int64_t sample;
};

struct cycles {
    const int64_t *draws, *draw_starts;  /* the draws of each class, class after class */
    const int64_t *ordinals, *starts, *counts, *order;
    uint64_t key;
    int64_t num_classes, per_item;
    int64_t *samples;
    int failed;
};

struct room {
    struct image *images, *sorted;
    int64_t *ends;
    uint32_t *counters, *blocks;
};

static int is_before(const struct image *a, const struct image *b) {
    return a->chance != b->chance ? a->chance < b->chance : a->sample < b->sample;
}

/* Give every image of a class its chance for a cycle, 64 bits, and sort them by it into `sorted`.
   The chances are uniform, so their first bits part them into buckets of few. */
static void shuffle(const struct cycles *job, struct room *room, int64_t class, int64_t cycle) {
    int64_t num = job->counts[class];
    const int64_t *samples = job->order + job->starts[class];
    for (int64_t first = 0; first < num; first += PHILOX_BLOCKS) {
        int64_t some = num - first < PHILOX_BLOCKS ? num - first : PHILOX_BLOCKS;
        for (int64_t i = 0; i < some; i++) {
            uint32_t *counter = room->counters + 4 * i;
            counter[0] = (uint32_t)samples[first + i];
            counter[1] = (uint32_t)cycle;
            counter[2] = (uint32_t)((uint64_t)cycle >> 32);
            counter[3] = 0;
        }
        fastssd_philox(room->counters, some, job->key, room->blocks);
        for (int64_t i = 0; i < some; i++) {
            struct image *image = room->images + first + i;
            image->chance = (uint64_t)room->blocks[4 * i] << 32 | room->blocks[4 * i + 1];
            image->sample = samples[first + i];
        }
    }
    int bits = 0;
    while (num >> bits > BUCKET)
        bits++;
    int64_t num_buckets = (int64_t)1 << bits;
    int drop = 64 - bits;
#define BUCKET_OF(image) (bits ? (int64_t)((image).chance >> drop) : 0)
    memset(room->ends, 0, (size_t)num_buckets * sizeof *room->ends);
    for (int64_t i = 0; i < num; i++)
        room->ends[BUCKET_OF(room->images[i])]++;
    for (int64_t bucket = 0, sum = 0; bucket < num_buckets; bucket++) {
        int64_t size = room->ends[bucket];
        room->ends[bucket] = sum;
        sum += size;
    }
    for (int64_t i = 0; i < num; i++)
        room->sorted[room->ends[BUCKET_OF(room->images[i])]++] = room->images[i];
#undef BUCKET_OF
    for (int64_t i = 1; i < num; i++) {
        struct image image = room->sorted[i];
        int64_t at = i;
        for (; at > 0 && is_before(&image, &room->sorted[at - 1]); at--)
            room->sorted[at] = room->sorted[at - 1];
        room->sorted[at] = image;
    }
}

static void draw_classes(void *context, int item) {
    struct cycles *job = context;
    int64_t first = item * job->per_item, largest = 1;
    int64_t last = first + job->per_item;
    if (last > job->num_classes)
        last = job->num_classes;
    for (int64_t class = first; class < last; class++)
        if (job->counts[class] > largest)
            largest = job->counts[class];
    struct room room = {
        .images = malloc((size_t)largest * sizeof(struct image)),
        .sorted = malloc((size_t)largest * sizeof(struct image)),
        .ends = malloc((size_t)largest * sizeof(int64_t)),
        .counters = malloc(4 * PHILOX_BLOCKS * sizeof(uint32_t)),
        .blocks = malloc(4 * PHILOX_BLOCKS * sizeof(uint32_t)),
    };
    if (!room.images || !room.sorted || !room.ends || !room.counters || !room.blocks) {
        __atomic_store_n(&job->failed, 1, __ATOMIC_RELAXED);
        last = first;
    }
    for (int64_t class = first; class < last; class++) {
        int64_t cycle = -1, count = job->counts[class];
        for (int64_t i = job->draw_starts[class]; i < job->draw_starts[class + 1]; i++) {
            int64_t draw = job->draws[i], ordinal = job->ordinals[draw];
            if (ordinal / count != cycle) {
                cycle = ordinal / count;
                shuffle(job, &room, class, cycle);
            }
            job->samples[draw] = room.sorted[ordinal % count].sample;
        }
    }
    free(room.images);
    free(room.sorted);
    free(room.ends);
    free(room.counters);
    free(room.blocks);
}

/* Write, for each draw, the `ordinals`-th image of its class, whose images come in shuffled cycles:
   cycle k has them sorted by the first 64 bits of Philox's block for (image, k) under `key`, then
   by themselves. Return 0, or -1 where memory is missing.

   `draws` has the draws class after class; those of class c are `draw_starts[c]` to
   `draw_starts[c + 1]`. A class's draws should have ascending ordinals: else it takes longer. */
int fastssd_cycles(const int64_t *draws, const int64_t *draw_starts, const int64_t *ordinals,
                   const int64_t *starts, const int64_t *counts, const int64_t *order,
                   int64_t num_classes, uint64_t key, int threads, int64_t *samples) {
    struct cycles job = {.draws = draws, .draw_starts = draw_starts, .ordinals = ordinals,
                         .starts = starts, .counts = counts, .order = order, .key = key,
                         .num_classes = num_classes, .samples = samples};
    job.per_item = num_classes / 256 + 1;
    int items = (int)((num_classes + job.per_item - 1) / job.per_item);
    fastssd_parallel(threads, items, draw_classes, &job);
    return job.failed ? -1 : 0;
}
