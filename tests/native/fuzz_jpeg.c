/* Mutated JPEG files through the decoder, the check and the rewriting, against libjpeg itself:

       fuzz_jpeg COUNT SEED [-o FOLDER] [FILE...]

   They are made of the files of `fuzz_corpus.c` and of the given ones. What has to hold of each is
   in `examine`. Prints how many were sound, and what did not hold by kind; writes those files to
   FOLDER. Exits with 1 if something did not hold. Every buffer has its exact size, so that
   AddressSanitizer sees what is read behind it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode.h"
#include "fuzz_corpus.h"
#include "fuzz_reference.h"
#include "transcode.h"

#define MOST 512 /* a side that is still decoded as one box */
#define MOST_FILES 100
#define VIEWS 2

enum {
    STRICT,
    LENIENT,
    OTHER_PIXELS,
    CHECK_LENIENT,
    CHECK_STRICT,
    CHECKS_DIFFER,
    STORED_UNREADABLE,
    REWRITTEN_UNREADABLE,
    REWRITTEN_OTHER,
    REWRITTEN_UNSOUND,
    DEPENDENT,
    NEIGHBOUR,
    NO_REASON,
    KINDS
};

static const char *const kind_names[KINDS] = {
    [STRICT] = "libjpeg finds it sound, the decoder does not",
    [LENIENT] = "the decoder finds it sound, libjpeg does not",
    [OTHER_PIXELS] = "the decoder has other pixels than libjpeg",
    [CHECK_LENIENT] = "the check finds it sound, libjpeg does not",
    [CHECK_STRICT] = "libjpeg finds it sound, the check does not",
    [CHECKS_DIFFER] = "checking and rewriting do not agree",
    [STORED_UNREADABLE] = "the check finds it sound, a box cannot be decoded",
    [REWRITTEN_UNREADABLE] = "rewritten, it cannot be decoded",
    [REWRITTEN_OTHER] = "rewritten, it has other pixels",
    [REWRITTEN_UNSOUND] = "rewritten, it is not sound",
    [DEPENDENT] = "a box has other pixels beside another box",
    [NEIGHBOUR] = "a neighbour is not what it is alone",
    [NO_REASON] = "there is no reason",
};

static struct {
    const char *folder;
    int count[KINDS], current;
    struct file file, neighbour; /* neighbour: a sound one */
} report;

static void write_file(const char *name, struct file file) {
    char path[500];
    snprintf(path, sizeof path, "%s/%s", report.folder, name);
    FILE *to = fopen(path, "wb");
    if (to && fwrite(file.bytes, 1, file.count, to) == file.count)
        fclose(to);
}

static void found(int kind, const char *reason) {
    char name[60];
    if (report.count[kind]++ < 10)
        printf("%d: %s: %s\n", report.current, kind_names[kind], reason);
    snprintf(name, sizeof name, "%d-%d.jpg", kind, report.current);
    if (report.folder)
        write_file(name, report.file);
   
}

struct decoded {
    uint8_t *pixels; /* (views, count, size, size, 3), to be freed */
    uint8_t damaged[3];
    char reasons[3][FASTSSD_REASON];
};

/* Of `size` x `size` pixels. */
static size_t bytes_of(int size) { return (size_t)size * (size_t)size * 3; }

