/* Helper threads for all programs of a process, and memory that each thread has for itself.
 *
 * Work is claimed in pieces: a helper that the system has not scheduled costs nothing, since the
 * calling thread takes the pieces itself. Whoever finds the helpers busy with another caller's work
 * does its own alone. After a fork the child has no helpers and works alone too. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

/* Bytes for what a part of the work keeps: rows of a nest (c_source.py has half of it), a tile. */
#define ROWS (1 << 18)
/* Of a helper's stack, which nothing of ours fills: BLAS wants some, and a process may have set a
 * default for its threads that is very small. */
#define STACK (1 << 20)

typedef void (*task_t)(void **table, long begin, long end);

static struct {
    task_t run;
    void **table;
    long size, piece;
} job;
static _Atomic uint64_t ticket;  /* number of the job, shifted by 32, and pieces not yet claimed */
static _Atomic uint32_t left;    /* pieces not yet done */
static _Atomic int asleep, busy, helpers;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local char rows[ROWS] __attribute__((aligned(64)));

static inline void pause_a_little(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Memory of the calling thread's own. It is no part of the stack, which may be small. */
void *tg_rows(void) { return rows; }

/* Claim a piece and do it. The job does not change while a claimed piece is undone. */
static int work(void) {
    uint64_t t = atomic_load(&ticket);
    while ((uint32_t)t) {
        if (!atomic_compare_exchange_weak(&ticket, &t, t - 1)) continue;
        long begin = (long)((uint32_t)t - 1) * job.piece, end = begin + job.piece;
        job.run(job.table, begin, end < job.size ? end : job.size);
        atomic_fetch_sub(&left, 1);
        return 1;
    }
    return 0;
}

static void *helper(void *unused) {
    for (;;) {
        for (int spin = 0; spin < 4000; spin++) {
            if (work()) spin = 0;
            else pause_a_little();
        }
        pthread_mutex_lock(&mutex);
        atomic_fetch_add(&asleep, 1);
        while (!(uint32_t)atomic_load(&ticket)) pthread_cond_wait(&wake, &mutex);
        atomic_fetch_sub(&asleep, 1);
        pthread_mutex_unlock(&mutex);
    }
    return unused;
}

/* In the child after a fork, where one thread is and whatever others held is still held. */
static void in_child(void) {
    pthread_mutex_init(&mutex, 0);
    pthread_cond_init(&wake, 0);
    pthread_mutex_init(&starting, 0);
    atomic_store(&helpers, 0);
    atomic_store(&asleep, 0);
    atomic_store(&busy, 0);
    atomic_store(&ticket, 0);
}

/* Start helpers until there are `count`. */
void tg_start(int count) {
    static int registered;
    pthread_mutex_lock(&starting);
    if (!registered) registered = !pthread_atfork(0, 0, in_child);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    while (atomic_load(&helpers) < count) {
        pthread_t id;
        if (pthread_create(&id, &attributes, helper, 0)) break;
        pthread_detach(id);
        atomic_fetch_add(&helpers, 1);
    }
    pthread_attr_destroy(&attributes);
    pthread_mutex_unlock(&starting);
}

/* Run a task over [0, size) in pieces. */
void tg_run(task_t run, void **table, long size, long piece) {
    long count = (size + piece - 1) / piece;
    int idle = 0;
    if (!atomic_load(&helpers) || count < 2 || !atomic_compare_exchange_strong(&busy, &idle, 1)) {
        for (long begin = 0; begin < size; begin += piece)
            run(table, begin, begin + piece < size ? begin + piece : size);
        return;
    }
    job.run = run;
    job.table = table;
    job.size = size;
    job.piece = piece;
    atomic_store(&left, (uint32_t)count);
    atomic_store(&ticket, ((atomic_load(&ticket) >> 32) + 1) << 32 | (uint64_t)count);
    if (atomic_load(&asleep)) {
        pthread_mutex_lock(&mutex);
        pthread_cond_broadcast(&wake);
        pthread_mutex_unlock(&mutex);
    }
    while (work()) {
    }
    for (int spin = 0; atomic_load(&left); spin++) {
        if (spin < 2000) pause_a_little();
        else sched_yield();
    }
    atomic_store(&busy, 0);
}
