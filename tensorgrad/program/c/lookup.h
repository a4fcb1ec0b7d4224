/* Rows of a table that are named by number: sums of those with equal numbers, and updates of them.
 *
 * Equal numbers are linked into chains, in order of their places. A chain has one owner, its first
 * place, which does all the work for it: so threads write to different rows, and sums have their
 * order. After support.h. */
#ifndef TG_LOOKUP
#define TG_LOOKUP

/* Of count numbers, of which those below zero name no row: next[i] is the next place with the number
 * of place i, or -1; first[i] whether none before it has that number. named: the numbers, those that
 * name no row being replaced by the first that does (0 if there is none). ends: the first place that
 * names a row, and the first that does not, or -1. table: 2^bits places, twice as many as numbers or
 * more. */
TG void tg_row_links(long count, long bits, const int64_t *keys, int32_t *next, uint8_t *first,
                     int64_t *named, int32_t *ends, int32_t *table, long begin, long end) {
    const uint64_t mask = ((uint64_t)1 << bits) - 1;
    (void)begin, (void)end;
    memset(table, 0xff, sizeof(int32_t) << bits);
    ends[0] = ends[1] = -1;
    for (long i = count - 1; i >= 0; i--) {
        uint64_t at = (uint64_t)keys[i] * 0x9E3779B97F4A7C15u >> (64 - bits);
        int32_t head;
        while ((head = table[at]) >= 0 && keys[head] != keys[i]) at = (at + 1) & mask;
        if (head >= 0) first[head] = 0;
        first[i] = 1;
        next[i] = head;
        table[at] = (int32_t)i;
        ends[keys[i] < 0] = (int32_t)i;
        named[i] = keys[i];
    }
    const int64_t instead = ends[0] < 0 ? 0 : keys[ends[0]];
    for (long i = ends[1]; i >= 0; i = next[i]) named[i] = instead;
}

/* The same chains by the numbers themselves, which are below rows: heads[k] is the first place with
 * number k, or -1. */
TG void tg_row_heads(long count, long rows, const int64_t *keys, int32_t *heads, int32_t *next,
                     long begin, long end) {
    (void)begin, (void)end;
    memset(heads, 0xff, rows * sizeof(int32_t));
    for (long i = count - 1; i >= 0; i--) {
        next[i] = heads[keys[i]];
        heads[keys[i]] = (int32_t)i;
    }
}

/* So many rows ahead a row of the table is asked for: it may lie anywhere. */
#define TG_AHEAD 8
#define TG_CACHE_LINE 64

/* Rows that are added up in their own type, as in ops/sums.py; more are added in double, so many
 * columns at a time. */
#define TG_FEW_ROWS 128
#define TG_WIDE_COLUMNS 64

#define TG_LOOKUP_OF(T, s)                                                                         \
    /* sum: the sum of the rows of the chain that begins at i, in order. */                        \
    TG void tg_chain_##s(long length, long i, const T *restrict rows,                              \
                         const int32_t *restrict next, T *restrict sum) {                          \
        long more = 0;                                                                             \
        for (long j = next[i]; j >= 0 && more < TG_FEW_ROWS; j = next[j]) more++;                  \
        memcpy(sum, rows + i * length, length * sizeof(T));                                        \
        if (more < TG_FEW_ROWS) {                                                                  \
            for (long j = next[i]; j >= 0; j = next[j])                                            \
                for (long c = 0; c < length; c++) sum[c] += rows[j * length + c];                  \
            return;                                                                                \
        }                                                                                          \
        for (long from = 0; from < length; from += TG_WIDE_COLUMNS) {                              \
            const long n = length - from < TG_WIDE_COLUMNS ? length - from : TG_WIDE_COLUMNS;      \
            double wide[TG_WIDE_COLUMNS] = {0};                                                    \
            for (long j = i; j >= 0; j = next[j])                                                  \
                for (long c = 0; c < n; c++) wide[c] += rows[j * length + from + c];               \
            for (long c = 0; c < n; c++) sum[from + c] = (T)wide[c];                               \
        }                                                                                          \
    }                                                                                              \
    /* sums[i]: the sum of all rows whose number is that of row i, as tg_row_links has named it. */  \
    TG void tg_row_sums_##s(long length, const T *restrict rows, const int64_t *restrict keys,     \
                            const int32_t *restrict next, const uint8_t *restrict first,           \
                            const int32_t *restrict ends, T *restrict sums, long begin,            \
                            long end) {                                                            \
        for (long i = begin; i < end; i++) {                                                       \
            if (!first[i]) continue;                                                               \
            if (keys[i] < 0) { /* or they would have no numbers: where there is no row at all */   \
                if (ends[0] < 0)                                                                   \
                    for (long j = i; j >= 0; j = next[j]) memset(sums + j * length, 0, length * sizeof(T));\
                continue;                                                                          \
            }                                                                                      \
            T *sum = sums + i * length;                                                            \
            tg_chain_##s(length, i, rows, next, sum);                                              \
            for (long j = next[i]; j >= 0; j = next[j])                                            \
                memcpy(sums + j * length, sum, length * sizeof(T));                                \
            if (i == ends[0])                                                                      \
                for (long j = ends[1]; j >= 0; j = next[j])                                        \
                    memcpy(sums + j * length, sum, length * sizeof(T));                            \
        }                                                                                          \
    }                                                                                              \
    /* A table of which each row is the sum of the rows with its number. */                        \
    TG void tg_table_of_##s(long length, const T *restrict rows, const int32_t *restrict heads,    \
                            const int32_t *restrict next, T *restrict table, long begin,           \
                            long end) {                                                            \
        for (long k = begin; k < end; k++) {                                                       \
            T *row = table + k * length;                                                           \
            if (heads[k] < 0) memset(row, 0, length * sizeof(T));                                  \
            else tg_chain_##s(length, heads[k], rows, next, row);                                  \
        }                                                                                          \
    }                                                                                              \
    /* Of the table p, row keys[i] less rate times the sum of all rows with that number. */        \
    TG void tg_descend_rows_##s(long length, const int64_t *restrict keys,                         \
                                const T *restrict rows, const int32_t *restrict next,              \
                                const uint8_t *restrict first, const T *restrict rate,             \
                                const T *given, T *restrict p, long begin, long end) {             \
        T *const sum = tg_rows(0);                                                                 \
        (void)given;                                                                               \
        for (long i = begin; i < end; i++) {                                                       \
            if (i + TG_AHEAD < end)                                                                \
                for (long at = 0; at < length * (long)sizeof(T); at += TG_CACHE_LINE)              \
                    __builtin_prefetch((char *)(p + keys[i + TG_AHEAD] * length) + at, 1);         \
            if (!first[i] || keys[i] < 0) continue;                                                               \
            T *row = p + keys[i] * length;                                                         \
            const T *g = rows + i * length;                                                        \
            if (next[i] >= 0) {                                                                    \
                tg_chain_##s(length, i, rows, next, sum);                                          \
                g = sum;                                                                           \
            }                                                                                      \
            for (long c = 0; c < length; c++) row[c] -= *rate * g[c];                              \
        }                                                                                          \
    }

TG_LOOKUP_OF(float, f)
TG_LOOKUP_OF(double, d)

#endif
