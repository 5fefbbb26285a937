#include "fuzz_reference.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#define MAX_PIXELS ((int64_t)1 << 28)
#define MAX_MEMORY (1L << 30)
#define MAX_SCANS 500

struct session {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
    struct reference found;
};

static void fail(j_common_ptr common) {
    struct session *session = common->client_data;
    common->err->format_message(common, session->found.reason);
    longjmp(session->failed, 1);
}

static void on_message(j_common_ptr common, int level) {
    int code = common->err->msg_code;
    if (level < 0 && code != JWRN_JFIF_MAJOR && code != JWRN_ADOBE_XFORM)
        fail(common);
}

static void refuse(struct session *session, const char *reason) {
    strcpy(session->found.reason, reason);
    longjmp(session->failed, 1);
}

static void on_progress(j_common_ptr common) {
    struct session *session = common->client_data;
    if (session->jpeg.input_scan_number > MAX_SCANS)
        refuse(session, "too many scans");
}

/* Pillow's colours of values that are stored inverted. */
static void from_inks(const uint8_t *inks, int count, uint8_t *rgb) {
    for (int i = 0; i < count; i++)
        for (int c = 0; c < 3; c++) {
            int white = inks[4 * i + 3], scaled = (255 - inks[4 * i + c]) * white + 128;
            int value = white - ((scaled + (scaled >> 8)) >> 8);
            rgb[3 * i + c] = (uint8_t)(value < 0 ? 0 : value);
        }
}

static void decode(struct session *session, struct file file) {
    j_decompress_ptr jpeg = &session->jpeg;
    struct reference *found = &session->found;
    jpeg_mem_src(jpeg, file.bytes, file.count);
    jpeg_read_header(jpeg, TRUE);
    if ((int64_t)jpeg->image_width * jpeg->image_height > MAX_PIXELS)
        refuse(session, "too many pixels");
    int inks = jpeg->num_components == 4;
    if (!inks && jpeg->num_components != 1 && jpeg->num_components != 3)
        refuse(session, "not 1, 3 or 4 components");
    jpeg->out_color_space = inks ? JCS_CMYK : JCS_RGB;
    jpeg->dct_method = JDCT_ISLOW;
    jpeg_start_decompress(jpeg);
    found->width = (int)jpeg->output_width;
    found->height = (int)jpeg->output_height;
    size_t row = (size_t)4 * jpeg->output_width;
    uint8_t *line = (*jpeg->mem->alloc_large)((j_common_ptr)jpeg, JPOOL_IMAGE, row);
    size_t room = 0;
    for (size_t y = 0; y < (size_t)found->height; y++) {
        if (y >= room) { /* a header may claim more than there is */
            room = room ? 2 * room : 64;
            room = room < (size_t)found->height ? room : (size_t)found->height;
            found->rgb = realloc(found->rgb, room * 3 * (size_t)found->width);
        }
        uint8_t *to = found->rgb + y * 3 * (size_t)found->width;
        jpeg_read_scanlines(jpeg, inks ? &line : &to, 1);
        if (inks)
            from_inks(line, found->width, to);
    }
    jpeg_finish_decompress(jpeg);
}

struct reference fuzz_reference(struct file file) {
    struct session *session = calloc(1, sizeof *session);
    session->jpeg.err = jpeg_std_error(&session->errors);
    session->errors.error_exit = fail;
    session->errors.emit_message = on_message;
    session->jpeg.client_data = session;
    if (setjmp(session->failed) == 0) {
        jpeg_create_decompress(&session->jpeg);
        session->jpeg.client_data = session;
        session->jpeg.mem->max_memory_to_use = MAX_MEMORY;
        session->progress.progress_monitor = on_progress;
        session->jpeg.progress = &session->progress;
        decode(session, file);
    } else {
        free(session->found.rgb);
        session->found.rgb = NULL;
    }
    jpeg_destroy_decompress(&session->jpeg);
    struct reference found = session->found;
    free(session);
    return found;
}
