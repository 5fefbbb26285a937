/* Mapped files that are cut short, or whose disk fails, while they are read.

   The system answers with SIGBUS, which ends a process without a word. Here the rest of the mapping
   becomes zeros and the file is marked, so that whoever read it can look and say so. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define MOST_RANGES 16384

/* A range without an end is free. */
static struct {
    atomic_uintptr_t start, end;
    atomic_int is_broken;
} ranges[MOST_RANGES];
static atomic_int num_ranges; /* that were ever in use */
static pthread_mutex_t changing = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before;
static uintptr_t page_bytes;

static void on_bus_error(int number, siginfo_t *info, void *context) {
    int kept = errno;
    uintptr_t at = (uintptr_t)info->si_addr;
    int count = atomic_load(&num_ranges);
    for (int i = 0; i < count; i++) {
        uintptr_t end = atomic_load(&ranges[i].end);
        if (at < atomic_load(&ranges[i].start) || at >= end)
            continue;
        uintptr_t page = at / page_bytes * page_bytes;
        atomic_store(&ranges[i].is_broken, 1); /* before anyone can read the zeros */
        if (mmap((void *)page, end - page, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED) {
            errno = kept;
            return; /* and the read is tried again */
        }
    }
    /* Not ours: the read is tried again under whoever was asked before. */
    sigaction(number, &before, NULL);
    errno = kept;
    (void)context;
}

/* Watch a mapping, which begins at a page. Returns its number, or -1 if there are too many. */
int fastssd_guard(uint64_t start, int64_t num_bytes) {
    int number = -1;
    pthread_mutex_lock(&changing);
    if (!page_bytes) {
        struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
        page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
        sigemptyset(&action.sa_mask);
        sigaction(SIGBUS, &action, &before);
    }
    int count = atomic_load(&num_ranges);
    for (int i = 0; i < count && number < 0; i++)
        if (!atomic_load(&ranges[i].end))
            number = i;
    if (number < 0 && count < MOST_RANGES)
        number = count;
    if (number >= 0) {
        uintptr_t end = (uintptr_t)start + (uintptr_t)num_bytes;
        atomic_store(&ranges[number].is_broken, 0);
        atomic_store(&ranges[number].start, (uintptr_t)start);
        atomic_store(&ranges[number].end, (end + page_bytes - 1) / page_bytes * page_bytes);
        if (number == count)
            atomic_store(&num_ranges, count + 1);
    }
    pthread_mutex_unlock(&changing);
    return number;
}

/* Watch a mapping no longer; to be called before it is gone. */
void fastssd_unguard(int number) {
    pthread_mutex_lock(&changing);
    atomic_store(&ranges[number].end, 0);
    atomic_store(&ranges[number].is_broken, 0);
    pthread_mutex_unlock(&changing);
}

/* Return the number of a mapping that could not be read, or -1. */
int fastssd_broken(void) {
    int count = atomic_load(&num_ranges);
    for (int i = 0; i < count; i++)
        if (atomic_load(&ranges[i].is_broken))
            return i;
    return -1;
}
