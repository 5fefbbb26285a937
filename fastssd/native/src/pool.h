/* Threads that run the items of a job: one pool a process, started when first needed. */
#ifndef FASTSSD_POOL_H
#define FASTSSD_POOL_H

typedef void (*fastssd_task)(void *context, int item);

/* Run task(context, 0 .. items - 1) on at most `threads` threads, the caller's among them, and
   return when all are done. Items are taken in order, one at a time. Several threads may call at
   once. Where no thread can be started the caller does all the work. */
void fastssd_parallel(int threads, int items, fastssd_task task, void *context);

#endif
