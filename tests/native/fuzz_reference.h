/* What libjpeg itself makes of a JPEG file. */
#ifndef FUZZ_REFERENCE_H
#define FUZZ_REFERENCE_H

#include "fuzz_mutate.h"

struct reference {
    uint8_t *rgb; /* (height, width, 3), to be freed; NULL if it is not sound */
    int width, height;
    char reason[200];
};

/* Decode all of a file and read it to its end. It is sound without any warning but the two about
   metadata, within the limits of size, memory and scans. */
struct reference fuzz_reference(struct file file);

#endif
