/* Asking the system to read parts of mapped files before they are needed, and to write parts of
   files before someone waits for it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES_AT_ONCE 1024

static int is_resident(uint64_t start, size_t bytes, size_t page) {
#ifdef __APPLE__
    char pages[PAGES_AT_ONCE];
#else
    unsigned char pages[PAGES_AT_ONCE];
#endif
    while (bytes > 0) {
        size_t part = bytes < PAGES_AT_ONCE * page ? bytes : PAGES_AT_ONCE * page;
        if (mincore((void *)(uintptr_t)start, part, pages) != 0)
            return 0;
        for (size_t i = 0; i < (part + page - 1) / page; i++)
            if (!(pages[i] & 1))
                return 0;
        start += part;
        bytes -= part;
    }
    return 1;
}

/* Let the system read the ranges that are not in memory; does not wait for the disk. Returns how
   many those were. With `look` 0 it asks for all ranges, and counts all. */
int64_t fastssd_advise(const uint64_t *addresses, const int64_t *num_bytes, int64_t count,
                       int look) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    int64_t absent = 0;
    for (int64_t i = 0; i < count; i++) {
        uint64_t start = addresses[i] / page * page;
        size_t bytes = (size_t)(addresses[i] - start) + (size_t)num_bytes[i];
        if (num_bytes[i] < 1 || (look && is_resident(start, bytes, page)))
            continue;
        absent++;
        madvise((void *)(uintptr_t)start, bytes, MADV_WILLNEED);
    }
    return absent;
}

/* Have a page that is wanted read alone, without the neighbours that the system expects to be wanted
   next: up to megabytes of them, which in a file larger than memory push out what is. */
void fastssd_expect_random(uint64_t address, int64_t num_bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint64_t start = address / page * page;
    if (num_bytes > 0)
        madvise((void *)(uintptr_t)start, (size_t)(address - start) + (size_t)num_bytes,
                MADV_RANDOM);
}

/* Let the system begin to write what a file has so far to the disk; does not wait for it. */
void fastssd_write_behind(int file, int64_t start, int64_t num_bytes) {
#ifdef SYNC_FILE_RANGE_WRITE
    (void)!sync_file_range(file, start, num_bytes, SYNC_FILE_RANGE_WRITE);
#else
    (void)file, (void)start, (void)num_bytes;
#endif
}
