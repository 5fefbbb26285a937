/* Augmentation of a batch of decoded crops, each by its own parameters. */
#ifndef FASTSSD_AUGMENT_H
#define FASTSSD_AUGMENT_H

#include <stdint.h>

/* Parameters that a recipe does not have are NULL; all others hold one entry an image. */
struct fastssd_augmentation {
    int64_t num_images;
    int64_t side;
    int64_t num_steps;         /* of the jitter: 3, or 4 with hue */
    int64_t blur_radius;       /* in pixels, less than `side` */
    const uint8_t *pixels;     /* (images, side, side, 3) */
    const uint8_t *flip;       /* whether left and right are exchanged */
    const float *jitter;       /* (images, num_steps) factors of brightness, ... */
    const int64_t *order;      /* (images, num_steps) in which those apply */
    const uint8_t *grayscale;  /* whether the colours are taken away */
    const float *blur;         /* standard deviation in pixels, 0 for none */
    const int64_t *turns;      /* of `turned`, in quarters counter-clockwise, 0 to 3 */
    float scale[3], shift[3];  /* of the channels in [0, 1]: value * scale + shift */
    float *finished;           /* (images, side, side, 3) */
    float *turned;             /* the same, each image turned; or NULL */
};

/* Finish a batch on at most `threads` threads; the bits depend neither on their number nor on the
   other images. Returns 0, or what of these is the matter. */
enum { FASTSSD_AUGMENT_MEMORY = -1, FASTSSD_AUGMENT_ORDER = -2 };
int fastssd_augment(const struct fastssd_augmentation *job, int threads);

#endif
