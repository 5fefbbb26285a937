#include "jpeg_library.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "jpeg_rules.h"

#define MAX_MEMORY (1L << 30) /* of libjpeg, for one image */

struct session {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
    char *reason;
};

static void fail(j_common_ptr common) {
    struct session *session = common->client_data;
    char message[JMSG_LENGTH_MAX];
    common->err->format_message(common, message);
    snprintf(session->reason, FASTSSD_REASON, "%.*s", FASTSSD_REASON - 1, message);
    longjmp(session->failed, 1);
}

/* A warning says that the pixels to come are made up, unless it is about metadata. */
static void on_message(j_common_ptr common, int level) {
    if (level < 0 && !fastssd_is_harmless(common->err->msg_code))
        fail(common);
}

static void no_output(j_common_ptr common) { (void)common; }

static void refuse(struct session *session, const char *reason) {
    snprintf(session->reason, FASTSSD_REASON, "%s", reason);
    longjmp(session->failed, 1);
}

static void start(j_decompress_ptr jpeg) { (void)jpeg; }

static boolean more(j_decompress_ptr jpeg) {
    ERREXIT(jpeg, JWRN_JPEG_EOF); /* which libjpeg's own sources only warn of */
    return FALSE;
}

static void skip(j_decompress_ptr jpeg, long num_bytes) {
    struct jpeg_source_mgr *source = jpeg->src;
    if (num_bytes <= 0)
        return;
    if ((size_t)num_bytes > source->bytes_in_buffer)
        more(jpeg);
    source->next_input_byte += num_bytes;
    source->bytes_in_buffer -= (size_t)num_bytes;
}

static void on_progress(j_common_ptr common) {
    struct session *session = common->client_data;
    if (session->jpeg.input_scan_number > FASTSSD_MAX_SCANS)
        refuse(session, "more scans than any sound image has");
}

const char *fastssd_refusal(j_decompress_ptr jpeg) {
    if ((int64_t)jpeg->image_width * jpeg->image_height > FASTSSD_MAX_PIXELS)
        return "the image is larger than 2^28 pixels";
    if (jpeg->num_components != 1 && jpeg->num_components != 3 && jpeg->num_components != 4)
        return "an image of neither one, three nor four components";
    for (int i = 0; i < jpeg->num_components; i++)
        if (jpeg->max_h_samp_factor % jpeg->comp_info[i].h_samp_factor != 0 ||
            jpeg->max_v_samp_factor % jpeg->comp_info[i].v_samp_factor != 0)
            return "its colours are sampled at a fraction that libjpeg does not decode";
    return NULL;
}

/* Create the decompressor and read the header; what fails goes to session->failed. */
static void open_session(struct session *session, const uint8_t *content, size_t num_bytes) {
    j_decompress_ptr jpeg = &session->jpeg;
    jpeg_create_decompress(jpeg);
    jpeg->client_data = session;
    jpeg->mem->max_memory_to_use = MAX_MEMORY;
    session->source = (struct jpeg_source_mgr){.next_input_byte = content,
                                               .bytes_in_buffer = num_bytes,
                                               .init_source = start,
                                               .fill_input_buffer = more,
                                               .skip_input_data = skip,
                                               .resync_to_restart = jpeg_resync_to_restart,
                                               .term_source = start};
    jpeg->src = &session->source;
    session->progress.progress_monitor = on_progress;
    jpeg->progress = &session->progress;
    jpeg_read_header(jpeg, TRUE);
    const char *refusal = fastssd_refusal(jpeg);
    if (refusal)
        refuse(session, refusal);
}

static void prepare(struct session *session, char *reason) {
    memset(session, 0, sizeof *session);
    session->reason = reason;
    session->jpeg.err = jpeg_std_error(&session->errors);
    session->errors.error_exit = fail;
    session->errors.emit_message = on_message;
    session->errors.output_message = no_output;
    session->jpeg.client_data = session;
}

int fastssd_library_size(const uint8_t *content, size_t num_bytes, int *width, int *height,
                         char *reason) {
    struct session session;
    prepare(&session, reason);
    if (setjmp(session.failed)) {
        jpeg_destroy_decompress(&session.jpeg);
        return 0;
    }
    open_session(&session, content, num_bytes);
    *width = (int)session.jpeg.image_width;
    *height = (int)session.jpeg.image_height;
    jpeg_destroy_decompress(&session.jpeg);
    return 1;
}

/* Begin to decode to pixels at 1 / scale of the size. Files of several scans are read whole. */
static void start_output(struct session *session, int scale) {
    j_decompress_ptr jpeg = &session->jpeg;
    jpeg->out_color_space = jpeg->num_components == 4 ? JCS_CMYK : JCS_RGB;
    jpeg->dct_method = JDCT_ISLOW;
    jpeg->scale_num = 1;
    jpeg->scale_denom = (unsigned)scale;
    jpeg_start_decompress(jpeg);
}

