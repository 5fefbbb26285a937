#include "fuzz_corpus.h"

#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

enum { PLAIN = 0, OPTIMISED = 1, PROGRESSIVE = 2, ARITHMETIC = 4 };
enum { APART = 8, WILD = 16 }; /* a scan for each component; coefficients of no picture */

static const struct kind {
    J_COLOR_SPACE colours;
    int samplings; /* of the first three components; a fourth has the first's */
    int width, height, quality, interval, how; /* quality: all steps where above 100 */
} kinds[] = {
    {JCS_YCbCr, 0x221111, 83, 61, 75, 0, PLAIN},
    {JCS_YCbCr, 0x221111, 130, 45, 92, 3, OPTIMISED},
    {JCS_YCbCr, 0x221111, 64, 96, 60, 4, PLAIN},
    {JCS_YCbCr, 0x221111, 5, 90, 90, 1, PLAIN},
    {JCS_YCbCr, 0x221111, 71, 49, 85, 0, PROGRESSIVE},
    {JCS_YCbCr, 0x221111, 60, 70, 50, 5, PROGRESSIVE},
    {JCS_YCbCr, 0x221111, 50, 33, 80, 0, APART},
    {JCS_YCbCr, 0x211111, 77, 50, 80, 0, PLAIN},
    {JCS_YCbCr, 0x211111, 90, 41, 95, 2, OPTIMISED},
    {JCS_YCbCr, 0x211111, 66, 40, 70, 3, PROGRESSIVE},
    {JCS_YCbCr, 0x111111, 60, 41, 95, 0, OPTIMISED},
    {JCS_YCbCr, 0x111111, 96, 40, 70, 4, PLAIN},
    {JCS_YCbCr, 0x111111, 33, 35, 100, 1, PLAIN},
    {JCS_YCbCr, 0x111111, 47, 52, 88, 0, PROGRESSIVE},
    {JCS_YCbCr, 0x121111, 45, 77, 80, 0, PLAIN},
    {JCS_YCbCr, 0x121111, 52, 60, 90, 3, OPTIMISED},
    {JCS_YCbCr, 0x121111, 40, 66, 70, 0, PROGRESSIVE},
    {JCS_YCbCr, 0x411111, 99, 30, 85, 0, PLAIN},
    {JCS_YCbCr, 0x411111, 70, 44, 75, 2, OPTIMISED},
    {JCS_YCbCr, 0x411111, 64, 20, 75, 0, PROGRESSIVE},
    {JCS_YCbCr, 0x141111, 30, 70, 75, 0, PLAIN},
    {JCS_YCbCr, 0x421111, 66, 33, 75, 0, PLAIN},
    {JCS_YCbCr, 0x112111, 50, 40, 75, 0, PLAIN},
    {JCS_YCbCr, 0x222111, 50, 40, 75, 2, PLAIN},
    {JCS_YCbCr, 0x221111, 41, 43, 75, 2, ARITHMETIC},
    {JCS_YCbCr, 0x111111, 31, 33, 85, 0, ARITHMETIC | PROGRESSIVE},
    {JCS_RGB, 0x111111, 40, 41, 90, 0, PLAIN},
    {JCS_RGB, 0x111111, 56, 30, 80, 3, PROGRESSIVE},
    {JCS_GRAYSCALE, 0x111111, 83, 61, 75, 0, PLAIN},
    {JCS_GRAYSCALE, 0x111111, 100, 72, 95, 3, OPTIMISED},
    {JCS_GRAYSCALE, 0x111111, 64, 64, 60, 0, PROGRESSIVE},
    {JCS_GRAYSCALE, 0x221111, 50, 40, 80, 5, PLAIN},
    {JCS_CMYK, 0x111111, 42, 37, 80, 0, PLAIN},
    {JCS_CMYK, 0x111111, 40, 24, 80, 2, PROGRESSIVE},
    {JCS_YCCK, 0x111111, 40, 30, 80, 3, PLAIN},
    {JCS_YCCK, 0x221111, 40, 50, 80, 0, PLAIN},
    {JCS_YCbCr, 0x221111, 70, 60, 90, 0, WILD},
    {JCS_YCbCr, 0x111111, 41, 43, 101, 2, WILD | OPTIMISED},
    {JCS_YCbCr, 0x211111, 50, 30, 1000, 0, WILD | OPTIMISED},
    {JCS_YCbCr, 0x221111, 50, 40, 300, 0, WILD | PROGRESSIVE},
    {JCS_GRAYSCALE, 0x111111, 60, 41, 9000, 0, WILD | OPTIMISED},
    {JCS_GRAYSCALE, 0x111111, 66, 40, 32767, 3, WILD | OPTIMISED},
    {JCS_GRAYSCALE, 0x331111, 40, 40, 110, 0, WILD | OPTIMISED},
    {JCS_YCbCr, 0x312111, 50, 40, 90, 0, WILD},                /* what libjpeg does not decode */
    {JCS_YCbCr, 0x131211, 50, 40, 90, 3, WILD | OPTIMISED},    /* the same */
    {JCS_YCbCr, 0x211211, 50, 40, 90, 0, WILD},
    {JCS_YCbCr, 0x221211, 50, 70, 90, 0, WILD | PROGRESSIVE},
    {JCS_YCbCr, 0x112122, 60, 40, 90, 0, WILD | OPTIMISED},
    {JCS_YCbCr, 0x222222, 50, 40, 90, 0, WILD | APART}, /* no MCU holds so many blocks */
};

