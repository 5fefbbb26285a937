/* Small sound JPEG files of all kinds that libjpeg can write. */
#ifndef FUZZ_CORPUS_H
#define FUZZ_CORPUS_H

#include "fuzz_mutate.h"

/* Make the file of this number, to be freed; without bytes where there is none. */
struct file fuzz_made(int number);

#endif
