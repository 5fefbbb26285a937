/* Ending a process in which not even the interpreter runs any more. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_BYTES 1024
#define LOOKS 8 /* in the time that is allowed */
#define LONGEST_LOOK 5.0

struct watch {
    int number, dump_signal;
    double seconds;
    char message[MESSAGE_BYTES];
};

static atomic_int current; /* number of the watch that counts; others end */
static atomic_int has_beaten;

/* Return how long it has been silent after another look, in seconds. A look that comes late counts
   for no more than two: then the whole process was stopped, and did not hang. */
double fastssd_silence(double before, double since_last_look, double look) {
    return before + (since_last_look < 2 * look ? since_last_look : 2 * look);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void *count(void *argument) {
    struct watch *watch = argument;
    double look = watch->seconds / LOOKS < LONGEST_LOOK ? watch->seconds / LOOKS : LONGEST_LOOK;
    struct timespec pause = {(time_t)look, (long)(1e9 * (look - (double)(time_t)look))};
    double silence = 0, last = now();
    while (silence <= watch->seconds && atomic_load(&current) == watch->number) {
        nanosleep(&pause, NULL);
        double time = now();
        silence = atomic_exchange(&has_beaten, 0) ? 0 : fastssd_silence(silence, time - last, look);
        last = time;
    }
    if (atomic_load(&current) == watch->number) {
        (void)!write(STDERR_FILENO, watch->message, strlen(watch->message));
        raise(watch->dump_signal);
        _exit(1);
    }
    free(watch);
    return NULL;
}

/* End this process after so many seconds without `fastssd_beat`: with a message, whatever the
   handler of a signal writes, and code 1. A second call takes the place of the first. Returns 0, or
   -1 if there can be no such watch. */
int fastssd_watch(double seconds, int dump_signal, const char *message) {
    struct watch *watch = calloc(1, sizeof *watch);
    pthread_t thread;
    if (!watch)
        return -1;
    watch->number = atomic_fetch_add(&current, 1) + 1;
    watch->dump_signal = dump_signal;
    watch->seconds = seconds;
    strncpy(watch->message, message, MESSAGE_BYTES - 1);
    atomic_store(&has_beaten, 1);
    if (pthread_create(&thread, NULL, count, watch) != 0) {
        free(watch);
        return -1;
    }
    pthread_detach(thread);
    return 0;
}

void fastssd_beat(void) { atomic_store(&has_beaten, 1); }

void fastssd_stop_watching(void) { atomic_fetch_add(&current, 1); }
