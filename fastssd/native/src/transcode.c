/* JPEG files rewritten without loss: baseline, optimised Huffman tables, restart markers, no
   metadata. The scan of an ordinary file is read and written symbol by symbol
   (`transcode_read.c`, `transcode_write.c`). All others go through libjpeg's coefficients, and so
   does everything that looks damaged: libjpeg says what is wrong. Files that are only checked are
   walked through (`walk.c`); what is not certain there is read as the decoder would
   (`jpeg_library.c`). */
#include "transcode.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "jpeg_library.h"
#include "walk.h"

#define MAX_COEFFICIENT_BYTES (256L << 20)  /* 45 megapixels of 4:4:4, 89 of 4:2:0 */
#define FIRST_ROOM (1 << 16)

int fastssd_bytes_reserve(struct fastssd_bytes *bytes, size_t more) {
    if (bytes->room - bytes->used >= more)
        return 1;
    size_t room = bytes->room ? bytes->room : FIRST_ROOM;
    while (room - bytes->used < more)
        room *= 2;
    uint8_t *start = realloc(bytes->start, room);
    if (!start)
        return 0;
    bytes->start = start;
    bytes->room = room;
    return 1;
}

int fastssd_restart_interval(int mcus_per_row) {
    /* The divisors from 2 to 8, the nearest to 4 first, then any larger one: the row at last. */
    static const int nearest[] = {4, 3, 5, 2, 6, 7, 8};
    for (size_t i = 0; i < sizeof nearest / sizeof *nearest; i++)
        if (mcus_per_row % nearest[i] == 0)
            return nearest[i];
    for (int divisor = 9; divisor * divisor <= mcus_per_row; divisor++)
        if (mcus_per_row % divisor == 0)
            return divisor;
    return mcus_per_row;
}

/* One libjpeg reader and writer, used for file after file. */
struct worker {
    struct jpeg_error_mgr errors;
    jmp_buf on_error;
    struct jpeg_decompress_struct in;
    struct jpeg_compress_struct out;
    struct jpeg_progress_mgr progress;
    struct jpeg_destination_mgr destination;
    struct fastssd_bytes bytes;
    struct fastssd_tokens tokens;
    char reason[JMSG_LENGTH_MAX];
    int in_is_read;  /* all of the file was found sound */
    int made;        /* how many of in and out exist */
};

static void fail(j_common_ptr cinfo) {
    struct worker *worker = cinfo->client_data;
    cinfo->err->format_message(cinfo, worker->reason);
    longjmp(worker->on_error, 1);
}

/* libjpeg only warns of damaged data, fills the rest with grey and goes on. */
static void warn(j_common_ptr cinfo, int level) {
    if (level < 0 && !fastssd_is_harmless(cinfo->err->msg_code))
        fail(cinfo);
}

static void watch_scans(j_common_ptr cinfo) {
    struct worker *worker = cinfo->client_data;
    if (cinfo->is_decompressor && worker->in.input_scan_number > FASTSSD_MAX_SCANS) {
        snprintf(worker->reason, sizeof worker->reason, "it has more than %d scans",
                 FASTSSD_MAX_SCANS);
        worker->errors.msg_code = 0;
        longjmp(worker->on_error, 1);
    }
}

static void start_output(j_compress_ptr cinfo) {
    struct worker *worker = cinfo->client_data;
    if (!fastssd_bytes_reserve(&worker->bytes, FIRST_ROOM))
        ERREXIT1(cinfo, JERR_OUT_OF_MEMORY, 0);
    worker->destination.next_output_byte = worker->bytes.start + worker->bytes.used;
    worker->destination.free_in_buffer = worker->bytes.room - worker->bytes.used;
}

static boolean more_output(j_compress_ptr cinfo) {
    struct worker *worker = cinfo->client_data;
    worker->bytes.used = worker->bytes.room;
    start_output(cinfo);
    return TRUE;
}

static void end_output(j_compress_ptr cinfo) {
    struct worker *worker = cinfo->client_data;
    worker->bytes.used = worker->bytes.room - worker->destination.free_in_buffer;
}