static struct decoded decode(const struct file *files, const int64_t *boxes, int count, int views,
                             int size) {
    struct decoded decoded = {.pixels = malloc((size_t)(count * views) * bytes_of(size))};
    uint64_t addresses[3];
    int64_t num_bytes[3];
    uint8_t raw[3] = {0};
    int32_t sizes[6] = {0};
    for (int i = 0; i < count; i++) {
        addresses[i] = (uint64_t)(uintptr_t)files[i].bytes;
        num_bytes[i] = (int64_t)files[i].count;
    }
    struct fastssd_batch batch = {.addresses = addresses,
                                  .num_bytes = num_bytes,
                                  .raw = raw,
                                  .sizes = sizes,
                                  .boxes = boxes,
                                  .out = decoded.pixels,
                                  .damaged = decoded.damaged,
                                  .reasons = decoded.reasons[0],
                                  .count = count,
                                  .views = views,
                                  .size = size,
                                  .threads = 1,
                                  .shrink = 1,
                                  .plain = fuzz_draw(4) == 0};
    fastssd_decode(&batch);
    for (int i = 0; i < count; i++)
        if (decoded.damaged[i] && strlen(decoded.reasons[i]) < 5)
            found(NO_REASON, "");
    return decoded;
}

/* Whether `size` x `size` pixels are those of the image from (x, y) on, and black outside. */
static int is_cut_of(const uint8_t *pixels, int size, const struct reference *image, int64_t x0,
                     int64_t y0) {
    static const uint8_t black[3];
    for (int64_t y = 0; y < size; y++)
        for (int64_t x = 0; x < size; x++) {
            int64_t column = x0 + x, row = y0 + y;
            int is_inside = column >= 0 && row >= 0 && column < image->width && row < image->height;
            const uint8_t *due = image->rgb + (row * image->width + column) * 3;
            if (memcmp(pixels + (y * size + x) * 3, is_inside ? due : black, 3) != 0)
                return 0;
        }
    return 1;
}

/* Decode all of a file, if it is not too large, and two boxes of it; `*whole`: all of it was. */
static int decodes(struct file file, const struct reference *image, int *whole, int *is_equal,
                   char *reason) {
    int side = image->width > image->height ? image->width : image->height;
    *whole = side <= MOST;
    *is_equal = 1;
    int is_sound = 1;
    for (int i = *whole ? 0 : 1; i < 2; i++) {
        int size = i ? 1 + (int)fuzz_draw(60) : side, views = i ? VIEWS : 1;
        int64_t boxes[VIEWS * 4] = {0, 0, size, size, 0, 0, size, size};
        for (int j = 0; i && j < VIEWS; j++) {
            boxes[4 * j] = (int64_t)fuzz_draw((uint32_t)image->width + 20) - 20;
            boxes[4 * j + 1] = (int64_t)fuzz_draw((uint32_t)image->height + 20) - 20;
        }
        struct decoded decoded = decode(&file, boxes, 1, views, size);
        if (decoded.damaged[0])
            strcpy(reason, decoded.reasons[0]);
        is_sound &= !decoded.damaged[0];
        for (int j = 0; is_sound && image->rgb && j < views; j++)
            *is_equal &= is_cut_of(decoded.pixels + (size_t)j * bytes_of(size), size, image,
                                   boxes[4 * j], boxes[4 * j + 1]);
        free(decoded.pixels);
    }
    return is_sound;
}

/* Boxes that are resized: whether they can be decoded, each with the same pixels alone. */
static void examine_boxes(struct file file, const struct reference *image) {
    int64_t boxes[VIEWS * 4];
    int size = 1 + (int)fuzz_draw(16);
    size_t bytes = bytes_of(size);
    for (int i = 0; i < VIEWS; i++) {
        boxes[4 * i] = fuzz_draw((uint32_t)image->width);
        boxes[4 * i + 1] = fuzz_draw((uint32_t)image->height);
        boxes[4 * i + 2] = 1 + fuzz_draw((uint32_t)(image->width - boxes[4 * i]));
        boxes[4 * i + 3] = 1 + fuzz_draw((uint32_t)(image->height - boxes[4 * i + 1]));
    }
    struct decoded both = decode(&file, boxes, 1, VIEWS, size);
    if (both.damaged[0])
        found(STORED_UNREADABLE, both.reasons[0]);
    for (int i = 0; i < VIEWS; i++) {
        struct decoded alone = decode(&file, boxes + 4 * i, 1, 1, size);
        if (!both.damaged[0] && memcmp(both.pixels + (size_t)i * bytes, alone.pixels, bytes) != 0)
            found(DEPENDENT, "");
        free(alone.pixels);
    }
    free(both.pixels);
}

