/* Memory that a thread keeps from image to image: one room for each purpose, grown when needed. */
#ifndef FASTSSD_SCRATCH_H
#define FASTSSD_SCRATCH_H

#include <stddef.h>

enum fastssd_room {
    FASTSSD_ROOM_BITS,    /* a segment's entropy-coded bytes without stuffing */
    FASTSSD_ROOM_NEED,    /* which MCUs are needed */
    FASTSSD_ROOM_STARTS,  /* where restart segments start */
    FASTSSD_ROOM_PIXELS,  /* component planes, or pixels of libjpeg */
    FASTSSD_ROOM_ROWS,    /* rows of a crop on their way to the output */
    FASTSSD_ROOM_COLUMNS, /* output rows that await the horizontal pass */
    FASTSSD_ROOM_WEIGHTS, /* of the resize */
    FASTSSD_ROOM_CHROMA,  /* a row of upsampled chroma */
    FASTSSD_ROOM_TURN,    /* an output whose axes are to be exchanged */
    FASTSSD_NUM_ROOMS
};

struct fastssd_scratch {
    struct {
        void *data;
        size_t bytes;
    } rooms[FASTSSD_NUM_ROOMS];
};

/* The calling thread's; freed when it ends. NULL without memory. */
struct fastssd_scratch *fastssd_scratch_of_thread(void);

/* At least `bytes` bytes, aligned to 64, of any content. NULL without memory. */
void *fastssd_room(struct fastssd_scratch *scratch, enum fastssd_room room, size_t bytes);

/* Give back what only an unusually large image needed. */
void fastssd_scratch_trim(struct fastssd_scratch *scratch);

#endif