/* Returns 0 where memory ends. */
static int start_worker(struct worker *worker) {
    memset(worker, 0, sizeof *worker);
    worker->in.err = worker->out.err = jpeg_std_error(&worker->errors);
    worker->errors.error_exit = fail;
    worker->errors.emit_message = warn;
    worker->in.client_data = worker->out.client_data = worker;
    if (setjmp(worker->on_error))
        return 0;
    jpeg_create_decompress(&worker->in);
    worker->made = 1;
    jpeg_create_compress(&worker->out);
    worker->made = 2;
    worker->in.mem->max_memory_to_use = MAX_COEFFICIENT_BYTES;
    worker->progress.progress_monitor = watch_scans;
    worker->in.progress = &worker->progress;
    worker->destination.init_destination = start_output;
    worker->destination.empty_output_buffer = more_output;
    worker->destination.term_destination = end_output;
    worker->out.dest = &worker->destination;
    return 1;
}

static void end_worker(struct worker *worker) {
    if (worker->made > 0)
        jpeg_destroy_decompress(&worker->in);
    if (worker->made > 1)
        jpeg_destroy_compress(&worker->out);
    free(worker->tokens.tokens);
    free(worker->tokens.segments);
    free(worker->tokens.scratch.start);
    free(worker->tokens.tables);
}

int fastssd_table_of(j_decompress_ptr cinfo, int component) {
    return component > 0 && cinfo->jpeg_color_space != JCS_RGB;
}

static int mcus_per_row(j_decompress_ptr cinfo) {
    int samples = cinfo->num_components == 1 ? 1 : cinfo->max_h_samp_factor;
    return (cinfo->image_width + samples * DCTSIZE - 1) / (samples * DCTSIZE);
}

static void write_coefficients(struct worker *worker, jvirt_barray_ptr *coefficients, int interval) {
    j_compress_ptr out = &worker->out;
    jpeg_copy_critical_parameters(&worker->in, out);
    out->optimize_coding = TRUE;
    out->restart_interval = interval;
    jpeg_write_coefficients(out, coefficients);
    jpeg_finish_compress(out);
}

/* Read a file's header. Returns whether the decoder takes such a file. May leave by longjmp. */
static int read_header(struct worker *worker, struct fastssd_transcoded *result) {
    j_decompress_ptr in = &worker->in;
    if (jpeg_read_header(in, TRUE) != JPEG_HEADER_OK)
        return 0;
    result->height = in->image_height;
    result->width = in->image_width;
    const char *refusal = fastssd_refusal(in);
    if (refusal)
        snprintf(worker->reason, sizeof worker->reason, "%s", refusal);
    return !refusal;
}

/* Rewrite the file whose header was read. May leave by longjmp. */
static int rewrite_file(struct worker *worker, struct fastssd_transcoded *result) {
    j_decompress_ptr in = &worker->in;
    int interval = fastssd_restart_interval(mcus_per_row(in));
    result->interval = interval;
    /* The reader of scans moves nothing of libjpeg's, so that libjpeg can still begin. */
    if (fastssd_read_scan(in, &worker->tokens, interval)) {
        if (!fastssd_write_scan(in, &worker->tokens, interval, &worker->bytes))
            ERREXIT1(in, JERR_OUT_OF_MEMORY, 0);
        return FASTSSD_SOUND;
    }
    jvirt_barray_ptr *coefficients = jpeg_read_coefficients(in);
    worker->in_is_read = 1;
    if (!fastssd_is_refined(in)) {
        snprintf(worker->reason, sizeof worker->reason, "its last scans are missing");
        return FASTSSD_UNSUITED;
    }
    write_coefficients(worker, coefficients, interval);
    return FASTSSD_SOUND;
}

/* Point the reader at a file. libjpeg keeps the tables of the file before, for files that have
   none; they go with the reader's memory. */
static void open_file(struct worker *worker, const uint8_t *file, int64_t size) {
    j_decompress_ptr in = &worker->in;
    memset(in->quant_tbl_ptrs, 0, sizeof in->quant_tbl_ptrs);
    memset(in->dc_huff_tbl_ptrs, 0, sizeof in->dc_huff_tbl_ptrs);
    memset(in->ac_huff_tbl_ptrs, 0, sizeof in->ac_huff_tbl_ptrs);
    jpeg_mem_src(in, file, size);
}

