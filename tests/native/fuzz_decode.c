/* Feeds mutated JPEG files to the decoder, between sound neighbours, to be run under
   AddressSanitizer: fuzz_decode COUNT SEED FILE...

   Every buffer is allocated to its exact size. A damaged file may give pixels or a reason; the
   neighbours must give the pixels that they give alone. Exits with 1 if they do not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode.h"

#define SIZE 24
#define VIEWS 2
#define BATCH 3

static uint64_t state;

static uint32_t draw(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 20) % below);
}

struct file {
    uint8_t *bytes;
    size_t count;
};

static struct file read_file(const char *path) {
    struct file file = {0};
    FILE *from = fopen(path, "rb");
    if (!from || fseek(from, 0, SEEK_END) != 0)
        exit(2);
    file.count = (size_t)ftell(from);
    rewind(from);
    file.bytes = malloc(file.count);
    if (fread(file.bytes, 1, file.count, from) != file.count)
        exit(2);
    fclose(from);
    return file;
}

/* Flip bits, overwrite, cut out, insert, or end early; mostly in the header, now and then. */
static struct file mutated(struct file original) {
    struct file file = {malloc(original.count), original.count};
    memcpy(file.bytes, original.bytes, file.count);
    size_t reach = draw(2) ? file.count : file.count < 700 ? file.count : 700;
    for (uint32_t i = 0, changes = 1 + draw(4); i < changes; i++) {
        size_t at = draw((uint32_t)reach);
        switch (draw(6)) {
        case 0: file.bytes[at] ^= (uint8_t)(1 << draw(8)); break;
        case 1: file.bytes[at] = (uint8_t)draw(256); break;
        case 2: file.bytes[at] = 0xFF; break;
        case 3: memset(file.bytes + at, (int)draw(256), draw((uint32_t)(file.count - at)) / 8); break;
        case 4: /* another place's bytes, of which some hold markers */
            memmove(file.bytes + at, file.bytes + draw((uint32_t)at + 1), (file.count - at) / 4);
            break;
        default:
            if (draw(4) == 0) { /* with a tight end, so that a read behind it is seen */
                uint8_t *shorter = malloc(at + 1);
                memcpy(shorter, file.bytes, at + 1);
                free(file.bytes);
                file.bytes = shorter;
                file.count = at + 1;
                return file;
            }
            file.bytes[at] = (uint8_t)(0xC0 + draw(64));
        }
    }
    return file;
}

static void draw_box(int64_t *box) {
    for (int i = 0; i < 2; i++) {
        box[i] = (int64_t)draw(160) - 60;
        box[2 + i] = draw(3) ? SIZE : 1 + draw(200);
    }
}

static uint8_t *decode(const struct file *files, const int64_t *boxes, int count, int plain,
                       uint8_t *damaged) {
    uint64_t addresses[BATCH];
    int64_t num_bytes[BATCH];
    uint8_t raw[BATCH] = {0}, turns[BATCH];
    int32_t sizes[BATCH * 2] = {0};
    char *reasons = malloc((size_t)count * FASTSSD_REASON);
    uint8_t *out = calloc((size_t)count * VIEWS, SIZE * SIZE * 3);
    for (int i = 0; i < count; i++) {
        addresses[i] = (uint64_t)(uintptr_t)files[i].bytes;
        num_bytes[i] = (int64_t)files[i].count;
        turns[i] = (uint8_t)(1 + boxes[VIEWS * 4 * i] % 8 * (boxes[VIEWS * 4 * i] > 0));
    }
    struct fastssd_batch batch = {.addresses = addresses,
                                  .num_bytes = num_bytes,
                                  .raw = raw,
                                  .sizes = sizes,
                                  .boxes = boxes,
                                  .turns = turns,
                                  .out = out,
                                  .damaged = damaged,
                                  .reasons = reasons,
                                  .count = count,
                                  .views = VIEWS,
                                  .size = SIZE,
                                  .threads = 1,
                                  .shrink = 1,
                                  .plain = plain};
    fastssd_decode(&batch);
    for (int i = 0; i < count; i++)
        if (damaged[i] && strlen(reasons + (size_t)i * FASTSSD_REASON) < 5)
            exit(3); /* no reason */
    free(reasons);
    return out;
}

int main(int count, char **arguments) {
    int num_files = count - 3, num_damaged = 0, tries = atoi(arguments[1]);
    state = 88172645463325252ull + (uint64_t)atoi(arguments[2]) * 2654435761u;
    struct file *files = malloc((size_t)num_files * sizeof *files);
    for (int i = 0; i < num_files; i++)
        files[i] = read_file(arguments[3 + i]);
    for (int try = 0; try < tries; try++) {
        struct file batch[BATCH];
        int64_t boxes[BATCH * VIEWS * 4];
        uint8_t damaged[BATCH], alone_damaged[1];
        for (int i = 0; i < BATCH; i++)
            batch[i] = files[draw((uint32_t)num_files)];
        batch[1] = mutated(batch[1]);
        for (int i = 0; i < BATCH * VIEWS; i++)
            draw_box(boxes + 4 * i);
        uint8_t *out = decode(batch, boxes, BATCH, (int)draw(8) == 0, damaged);
        num_damaged += damaged[1];
        for (int i = 0; i < BATCH; i += 2) {
            uint8_t *alone = decode(batch + i, boxes + (size_t)i * VIEWS * 4, 1, 0, alone_damaged);
            size_t bytes = SIZE * SIZE * 3;
            for (int view = 0; view < VIEWS; view++)
                if (damaged[i] || memcmp(alone + view * bytes,
                                         out + ((size_t)view * BATCH + i) * bytes, bytes) != 0)
                    return 1;
            free(alone);
        }
        free(out);
        free(batch[1].bytes);
    }
    for (int i = 0; i < num_files; i++)
        free(files[i].bytes);
    free(files);
    printf("%d of %d mutated files were found damaged\n", num_damaged, tries);
    return 0;
}
