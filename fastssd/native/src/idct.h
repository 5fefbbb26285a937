/* From dequantised coefficients, in natural order, to samples. */
#ifndef FASTSSD_IDCT_H
#define FASTSSD_IDCT_H

#include <stdint.h>

/* Two blocks to 8 x 8 samples each: libjpeg's accurate integer transform (JDCT_ISLOW), bit for
   bit. `coefficients` is aligned to 32 bytes. Sets *wild where a value of the first row is too
   large for that. */
void fastssd_idct_pair(const int16_t coefficients[2][64], uint8_t *const out[2],
                       const int stride[2], int plain, int *wild);

/* A block of which only the first coefficient is not zero, to size x size samples. Sets *wild, as
   above. */
void fastssd_idct_flat(int16_t coefficient, uint8_t *out, int stride, int size, int *wild);

/* A block to size x size samples, 4, 2 or 1: each is the mean of a square of the 8 x 8. */
void fastssd_idct_small(const int16_t coefficients[64], uint8_t *out, int stride, int size);

#endif
