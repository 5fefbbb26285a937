#include "decode.h"

#include <stdio.h>
#include <string.h>

#include "baseline.h"
#include "jpeg_markers.h"
#include "pool.h"

#define MAX_SIDE ((int64_t)1 << 17)   /* of a box; a JPEG has less than 2^16 */
#define MAX_PLACE ((int64_t)1 << 30)  /* of a box's corner */
#define MAX_VIEWS 64                  /* whose pixels are decoded at one visit */
#define MAX_SHRINK 8
#define LEAST_REST 2 /* of a box decoded smaller: times the output. With less it costs no less. */

/* One image of a batch. */
struct job {
    const struct fastssd_batch *batch;
    struct fastssd_scratch *scratch;
    int position;
    const uint8_t *content;
    size_t num_bytes;
    int width, height;
    struct fastssd_baseline baseline;
    int own;      /* whether `baseline` decodes what of it is usual */
    int is_sound; /* whether libjpeg has read all of it */
    char *reason;
};

static int fail(const struct job *job, const char *reason) {
    snprintf(job->reason, FASTSSD_REASON, "%s", reason);
    return 0;
}

static struct fastssd_box box_of(const struct job *job, int view) {
    const int64_t *box =
        job->batch->boxes + 4 * ((int64_t)job->position * job->batch->views + view);
    return (struct fastssd_box){box[0], box[1], box[2], box[3]};
}

static uint8_t *output_of(const struct job *job, int view) {
    const struct fastssd_batch *batch = job->batch;
    size_t bytes = (size_t)3 * batch->size * batch->size;
    return batch->out + ((size_t)view * batch->count + job->position) * bytes;
}

static int boxes_sane(const struct job *job) {
    for (int view = 0; view < job->batch->views; view++) {
        struct fastssd_box box = box_of(job, view);
        if (box.width < 1 || box.height < 1 || box.width > MAX_SIDE || box.height > MAX_SIDE ||
            box.x < -MAX_PLACE || box.x > MAX_PLACE || box.y < -MAX_PLACE || box.y > MAX_PLACE)
            return 0;
    }
    return 1;
}

/* By which factor the image is decoded smaller for a box: as long as LEAST_REST times the output's
   width and height stay, and never where the box leaves the image. */
static int scale_of(const struct job *job, struct fastssd_box box) {
    int size = job->batch->size, scale = 1;
    if (!job->batch->shrink || box.x < 0 || box.y < 0 || box.x + box.width > job->width ||
        box.y + box.height > job->height)
        return 1;
    int64_t least = 2 * LEAST_REST * (int64_t)size;
    while (scale < MAX_SHRINK && box.width >= least * scale && box.height >= least * scale)
        scale *= 2;
    return job->own ? fastssd_baseline_scale(&job->baseline, scale) : scale;
}

/* The box's pixels that the image has, at 1 / scale of its size. Returns 0 if there are none. */
static int visible(const struct job *job, struct fastssd_box box, int scale,
                   struct fastssd_rect *rect) {
    int64_t x1 = box.x + box.width, y1 = box.y + box.height;
    int64_t x0 = box.x > 0 ? box.x : 0, y0 = box.y > 0 ? box.y : 0;
    x1 = x1 < job->width ? x1 : job->width;
    y1 = y1 < job->height ? y1 : job->height;
    if (x0 >= x1 || y0 >= y1)
        return 0;
    *rect = (struct fastssd_rect){(int)(x0 / scale), (int)(y0 / scale),
                                  (int)((x1 + scale - 1) / scale), (int)((y1 + scale - 1) / scale)};
    return 1;
}

static int cut(const struct job *job, const struct fastssd_picture *picture, int view, int scale) {
    const struct fastssd_batch *batch = job->batch;
    int turn = batch->turns ? batch->turns[job->position] : 1;
    if (fastssd_resize(job->scratch, picture, box_of(job, view), scale, batch->size, turn,
                       batch->plain, output_of(job, view)))
        return 1;
    return fail(job, "there is not enough memory to resize it");
}

static struct fastssd_rect around(const struct fastssd_rect *rects, int count) {
    struct fastssd_rect all = rects[0];
    for (int i = 1; i < count; i++) {
        all.x0 = rects[i].x0 < all.x0 ? rects[i].x0 : all.x0;
        all.y0 = rects[i].y0 < all.y0 ? rects[i].y0 : all.y0;
        all.x1 = rects[i].x1 > all.x1 ? rects[i].x1 : all.x1;
        all.y1 = rects[i].y1 > all.y1 ? rects[i].y1 : all.y1;
    }
    return all;
}

