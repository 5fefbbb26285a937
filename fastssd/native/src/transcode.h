/* Rewriting JPEG files without loss, and checking them: what the files of `transcode*.c` share. */
#ifndef FASTSSD_TRANSCODE_H
#define FASTSSD_TRANSCODE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <jpeglib.h>

#include "jpeg_rules.h"

/* What became of a file. The numbers are those of `fastssd/data/jpeg_rewrite.py`. */
enum {
    FASTSSD_SOUND,      /* rewritten, or checked where no rewriting was asked for */
    FASTSSD_DAMAGED,    /* `reason` says how */
    FASTSSD_UNSUITED,   /* sound, but not to be rewritten: `reason` */
};

struct fastssd_transcoded {
    int64_t offset, num_bytes;  /* in the output; 0 bytes where nothing was written */
    int32_t status;
    int32_t interval;           /* MCUs between restart markers, where it was rewritten */
    int32_t height, width;
    char reason[FASTSSD_REASON];
};

/* Rewrite, or only check, files on the calling thread. The rewritten ones lie one after another in
   `*output`, to be given to `fastssd_transcode_free`. Returns 0 where memory ends before the first
   file. */
int fastssd_transcode(
    int rewrite, int64_t count, const uint8_t *const *files, const int64_t *sizes,
    struct fastssd_transcoded *results, uint8_t **output);
void fastssd_transcode_free(uint8_t *output);

/* Bytes that grow. */
struct fastssd_bytes {
    uint8_t *start;
    size_t used, room;
};

/* Return whether there is now room for so many more. */
int fastssd_bytes_reserve(struct fastssd_bytes *bytes, size_t more);

struct fastssd_tables;

/* The symbols of a scan, in its order. A token is `table << 24 | symbol << 16 | extra bits`;
   the tables are DC 0, AC 0, DC 1, AC 1, those of the file that is written. */
struct fastssd_tokens {
    uint32_t *tokens;
    size_t used, room;
    size_t *segments;  /* where each segment between restart markers ends */
    size_t num_segments, segment_room;
    uint32_t counts[4 * 256];  /* of each table and symbol */
    struct fastssd_bytes scratch;
    struct fastssd_tables *tables;
};

/* Return the MCUs between the restart markers of a row of so many: they divide the row. */
int fastssd_restart_interval(int mcus_per_row);

/* Return the table of a component in the file that is written: 0 or 1. */
int fastssd_table_of(j_decompress_ptr cinfo, int component);

/* Return whether a file is one interleaved scan of Huffman codes, and its tables are named. */
int fastssd_is_ordinary(j_decompress_ptr cinfo);

/* Read the scan that starts at the source's next byte, to the end of the file, into tokens as the
   rewritten file has them. Returns 1 if all of it is sound and ordinary; 0 if that is not so, or
   not known. */
int fastssd_read_scan(j_decompress_ptr cinfo, struct fastssd_tokens *tokens, int interval);

/* Append a whole file of these tokens. Returns 0 where memory ends. */
int fastssd_write_scan(
    j_decompress_ptr cinfo, struct fastssd_tokens *tokens, int interval, struct fastssd_bytes *out);

#endif
