/* Helper threads for all programs of a process, and memory that each thread has for itself.
 *
 * Work is claimed in pieces: a helper that the system has not scheduled costs nothing, since the
 * calling thread takes the pieces itself, the first ones first; helpers take the last or the first
 * ones. So a thread finds in its own cache what it has made before, where pieces of one job and the
 * next are of the same rows. Whoever finds the helpers busy with another caller's work does its own
 * alone. After a fork the child has no helpers and works alone too. */
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
/* The most pieces of a job; more are several jobs. */
#define PIECES 0xffff

typedef void (*task_t)(void **table, long begin, long end);

static struct {
    task_t run;
    void **table;
    long begin, size, piece;
} job;
/* The pieces of a job that are not yet claimed: the first, 16 bits, and where they end, 16 bits;
 * before these the number of the job. */
static _Atomic uint64_t ticket;
static _Atomic uint32_t left; /* pieces not yet done */
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

static inline int claimed(uint64_t t) { return (uint16_t)t == (uint16_t)(t >> 16); }

/* Claim the first or the last piece and do it. The job does not change while a claimed piece is
 * undone. */
static int work(int first) {
    uint64_t t = atomic_load(&ticket);
    while (!claimed(t)) {
        const uint64_t rest = first ? t + 1 : t - (1 << 16);
        if (!atomic_compare_exchange_weak(&ticket, &t, rest)) continue;
        const long number = first ? (uint16_t)t : (uint16_t)(rest >> 16);
        const long begin = job.begin + number * job.piece, end = begin + job.piece;
        job.run(job.table, begin, end < job.size ? end : job.size);
        atomic_fetch_sub(&left, 1);
        return 1;
    }
    return 0;
}

static void *helper(void *number) {
    const int first = (uintptr_t)number % 2;
    for (;;) {
        for (int spin = 0; spin < 4000; spin++) {
            if (work(first)) spin = 0;
            else pause_a_little();
        }
        pthread_mutex_lock(&mutex);
        atomic_fetch_add(&asleep, 1);
        while (claimed(atomic_load(&ticket))) pthread_cond_wait(&wake, &mutex);
        atomic_fetch_sub(&asleep, 1);
        pthread_mutex_unlock(&mutex);
    }
    return number;
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
        void *number = (void *)(uintptr_t)atomic_load(&helpers);
        if (pthread_create(&id, &attributes, helper, number)) break;
        pthread_detach(id);
        atomic_fetch_add(&helpers, 1);
    }
    pthread_attr_destroy(&attributes);
    pthread_mutex_unlock(&starting);
}

/* Run a task over [begin, size) in pieces, PIECES of them at most, with the helpers. */
static void run_together(task_t run, void **table, long begin, long size, long piece) {
    const uint64_t count = (size - begin + piece - 1) / piece;
    job.run = run;
    job.table = table;
    job.begin = begin;
    job.size = size;
    job.piece = piece;
    atomic_store(&left, (uint32_t)count);
    atomic_store(&ticket, ((atomic_load(&ticket) >> 32) + 1) << 32 | count << 16);
    if (atomic_load(&asleep)) {
        pthread_mutex_lock(&mutex);
        pthread_cond_broadcast(&wake);
        pthread_mutex_unlock(&mutex);
    }
    while (work(1)) {
    }
    for (int spin = 0; atomic_load(&left); spin++) {
        if (spin < 2000) pause_a_little();
        else sched_yield();
    }
}

/* Run a task over [0, size) in pieces. */
void tg_run(task_t run, void **table, long size, long piece) {
    int idle = 0;
    if (!atomic_load(&helpers) || piece >= size ||
        !atomic_compare_exchange_strong(&busy, &idle, 1)) {
        for (long begin = 0; begin < size; begin += piece)
            run(table, begin, begin + piece < size ? begin + piece : size);
        return;
    }
    for (long begin = 0; begin < size; begin += PIECES * piece) {
        const long rest = size - begin;
        run_together(run, table, begin, rest / piece < PIECES ? size : begin + PIECES * piece,
                     piece);
    }
    atomic_store(&busy, 0);
}