/* Decode rectangles, by our decoder or by libjpeg, and cut the views out of them. */
static int decode(struct job *job, int own, const struct fastssd_rect *rects, const int *views,
                  int count, int scale) {
    struct fastssd_picture picture;
    int decoded =
        own ? fastssd_baseline_decode(job->scratch, &job->baseline, rects, count, scale,
                                      job->batch->plain, &picture, job->reason)
            : fastssd_library_decode(job->scratch, job->content, job->num_bytes,
                                     around(rects, count), scale, &picture, job->reason);
    for (int i = 0; decoded && i < count; i++)
        decoded = cut(job, &picture, views[i], scale);
    return decoded;
}

/* Decode the views of a file in which our decoder met what no encoder writes. libjpeg says whether
   that is damage, and if so it is that for every box. A view that can do without is still ours, so
   that its pixels do not depend on the others. */
static int decode_unusual(struct job *job, const struct fastssd_rect *rects, const int *views,
                          int count, int scale) {
    char reason[FASTSSD_REASON];
    job->is_sound = job->is_sound || fastssd_library_check(job->content, job->num_bytes, reason);
    int decoded = job->is_sound;
    for (int i = 0; decoded && i < count; i++)
        decoded = (count > 1 && decode(job, 1, &rects[i], &views[i], 1, scale)) ||
                  decode(job, 0, &rects[i], &views[i], 1, scale);
    return decoded;
}

/* Decode and cut those of the views from `first` on that are decoded at `scale`. */
static int views_at(struct job *job, int first, int last, int scale) {
    struct fastssd_rect rects[MAX_VIEWS];
    int views[MAX_VIEWS], count = 0;
    for (int view = first; view < last; view++) {
        struct fastssd_box box = box_of(job, view);
        if (scale_of(job, box) != scale)
            continue;
        if (visible(job, box, scale, &rects[count]))
            views[count++] = view;
        else
            memset(output_of(job, view), 0, (size_t)3 * job->batch->size * job->batch->size);
    }
    if (count == 0)
        return 1;
    return decode(job, job->own, rects, views, count, scale) ||
           (job->own && decode_unusual(job, rects, views, count, scale));
}

static int decode_jpeg(struct job *job) {
    job->own = fastssd_baseline_open(&job->baseline, job->content, job->num_bytes);
    if (job->own) {
        job->width = job->baseline.width;
        job->height = job->baseline.height;
    } else if (!fastssd_library_size(job->content, job->num_bytes, &job->width, &job->height,
                                     job->reason)) {
        return 0;
    } else if (!fastssd_jpeg_complete(job->content, job->num_bytes)) {
        return fail(job, "the file ends early");
    }
    for (int first = 0; first < job->batch->views; first += MAX_VIEWS) {
        int left = job->batch->views - first;
        int last = first + (left < MAX_VIEWS ? left : MAX_VIEWS);
        for (int scale = 1; scale <= MAX_SHRINK; scale *= 2)
            if (!views_at(job, first, last, scale))
                return 0;
    }
    return 1;
}

static int cut_raw(struct job *job) {
    const int32_t *size = job->batch->sizes + 2 * (int64_t)job->position;
    if (size[0] < 1 || size[1] < 1 ||
        (uint64_t)size[0] * (uint64_t)size[1] * 3 != (uint64_t)job->num_bytes)
        return fail(job, "its size is not that of its pixels");
    struct fastssd_picture picture = {.width = size[1],
                                      .height = size[0],
                                      .held = {0, 0, size[1], size[0]},
                                      .rgb = job->content,
                                      .stride = 3 * (int64_t)size[1]};
    for (int view = 0; view < job->batch->views; view++)
        if (!cut(job, &picture, view, 1))
            return 0;
    return 1;
}

static void decode_one(void *context, int position) {
    const struct fastssd_batch *batch = context;
    struct job job = {.batch = batch,
                      .position = position,
                      .content = (const uint8_t *)(uintptr_t)batch->addresses[position],
                      .num_bytes = (size_t)batch->num_bytes[position],
                      .reason = batch->reasons + (size_t)position * FASTSSD_REASON};
    int sound;
    job.reason[0] = 0;
    job.scratch = fastssd_scratch_of_thread();
    if (!job.scratch)
        sound = fail(&job, "there is not enough memory");
    else if (!boxes_sane(&job))
        sound = fail(&job, "a box without pixels, or of more than 2^17 a side");
    else
        sound = batch->raw[position] ? cut_raw(&job) : decode_jpeg(&job);
    batch->damaged[position] = !sound;
    if (job.scratch)
        fastssd_scratch_trim(job.scratch);
}

int fastssd_decode(const struct fastssd_batch *batch) {
    fastssd_parallel(batch->threads, batch->count, decode_one, (void *)batch);
    int damaged = 0;
    for (int i = 0; i < batch->count; i++)
        damaged += batch->damaged[i];
    return damaged;
}