int fastssd_library_check(const uint8_t *content, size_t num_bytes, char *reason) {
    struct session session;
    prepare(&session, reason);
    if (setjmp(session.failed)) {
        jpeg_destroy_decompress(&session.jpeg);
        return 0;
    }
    open_session(&session, content, num_bytes);
    j_decompress_ptr jpeg = &session.jpeg;
    start_output(&session, 1);
    if (!jpeg_has_multiple_scans(jpeg)) {
        JSAMPROW row = (*jpeg->mem->alloc_large)(
            (j_common_ptr)jpeg, JPOOL_IMAGE,
            (size_t)jpeg->output_width * (size_t)jpeg->output_components);
        /* Rows that are passed over are read, but not transformed; the last must not be. */
        if (jpeg->output_height > 1)
            jpeg_skip_scanlines(jpeg, jpeg->output_height - 1);
        jpeg_read_scanlines(jpeg, &row, 1);
        jpeg_finish_decompress(jpeg);
    }
    jpeg_destroy_decompress(jpeg);
    return 1;
}

/* Pillow's way from CMYK to RGB, of values that are stored inverted, as Adobe does. */
static void cmyk_to_rgb(const uint8_t *from, int count, uint8_t *to) {
    for (int i = 0; i < count; i++)
        for (int c = 0; c < 3; c++) {
            int product = (255 - from[4 * i + c]) * from[4 * i + 3] + 128;
            int value = from[4 * i + 3] - (((product >> 8) + product) >> 8);
            to[3 * i + c] = (uint8_t)(value < 0 ? 0 : value);
        }
}

/* Whether pixels of a part of the columns are those of the whole rows. They are not where blocks
   are smoothed by their neighbours; nor, in a smaller decode, where colours with larger blocks than
   the brightness are widened all the same, whose rows libjpeg then takes for shorter. */
static int can_cut_columns(j_decompress_ptr jpeg) {
    for (int i = 0; i < jpeg->num_components; i++) {
        const jpeg_component_info *component = &jpeg->comp_info[i];
        int least = jpeg->min_DCT_scaled_size, own = component->DCT_scaled_size;
        if (own != least && (component->h_samp_factor * own != jpeg->max_h_samp_factor * least ||
                             component->v_samp_factor * own != jpeg->max_v_samp_factor * least))
            return 0;
    }
    return fastssd_is_refined(jpeg);
}

/* Decode `wanted` and what libjpeg adds at its sides; sets *held_x0 to the first column held. */
static uint8_t *read_rows(struct session *session, struct fastssd_scratch *scratch,
                          struct fastssd_rect wanted, int *held_x0, int64_t *stride) {
    j_decompress_ptr jpeg = &session->jpeg;
    int width = (int)jpeg->output_width;
    /* Fancy upsampling looks at the neighbours: two pixels more keep the wanted ones exact. */
    int left = wanted.x0 > 2 ? wanted.x0 - 2 : 0;
    int right = wanted.x1 + 2 < width ? wanted.x1 + 2 : width;
    int top = wanted.y0 > 2 ? wanted.y0 - 2 : 0;
    if (!can_cut_columns(jpeg)) {
        left = 0;
    } else if (left > 0 || right < width) {
        JDIMENSION offset = (JDIMENSION)left, columns = (JDIMENSION)(right - left);
        jpeg_crop_scanline(jpeg, &offset, &columns);
        left = (int)offset;
    }
    int channels = jpeg->output_components;
    *held_x0 = left;
    *stride = 3 * (int64_t)jpeg->output_width;
    size_t row_bytes = (size_t)channels * jpeg->output_width;
    int rows = wanted.y1 - top;
    /* One row more where the rows are not yet RGB. */
    uint8_t *pixels = fastssd_room(scratch, FASTSSD_ROOM_PIXELS,
                                   (size_t)rows * (size_t)*stride + row_bytes);
    if (!pixels)
        refuse(session, "there is not enough memory for its pixels");
    if (top > 0 && jpeg_skip_scanlines(jpeg, (JDIMENSION)top) != (JDIMENSION)top)
        refuse(session, "its rows cannot be skipped");
    for (int y = 0; y < rows; y++) {
        uint8_t *to = pixels + y * *stride;
        JSAMPROW line = channels == 3 ? to : pixels + rows * *stride;
        if (jpeg_read_scanlines(jpeg, &line, 1) != 1)
            refuse(session, "the file ends early");
        if (channels == 4)
            cmyk_to_rgb(line, (int)jpeg->output_width, to);
    }
    return pixels + (wanted.y0 - top) * *stride;
}

int fastssd_library_decode(struct fastssd_scratch *scratch, const uint8_t *content,
                           size_t num_bytes, struct fastssd_rect wanted, int scale,
                           struct fastssd_picture *picture, char *reason) {
    struct session session;
    prepare(&session, reason);
    if (setjmp(session.failed)) {
        jpeg_destroy_decompress(&session.jpeg);
        return 0;
    }
    open_session(&session, content, num_bytes);
    j_decompress_ptr jpeg = &session.jpeg;
    start_output(&session, scale);
    if (wanted.x1 > (int)jpeg->output_width || wanted.y1 > (int)jpeg->output_height)
        refuse(&session, "its header tells two sizes");
    int width = (int)jpeg->output_width, held_x0;
    int64_t stride;
    const uint8_t *rgb = read_rows(&session, scratch, wanted, &held_x0, &stride);
    *picture = (struct fastssd_picture){.width = width,
                                        .height = (int)jpeg->output_height,
                                        .held = {held_x0, wanted.y0, wanted.x1, wanted.y1},
                                        .rgb = rgb,
                                        .stride = stride};
    if (wanted.y1 == picture->height)
        jpeg_finish_decompress(jpeg); /* what stands behind the last row is read too */
    jpeg_destroy_decompress(jpeg);
    return 1;
}