/* Waves with noise; blocks of all sorts. */
static void draw_row(uint8_t *row, int width, int channels, int y) {
    for (int x = 0; x < width; x++)
        for (int c = 0; c < channels; c++) {
            int wave = (x * (3 + 2 * c) + y * (5 - c)) % 97, square = (x >> 4 ^ y >> 4) & 1;
            int noise = (int)fuzz_draw(x < width / 2 ? 60 : 6);
            row[x * channels + c] = (uint8_t)(square * 100 + wave + noise);
        }
}

static void say_nothing(j_common_ptr common) { (void)common; }

/* Most are small, some as large as a file can say. */
static void draw_block(JBLOCK block) {
    block[0] = (JCOEF)((int)fuzz_draw(fuzz_draw(3) ? 60 : 2047) - (int)fuzz_draw(60));
    for (int i = (int)fuzz_draw(64); i > 0; i = (int)fuzz_draw((uint32_t)i)) {
        int size = fuzz_draw(4) ? 3 : 1 + (int)fuzz_draw(10);
        block[i] = (JCOEF)((int)fuzz_draw(2u << size) - (1 << size));
        block[i] = (JCOEF)(block[i] > 1023 ? 1023 : block[i] < -1023 ? -1023 : block[i]);
    }
}

static void write_wild(j_compress_ptr jpeg) {
    jvirt_barray_ptr arrays[4];
    int across = 1, down = 1;
    for (int i = 0; i < jpeg->num_components; i++) {
        int h = jpeg->comp_info[i].h_samp_factor, v = jpeg->comp_info[i].v_samp_factor;
        across = h > across ? h : across;
        down = v > down ? v : down;
    }
    JDIMENSION columns = (jpeg->image_width + 8 * across - 1) / (8 * across);
    JDIMENSION rows = (jpeg->image_height + 8 * down - 1) / (8 * down);
    for (int i = 0; i < jpeg->num_components; i++) {
        const jpeg_component_info *component = &jpeg->comp_info[i];
        arrays[i] = (*jpeg->mem->request_virt_barray)(
            (j_common_ptr)jpeg, JPOOL_IMAGE, TRUE, columns * component->h_samp_factor,
            rows * component->v_samp_factor, component->v_samp_factor);
    }
    jpeg_write_coefficients(jpeg, arrays);
    for (int i = 0; i < jpeg->num_components; i++)
        for (JDIMENSION y = 0; y < jpeg->comp_info[i].height_in_blocks; y++) {
            JBLOCKARRAY row =
                (*jpeg->mem->access_virt_barray)((j_common_ptr)jpeg, arrays[i], y, 1, TRUE);
            for (JDIMENSION x = 0; x < jpeg->comp_info[i].width_in_blocks; x++)
                draw_block(row[0][x]);
        }
}

static void write_picture(j_compress_ptr jpeg) {
    uint8_t *row = malloc((size_t)jpeg->image_width * (size_t)jpeg->input_components);
    jpeg_start_compress(jpeg, TRUE);
    for (int y = 0; y < (int)jpeg->image_height; y++) {
        draw_row(row, (int)jpeg->image_width, jpeg->input_components, y);
        jpeg_write_scanlines(jpeg, &row, 1);
    }
    free(row);
}

struct file fuzz_made(int number) {
    struct file file = {NULL, 0};
    if (number >= (int)(sizeof kinds / sizeof *kinds))
        return file;
    const struct kind *kind = &kinds[number];
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    unsigned long count = 0;
    unsigned int steps[64];
    int inks = kind->colours == JCS_CMYK || kind->colours == JCS_YCCK;
    int channels = inks ? 4 : kind->colours == JCS_GRAYSCALE ? 1 : 3;
    fuzz_seed((uint64_t)number);
    jpeg.err = jpeg_std_error(&errors);
    errors.output_message = say_nothing; /* that steps are large */
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &file.bytes, &count);
    jpeg.image_width = (JDIMENSION)kind->width;
    jpeg.image_height = (JDIMENSION)kind->height;
    jpeg.input_components = channels;
    jpeg.in_color_space = inks ? JCS_CMYK : channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_colorspace(&jpeg, kind->colours);
    jpeg_set_quality(&jpeg, kind->quality > 100 ? 75 : kind->quality, TRUE);
    for (int i = 0; i < 64; i++)
        steps[i] = (unsigned)kind->quality;
    for (int i = 0; kind->quality > 100 && i < 2; i++)
        jpeg_add_quant_table(&jpeg, i, steps, 100, FALSE);
    for (int i = 0; i < channels; i++) {
        int sampling = kind->samplings >> (i == 0 || i == 3 ? 16 : 16 - 8 * i) & 255;
        jpeg.comp_info[i].h_samp_factor = sampling >> 4;
        jpeg.comp_info[i].v_samp_factor = sampling & 15;
    }
    jpeg.restart_interval = (unsigned)kind->interval;
    jpeg.optimize_coding = (kind->how & OPTIMISED) != 0;
    jpeg.arith_code = (kind->how & ARITHMETIC) != 0;
    if (kind->how & PROGRESSIVE)
        jpeg_simple_progression(&jpeg);
    jpeg_scan_info scans[3] = {{1, {0}, 0, 63, 0, 0}, {1, {1}, 0, 63, 0, 0}, {1, {2}, 0, 63, 0, 0}};
    if (kind->how & APART) {
        jpeg.scan_info = scans;
        jpeg.num_scans = 3;
    }
    if (kind->how & WILD)
        write_wild(&jpeg);
    else
        write_picture(&jpeg);
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    file.count = count;
    return file;
}
