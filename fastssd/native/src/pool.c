#include "pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#define MAX_WORKERS 256

/* A job lives on its caller's stack: workers may touch it only between `helpers` going up, which
   happens under the lock while the job is listed, and going down. */
struct job {
    fastssd_task task;
    void *context;
    int items;
    int wanted;       /* helpers that may still join */
    int helpers;      /* that are at work */
    atomic_int next;  /* the item to be taken */
    struct job *after;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t posted = PTHREAD_COND_INITIALIZER;
static pthread_cond_t left = PTHREAD_COND_INITIALIZER;
static struct job *jobs;
static int num_workers, demand;  /* demand: helpers that the listed jobs asked for together */
static int watches_forks;

static void run(struct job *job) {
    int item;
    while ((item = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed)) < job->items)
        job->task(job->context, item);
}

static struct job *joinable(void) {
    struct job *job = jobs;
    while (job && job->wanted == 0)
        job = job->after;
    return job;
}

static void *worker(void *unused) {
    (void)unused;
    pthread_mutex_lock(&lock);
    for (;;) {
        struct job *job = joinable();
        if (!job) {
            pthread_cond_wait(&posted, &lock);
            continue;
        }
        job->wanted--;
        job->helpers++;
        pthread_mutex_unlock(&lock);
        run(job);
        pthread_mutex_lock(&lock);
        job->wanted = 0;
        if (--job->helpers == 0)
            pthread_cond_broadcast(&left);
    }
    return NULL;
}

/* A child has none of its parent's threads, and whatever they held. */
static void in_child(void) {
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&posted, NULL);
    pthread_cond_init(&left, NULL);
    jobs = NULL;
    num_workers = demand = 0;
}

static void start_workers(void) {
    if (!watches_forks) {
        pthread_atfork(NULL, NULL, in_child);
        watches_forks = 1;
    }
    while (num_workers < demand && num_workers < MAX_WORKERS) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, NULL) != 0)
            return;
        pthread_detach(thread);
        num_workers++;
    }
}

void fastssd_parallel(int threads, int items, fastssd_task task, void *context) {
    struct job job = {.task = task, .context = context, .items = items};
    atomic_init(&job.next, 0);
    int wanted = (threads < items ? threads : items) - 1;
    if (wanted > 0) {
        pthread_mutex_lock(&lock);
        demand += wanted;
        start_workers();
        job.wanted = wanted;
        job.after = jobs;
        jobs = &job;
        pthread_cond_broadcast(&posted);
        pthread_mutex_unlock(&lock);
    }
    run(&job);
    if (wanted > 0) {
        pthread_mutex_lock(&lock);
        job.wanted = 0;
        demand -= wanted;
        struct job **link = &jobs;
        while (*link != &job)
            link = &(*link)->after;
        *link = job.after;
        while (job.helpers > 0)
            pthread_cond_wait(&left, &lock);
        pthread_mutex_unlock(&lock);
    }
}

int fastssd_abi(void) { return 1; }
