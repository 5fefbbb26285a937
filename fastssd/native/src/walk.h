/* Walking through the entropy-coded data of JPEG files without decoding it: is all of it sound? */
#ifndef FASTSSD_WALK_H
#define FASTSSD_WALK_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <jpeglib.h>

/* Files that are walked through at once: each look waits for the one before it in its own file. */
#define FASTSSD_LANES 2

struct fastssd_walk;

/* Returns NULL where there is no memory. */
struct fastssd_walk *fastssd_walk_new(void);
void fastssd_walk_free(struct fastssd_walk *walk);

/* Return a lane that has no file, -1 where all have one. */
int fastssd_walk_idle(const struct fastssd_walk *walk);

/* Give a lane the file whose header was read; its bytes must stay where they are until the lane is
   done, `cinfo` need not. Returns 0 for a file that is not walked through: one of several scans,
   progressive, or with tables that are none. */
int fastssd_walk_begin(struct fastssd_walk *walk, int lane, j_decompress_ptr cinfo);

/* Walk on until a lane is done: that lane, or -1 where none has a file. `*sound`: all its data is
   there and consists of codes; otherwise it may be damaged, or only unusual. */
int fastssd_walk_on(struct fastssd_walk *walk, int *sound);

#endif