static int is_lack_of_memory(const struct worker *worker) {
    int code = worker->errors.msg_code;
    return code == JERR_NO_BACKING_STORE || code == JERR_OUT_OF_MEMORY ||
           code == JERR_WIDTH_OVERFLOW;
}

static void rewrite_one(struct worker *worker, const uint8_t *file, int64_t size,
                        struct fastssd_transcoded *result) {
    memset(result, 0, sizeof *result);
    size_t start = worker->bytes.used;
    worker->in_is_read = 0;
    worker->reason[0] = 0;
    if (setjmp(worker->on_error) == 0) {
        open_file(worker, file, size);
        result->status =
            read_header(worker, result) ? rewrite_file(worker, result) : FASTSSD_DAMAGED;
    } else {
        /* Decoding takes less memory than rewriting. */
        int is_sound = worker->in_is_read || (is_lack_of_memory(worker) &&
                                              fastssd_library_check(file, size, worker->reason));
        result->status = is_sound ? FASTSSD_UNSUITED : FASTSSD_DAMAGED;
    }
    if (result->status != FASTSSD_SOUND) {
        worker->bytes.used = start;
        snprintf(result->reason, sizeof result->reason, "%.*s", FASTSSD_REASON - 1, worker->reason);
    }
    jpeg_abort_decompress(&worker->in);
    jpeg_abort_compress(&worker->out);
    result->offset = start;
    result->num_bytes = worker->bytes.used - start;
}

/* Let a lane check a file, if it is of an ordinary kind and its header sound. */
static int begin_walk(struct worker *worker, struct fastssd_walk *walk, int lane,
                      const uint8_t *file, int64_t size, struct fastssd_transcoded *result) {
    j_decompress_ptr in = &worker->in;
    volatile int begun = 0; /* behind longjmp */
    memset(result, 0, sizeof *result);
    if (setjmp(worker->on_error) == 0) {
        open_file(worker, file, size);
        begun = read_header(worker, result) && fastssd_walk_begin(walk, lane, in);
    }
    jpeg_abort_decompress(in);
    return begun;
}

/* Check a file as the decoder would read it. */
static void check_one(const uint8_t *file, int64_t size, struct fastssd_transcoded *result) {
    int is_sound = fastssd_library_check(file, size, result->reason);
    result->status = is_sound ? FASTSSD_SOUND : FASTSSD_DAMAGED;
}

/* Check files. Those that are not certainly sound go through libjpeg. */
static void check_all(struct worker *worker, struct fastssd_walk *walk, int64_t count,
                      const uint8_t *const *files, const int64_t *sizes,
                      struct fastssd_transcoded *results) {
    int64_t walking[FASTSSD_LANES];
    for (int64_t next = 0;;) {
        int lane = fastssd_walk_idle(walk), sound = 0;
        if (lane >= 0 && next < count) {
            walking[lane] = next;
            if (!begin_walk(worker, walk, lane, files[next], sizes[next], &results[next]))
                check_one(files[next], sizes[next], &results[next]);
            next++;
            continue;
        }
        lane = fastssd_walk_on(walk, &sound);
        if (lane < 0)
            return;
        int64_t i = walking[lane];
        if (!sound)
            check_one(files[i], sizes[i], &results[i]);
    }
}

int fastssd_transcode(
    int rewrite, int64_t count, const uint8_t *const *files, const int64_t *sizes,
    struct fastssd_transcoded *results, uint8_t **output) {
    struct worker *worker = malloc(sizeof *worker);
    struct fastssd_walk *walk = rewrite ? NULL : fastssd_walk_new();
    *output = NULL;
    int started = worker && start_worker(worker) && (rewrite || walk);
    if (started && rewrite) {
        for (int64_t i = 0; i < count; i++)
            rewrite_one(worker, files[i], sizes[i], &results[i]);
        *output = worker->bytes.start;
    } else if (started) {
        check_all(worker, walk, count, files, sizes, results);
    }
    if (worker)
        end_worker(worker);
    fastssd_walk_free(walk);
    free(worker);
    return started;
}

void fastssd_transcode_free(uint8_t *output) { free(output); }
