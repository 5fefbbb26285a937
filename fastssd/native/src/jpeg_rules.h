/* What decoding, checking and rewriting agree on: which JPEG files are taken. */
#ifndef FASTSSD_JPEG_RULES_H
#define FASTSSD_JPEG_RULES_H

#include <stdint.h>
#include <stdio.h>

#include <jpeglib.h>

#include <jerror.h>

#define FASTSSD_REASON JMSG_LENGTH_MAX /* bytes of a reason, with its end: libjpeg's longest */
#define FASTSSD_MAX_PIXELS ((int64_t)1 << 28) /* of an image: more are an attack on memory */
#define FASTSSD_MAX_SCANS 500 /* each is a pass over the image: a few kB can ask for hours */

/* Whether one of libjpeg's warnings is about metadata alone. All others say that the pixels to
   come are made up. */
static inline int fastssd_is_harmless(int code) {
    return code == JWRN_JFIF_MAJOR || code == JWRN_ADOBE_XFORM;
}

/* Whether all bits of all coefficients were there. Decoders smooth the blocks of a progressive file
   that never got them. */
static inline int fastssd_is_refined(j_decompress_ptr jpeg) {
    if (jpeg->progressive_mode)
        for (int component = 0; component < jpeg->num_components; component++)
            for (int k = 0; k < DCTSIZE2; k++)
                if (jpeg->coef_bits[component][k] != 0)
                    return 0;
    return 1;
}

#endif