/* Check or rewrite a file between sound ones, if there are any yet. */
static struct fastssd_transcoded transcode(struct file file, int rewrite, struct file *written) {
    struct fastssd_transcoded results[3], *left = results, *result = results + 1;
    struct fastssd_transcoded *right = results + 2;
    uint8_t *output;
    struct file other = report.neighbour.bytes ? report.neighbour : file;
    const uint8_t *bytes[3] = {other.bytes, file.bytes, other.bytes};
    int64_t counts[3] = {(int64_t)other.count, (int64_t)file.count, (int64_t)other.count};
    if (!fastssd_transcode(rewrite, 3, bytes, counts, results, &output))
        exit(2);
    if (report.neighbour.bytes && left->status == FASTSSD_DAMAGED)
        found(NEIGHBOUR, left->reason);
    if (left->status != right->status || left->num_bytes != right->num_bytes ||
        (left->num_bytes && memcmp(output + left->offset, output + right->offset,
                                   (size_t)left->num_bytes) != 0))
        found(NEIGHBOUR, right->reason);
    if (written && result->num_bytes) {
        *written = (struct file){malloc((size_t)result->num_bytes), (size_t)result->num_bytes};
        memcpy(written->bytes, output + result->offset, written->count);
    }
    fastssd_transcode_free(output);
    return *result;
}

static void examine_rewritten(struct file file, const struct reference *image) {
    char reason[FASTSSD_REASON] = "";
    int whole, is_equal;
    struct reference again = fuzz_reference(file);
    if (!again.rgb)
        found(REWRITTEN_UNSOUND, again.reason);
    else if (again.width != image->width || again.height != image->height ||
             memcmp(again.rgb, image->rgb, (size_t)image->width * (size_t)image->height * 3) != 0)
        found(REWRITTEN_OTHER, "by libjpeg");
    if (!decodes(file, image, &whole, &is_equal, reason))
        found(REWRITTEN_UNREADABLE, reason);
    else if (!is_equal)
        found(REWRITTEN_OTHER, "by the decoder");
    struct fastssd_transcoded checked = transcode(file, 0, NULL);
    if (checked.status != FASTSSD_SOUND)
        found(REWRITTEN_UNSOUND, checked.reason);
    free(again.rgb);
}

/* Returns whether libjpeg reads the file without a warning. */
static int examine(struct file file) {
    char reason[FASTSSD_REASON] = "";
    int whole, is_equal;
    struct file written = {NULL, 0};
    struct reference image = fuzz_reference(file);
    struct fastssd_transcoded checked = transcode(file, 0, NULL);
    struct fastssd_transcoded rewritten = transcode(file, 1, &written);
    int is_sound = image.rgb != NULL, is_stored = checked.status == FASTSSD_SOUND;
    if (!is_sound) { /* of any size, to be decoded all the same */
        image.width = checked.width > 0 && checked.width <= MOST ? checked.width : MOST + 1;
        image.height = checked.height > 0 && checked.height <= MOST ? checked.height : MOST + 1;
    }
    int decoded = decodes(file, &image, &whole, &is_equal, reason);
    if (is_stored && !is_sound)
        found(CHECK_LENIENT, image.reason);
    if (!is_stored && is_sound)
        found(CHECK_STRICT, checked.reason);
    if (decoded && whole && !is_sound)
        found(LENIENT, image.reason);
    if (!decoded && is_sound)
        found(STRICT, reason);
    if (decoded && is_sound && !is_equal)
        found(OTHER_PIXELS, "");
    if (is_stored && !decoded)
        found(STORED_UNREADABLE, reason);
    if (is_stored != (rewritten.status == FASTSSD_SOUND || rewritten.status == FASTSSD_UNSUITED))
        found(CHECKS_DIFFER, is_stored ? rewritten.reason : checked.reason);
    if (is_stored && is_sound)
        examine_boxes(file, &image);
    if (written.bytes && is_sound)
        examine_rewritten(written, &image);
    free(written.bytes);
    free(image.rgb);
    return is_sound;
}

