#include "scratch.h"

#include <pthread.h>
#include <stdlib.h>

#define KEPT_BYTES ((size_t)8 << 20) /* of one room, between images */

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int has_key;

static void release(void *value) {
    struct fastssd_scratch *scratch = value;
    for (int i = 0; i < FASTSSD_NUM_ROOMS; i++)
        free(scratch->rooms[i].data);
    free(scratch);
}

static void make_key(void) { has_key = pthread_key_create(&key, release) == 0; }

struct fastssd_scratch *fastssd_scratch_of_thread(void) {
    pthread_once(&once, make_key);
    if (!has_key)
        return NULL;
    struct fastssd_scratch *scratch = pthread_getspecific(key);
    if (scratch)
        return scratch;
    scratch = calloc(1, sizeof *scratch);
    if (scratch && pthread_setspecific(key, scratch) != 0) {
        free(scratch);
        scratch = NULL;
    }
    return scratch;
}

void *fastssd_room(struct fastssd_scratch *scratch, enum fastssd_room room, size_t bytes) {
    if (bytes > scratch->rooms[room].bytes) {
        size_t wanted = bytes + bytes / 4; /* so that slowly growing images do not each allocate */
        void *data = NULL;
        free(scratch->rooms[room].data);
        scratch->rooms[room].data = NULL;
        scratch->rooms[room].bytes = 0;
        if (posix_memalign(&data, 64, (wanted + 63) / 64 * 64) != 0)
            return NULL;
        scratch->rooms[room].data = data;
        scratch->rooms[room].bytes = wanted;
    }
    return scratch->rooms[room].data;
}

void fastssd_scratch_trim(struct fastssd_scratch *scratch) {
    for (int i = 0; i < FASTSSD_NUM_ROOMS; i++)
        if (scratch->rooms[i].bytes > KEPT_BYTES) {
            free(scratch->rooms[i].data);
            scratch->rooms[i].data = NULL;
            scratch->rooms[i].bytes = 0;
        }
}
