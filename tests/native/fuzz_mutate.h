/* Mutations of JPEG files by their structure: header fields, tables, markers, scans, data. */
#ifndef FUZZ_MUTATE_H
#define FUZZ_MUTATE_H

#include <stddef.h>
#include <stdint.h>

struct file {
    uint8_t *bytes;
    size_t count;
};

/* Start the sequence of draws anew. */
void fuzz_seed(uint64_t seed);

/* Draw a number below `below`, at least 1. */
uint32_t fuzz_draw(uint32_t below);

/* Return a mutated copy of a file, in memory of its exact size, to be freed. Parts of `other` may
   be put into it. */
struct file fuzz_mutated(struct file original, struct file other);

#endif