/* A file between two sound ones, which it must not change. */
static void examine_batch(struct file left, struct file file, struct file right) {
    struct file batch[3] = {left, file, right};
    int64_t boxes[3 * VIEWS * 4];
    int size = 1 + (int)fuzz_draw(40);
    size_t bytes = bytes_of(size);
    for (int i = 0; i < 3 * VIEWS; i++)
        for (int j = 0; j < 2; j++) {
            boxes[4 * i + j] = (int64_t)fuzz_draw(160) - 60;
            boxes[4 * i + 2 + j] = 1 + fuzz_draw(200);
        }
    struct decoded together = decode(batch, boxes, 3, VIEWS, size);
    for (int i = 0; i < 3; i += 2) {
        struct decoded alone = decode(batch + i, boxes + i * VIEWS * 4, 1, VIEWS, size);
        for (int view = 0; view < VIEWS; view++) {
            const uint8_t *pixels = together.pixels + (size_t)(view * 3 + i) * bytes;
            if (together.damaged[i] || memcmp(alone.pixels + view * bytes, pixels, bytes) != 0)
                found(NEIGHBOUR, "");
        }
        free(alone.pixels);
    }
    free(together.pixels);
}

static struct file read_file(const char *path) {
    FILE *from = fopen(path, "rb");
    if (!from || fseek(from, 0, SEEK_END) != 0)
        exit(2);
    struct file file = {NULL, (size_t)ftell(from)};
    rewind(from);
    file.bytes = malloc(file.count);
    if (fread(file.bytes, 1, file.count, from) != file.count)
        exit(2);
    fclose(from);
    return file;
}

int main(int count, char **arguments) {
    int first = 3, tries = atoi(arguments[1]), num_sound = 0, num_bad = 0;
    uint64_t seed = strtoull(arguments[2], NULL, 10);
    if (count > 4 && strcmp(arguments[3], "-o") == 0) {
        report.folder = arguments[4];
        first = 5;
    }
    struct file files[MOST_FILES];
    int num_files = 0, intact[MOST_FILES], num_intact = 0;
    while (num_files < MOST_FILES && (files[num_files] = fuzz_made(num_files)).bytes)
        num_files++;
    for (; first < count && num_files < MOST_FILES; first++)
        files[num_files++] = read_file(arguments[first]);
    for (int i = 0; i < num_files; i++) {
        report.file = files[i];
        report.current = -1 - i;
        if (examine(files[i])) {
            intact[num_intact++] = i;
            report.neighbour = files[i];
        }
    }
    for (report.current = 0; report.current < tries; report.current++) {
        fuzz_seed(seed + (uint64_t)report.current);
        report.file = fuzz_mutated(files[fuzz_draw((uint32_t)num_files)],
                                   files[fuzz_draw((uint32_t)num_files)]);
        report.neighbour = files[intact[fuzz_draw((uint32_t)num_intact)]];
        num_sound += examine(report.file);
        if (fuzz_draw(4) == 0)
            examine_batch(report.neighbour, report.file,
                          files[intact[fuzz_draw((uint32_t)num_intact)]]);
        free(report.file.bytes);
    }
    for (int i = 0; i < num_files; i++)
        free(files[i].bytes);
    for (int kind = 0; kind < KINDS; kind++) {
        num_bad += report.count[kind];
        if (report.count[kind])
            printf("%d times: %s\n", report.count[kind], kind_names[kind]);
    }
    printf("%d of %d files are sound\n", num_intact, num_files);
    printf("%d of %d mutated files are sound\n", num_sound, tries);
    return num_bad > 0;
}
