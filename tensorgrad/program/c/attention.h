/* Attention: softmax of the products of queries and keys, times values, and its gradients.
 *
 * Queries and keys are gone through in blocks, with a running maximum and sum for each query; the
 * gradients compute the blocks again from the logarithm of that sum (Milakov and Gimelshein, 2018;
 * Dao and others, 2022). What a block needs is packed into memory of the thread, padded to whole
 * tiles: so arrays may lie as they like, and products know no ends. */
#ifndef TG_ATTENTION
#define TG_ATTENTION
#include "products.h"

/* Distances of the elements of an array (heads, rows, columns), of which heads are three axes. */
typedef struct {
    long a, b, c, row, column;
} tg_layout;

/* rows, keys: of a head; d, e: features of keys and of values; high, wide: a block's queries and
 * keys, whole tiles; mask: 1 if of truth values, 2 if of floats, 0 for none; words: of a row for
 * dropout, 0 without; least, factor: words from here on keep, and what is kept is multiplied. */
typedef struct {
    long heads_b, heads_c, rows, keys, d, e, high, wide, causal, mask, words, least;
    float scale, factor;
    tg_layout q, k, v, m;
} tg_attention;

TG long tg_head_of(const tg_attention *s, tg_layout x, long head) {
    return head / (s->heads_b * s->heads_c) * x.a + head / s->heads_c % s->heads_b * x.b +
           head % s->heads_c * x.c;
}

/* The first n lanes, or all. */
TG void tg_put(float *to, tg_vec x, long n) {
    if (n >= TG_L) tg_store(to, x);
    else tg_store_some(to, x, n);
}

/* --- rows of scores --- */

/* Scores [TG_TILE][wide]: of rows of d numbers with the first ``keys`` of the packed ones, which
 * makes whole vectors. */
TG_LARGE void tg_products(long keys, long wide, long d, const float *a, const float *panels, float *c) {
    const long padded = tg_rounded(d, TG_L);
    long j = 0;
    for (; j + TG_L < keys; j += TG_PANEL)
        tg_sum_tile(2, d, a, padded, 1, panels + j * d, TG_PANEL, 0, c + j, wide);
    if (j < keys) tg_sum_tile(1, d, a, padded, 1, panels + j * d, TG_PANEL, 0, c + j, wide);
}

/* Lanes of a vector from column j on that lie before column n. */
TG tg_ivec tg_before(long j, long n) {
    static const int32_t numbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    tg_ivec lane;
    memcpy(&lane, numbers, sizeof lane);
    return lane < tg_isplat(n - j < TG_L ? n - j : TG_L);
}

/* How many of the keys from ``first`` on query number ``row`` sees, of n. */
TG long tg_seen(const tg_attention *s, long row, long first, long n) {
    if (!s->causal) return n;
    long seen = row + 1 - first;
    return seen < 0 ? 0 : tg_smaller(seen, n);
}

/* The mask, at its element for the row and the first key, on n scores. */
TG_LARGE void tg_hide(const tg_attention *s, const void *mask, long at, long n, float *x) {
    if (s->mask == 1) {
        const char *seen = (const char *)mask + at;
        for (long j = 0; j < n; j++) x[j] = seen[j * s->m.column] ? x[j] : -INFINITY;
    } else if (s->mask == 2) {
        const float *more = (const float *)mask + at;
        for (long j = 0; j < n; j++) x[j] += more[j * s->m.column];
    }
}

/* What dropout multiplies the weights of n keys with, of which the first has word ``word``. */
TG_LARGE void tg_kept(const tg_attention *s, int64_t key, int64_t word, long n, float *kept) {
#pragma omp simd
    for (long j = 0; j < n; j++)
        kept[j] = tg_word(key, word + j) >= (uint32_t)s->least ? s->factor : 0.0f;
}

/* The largest of n scores, in vectors; those behind them in their vector become -inf. */
TG_LARGE tg_vec tg_most(float *x, long n) {
    tg_vec top = tg_splat(-INFINITY);
    long j = 0;
    for (; j + TG_L <= n; j += TG_L) top = tg_larger(top, tg_load(x + j));
    if (j < n) {
        tg_vec y = tg_pick(tg_before(j, n), tg_load(x + j), tg_splat(-INFINITY));
        tg_store(x + j, y);
        top = tg_larger(top, y);
    }
    return top;
}

/* Of TG_TILE vectors the largest number, no NaN, and the sum of each. */
TG_LARGE tg_vec tg_largest_of(tg_vec *x) {
    tg_transpose(x);
    TG_UNROLL for (int w = TG_L / 2; w; w /= 2)
        TG_UNROLL for (int i = 0; i < w; i++) x[i] = tg_larger(x[i], x[i + w]);
    return x[0];
}
TG_LARGE tg_vec tg_total_of(tg_vec *x) {
    tg_transpose(x);
    TG_UNROLL for (int w = TG_L / 2; w; w /= 2)
        TG_UNROLL for (int i = 0; i < w; i++) x[i] += x[i + w];
    return x[0];
}

/* Scores of TG_TILE queries become exponentials, n of each row and zeros up to ``end``; ``top`` and
 * ``sum`` go on. ``shrink``: what has to be multiplied with what was summed before. Rows go side by
 * side, as each step waits for the one before. */
TG_LARGE void tg_softmax(float *x, long wide, const long *n, long end, float *top, float *sum,
                         float *shrink) {
    tg_vec found[TG_L] = {{0}};
    float low[TG_L];
    TG_UNROLL for (int r = 0; r < TG_TILE; r++) found[r] = tg_most(x + r * wide, n[r]);
    const tg_vec before = tg_load_some(top, TG_TILE);
    const tg_vec new = tg_larger(tg_largest_of(found), before);
    const tg_vec from = tg_pick(new == -INFINITY, (tg_vec){0}, new);
    const tg_vec less = tg_vexp_weight(before - from);
    tg_store(low, from);
    TG_UNROLL for (int r = 0; r < TG_L; r++) found[r] = (tg_vec){0};
    for (int r = 0; r < TG_TILE; r++) {
        float *row = x + r * wide;
        tg_vec total = {0};
        long j = 0;
        for (; j < n[r]; j += TG_L) {
            tg_vec e = tg_vexp_weight(tg_load(row + j) - low[r]);
            tg_store(row + j, e);
            total += e;
        }
        for (; j < end; j += TG_L) tg_store(row + j, (tg_vec){0});
        found[r] = total;
    }
    tg_store_some(sum, tg_load_some(sum, TG_TILE) * less + tg_total_of(found), TG_TILE);
    tg_store_some(top, new, TG_TILE);
    tg_store(shrink, less);
}

/* --- the value --- */

/* A block's queries and what was found so far: sums of weighted values [high][e], rows padded. */
typedef struct {
    float *keys, *values, *query, *x, *kept, *y, *top, *sum;
} tg_forward;

TG_LARGE tg_forward tg_forward_rows(const tg_attention *s) {
    const long padded = tg_rounded(s->e, TG_L);
    tg_forward w;
    w.keys = tg_rows(0);
    w.values = w.keys + s->wide * s->d;
    w.query = w.values + s->wide * padded;
    w.x = w.query + TG_TILE * tg_rounded(s->d, TG_L);
    w.kept = w.x + TG_TILE * s->wide;
    w.y = w.kept + s->wide;
    w.top = w.y + s->high * padded;
    w.sum = w.top + s->high;
    return w;
}

/* TG_TILE queries from ``row`` on, of which ``count`` are there, and n keys from ``first`` on. */
TG_LARGE void tg_attend(const tg_attention *s, const tg_forward *w, const void *mask, int64_t key,
                        int64_t word, long row, long count, long first, long n, const float *v,
                        long ldv, float *y, float *top, float *sum) {
    const long end = tg_rounded(n, TG_L), padded = tg_rounded(s->e, TG_L);
    long seen[TG_TILE];
    float shrink[TG_L];
    tg_products(n, s->wide, s->d, w->query, w->keys, w->x);
    for (long r = 0; r < TG_TILE; r++) {
        seen[r] = r < count ? tg_seen(s, row + r, first, n) : 0;
        tg_hide(s, mask, (row + r) * s->m.row + first * s->m.column, seen[r], w->x + r * s->wide);
    }
    tg_softmax(w->x, s->wide, seen, end, top, sum, shrink);
    for (long r = 0; first && r < TG_TILE; r++)
        for (long j = 0; j < padded; j += TG_L)
            tg_store(y + r * padded + j, tg_load(y + r * padded + j) * shrink[r]);
    for (long r = 0; s->words && r < count; r++) {
        tg_kept(s, key, word + (row + r) * s->words + first, seen[r], w->kept);
        for (long j = 0; j < seen[r]; j++) w->x[r * s->wide + j] *= w->kept[j];
    }
    tg_sum_tiles(TG_TILE, s->e, n, w->x, s->wide, 1, v, ldv, first > 0, y);
}

/* The results of ``count`` queries and the logarithms of their sums. */
TG_LARGE void tg_finish(const tg_attention *s, const tg_forward *w, long count, float *y, tg_layout out,
                        float *r) {
    const long padded = tg_rounded(s->e, TG_L);
#pragma omp simd
    for (long i = 0; i < count; i++) {
        const float sum = w->sum[i], top = w->top[i];
        r[i] = sum == 0 ? INFINITY : (top == -INFINITY ? 0.0f : top) + tg_log_f(sum);
    }
    for (long i = 0; i < count; i++) {
        const float part = 1.0f / w->sum[i];
        for (long j = 0; j < s->e; j += TG_L) {
            const tg_vec x = tg_load(w->y + i * padded + j) * part;
            tg_put(y + i * out.row + j, w->sum[i] == 0 ? (tg_vec){0} : x, s->e - j);
        }
    }
}

/* A block of queries from ``from`` on, of one head; the arrays begin with the head. */
TG_LARGE void tg_attend_block(const tg_attention *s, const float *q, const float *k, const float *v,
                              const void *mask, int64_t key, int64_t word, long from, float *y,
                              tg_layout out, float *r) {
    const long padded = tg_rounded(s->e, TG_L), count = tg_smaller(s->high, s->rows - from);
    const tg_forward w = tg_forward_rows(s);
    const int lies = s->v.column == 1 && padded == s->e; /* values can be read where they are */
    for (long i = 0; i < s->high; i++) w.top[i] = -INFINITY, w.sum[i] = 0.0f;
    const long last = s->causal ? tg_smaller(s->keys, from + count) : s->keys;
    for (long first = 0; first < last; first += s->wide) {
        const long n = tg_smaller(s->wide, last - first);
        tg_pack_panels(k + first * s->k.row, s->k.row, s->k.column, n, s->d, w.keys);
        const float *values = v + first * s->v.row;
        if (!lies) tg_pack_rows(values, s->v.row, s->v.column, n, s->e, 1.0f, n, w.values);
        for (long i = 0; i < count; i += TG_TILE) {
            const long rows = tg_smaller(TG_TILE, count - i);
            const long seen = tg_seen(s, from + i + rows - 1, first, n);
            if (!seen) continue;
            tg_pack_rows(q + (from + i) * s->q.row, s->q.row, s->q.column, rows, s->d, s->scale,
                         TG_TILE, w.query);
            tg_attend(s, &w, mask, key, word, from + i, rows, first, seen,
                      lies ? values : w.values, lies ? s->v.row : padded, w.y + i * padded,
                      w.top + i, w.sum + i);
        }
    }
    tg_finish(s, &w, count, y + from * out.row, out, r + from);
}

#define TG_LYING(x) long x##_a, long x##_b, long x##_c, long x##_row, long x##_column
#define TG_LAYOUT(x) {x##_a, x##_b, x##_c, x##_row, x##_column}
#define TG_ATTENTION_SIZES                                                                         \
    long heads_b, long heads_c, long rows, long keys, long d, long e, long high, long wide,        \
        long causal, long mask, long words, long least, float scale, float factor, TG_LYING(q),    \
        TG_LYING(k), TG_LYING(v), TG_LYING(m)
#define TG_ATTENTION_GIVEN                                                                         \
    {heads_b, heads_c, rows, keys, d, e, high, wide, causal, mask, words, least, scale, factor,    \
     TG_LAYOUT(q), TG_LAYOUT(k), TG_LAYOUT(v), TG_LAYOUT(m)}

/* Parts are blocks of queries of the heads. y: features side by side; level: [heads][rows]. key,
 * position: of the random words; not read without dropout, nor is the mask without one. */
TG_LARGE void tg_attention_value(TG_ATTENTION_SIZES, TG_LYING(y), const float *q_, const float *k_,
                                 const float *v_, const void *m_, const int64_t *key,
                                 const int64_t *position, float *y_, float *level, long begin,
                                 long end) {
    const tg_attention s = TG_ATTENTION_GIVEN;
    const tg_layout out = TG_LAYOUT(y);
    const long blocks = (rows + high - 1) / high;
    for (long t = begin; t < end; t++) {
        const long head = t / blocks;
        const void *m = (const char *)m_ + tg_head_of(&s, s.m, head) * (mask == 2 ? 4 : 1);
        tg_attend_block(&s, q_ + tg_head_of(&s, s.q, head), k_ + tg_head_of(&s, s.k, head),
                        v_ + tg_head_of(&s, s.v, head), m, words ? *key : 0,
                        words ? *position + head * rows * words : 0, t % blocks * high,
                        y_ + tg_head_of(&s, out, head), out, level + head * rows);
    }
}

/* --- gradients --- */

/* What a block of keys and one of queries need: packed rows and columns, weights and gradients of
 * scores [high][wide], what is added up for the keys, and for each query the logarithm of its sum
 * and the product of its result and that one's gradient. */
typedef struct {
    float *across, *values, *keys, *dk, *dv, *query, *g, *dq, *p, *ds, *kept, *level, *lean;
} tg_backward;

TG_LARGE tg_backward tg_backward_rows(const tg_attention *s) {
    const long d = tg_rounded(s->d, TG_L), e = tg_rounded(s->e, TG_L);
    tg_backward w;
    w.across = tg_rows(0);
    w.values = w.across + s->wide * s->d;
    w.keys = w.values + s->wide * s->e;
    w.dk = w.keys + s->wide * d;
    w.dv = w.dk + s->wide * d;
    w.query = w.dv + s->wide * e;
    w.g = w.query + s->high * d;
    w.dq = w.g + s->high * e;
    w.p = w.dq + s->high * d;
    w.ds = w.p + s->high * s->wide;
    w.kept = w.ds + s->high * s->wide;
    w.level = w.kept + s->wide;
    w.lean = w.level + s->high;
    return w;
}

/* Weights and gradients of the scores of a query: of n keys, and zeros up to ``end``. */
TG_LARGE void tg_weigh(float *p, float *ds, const float *kept, long n, long end, float level,
                       float lean) {
    long j = 0;
    for (; j < n; j += TG_L) {
        tg_vec y = tg_vexp_weight(tg_load(p + j) - level), d = tg_load(ds + j), weight = y;
        if (kept) {
            tg_vec k = tg_load(kept + j);
            weight = y * k, d = d * k;
        }
        d = (d - lean) * y;
        if (n - j < TG_L) {
            weight = tg_pick(tg_before(j, n), weight, (tg_vec){0});
            d = tg_pick(tg_before(j, n), d, (tg_vec){0});
        }
        tg_store(p + j, weight);
        tg_store(ds + j, d);
    }
    for (; j < end; j += TG_L) tg_store(p + j, (tg_vec){0}), tg_store(ds + j, (tg_vec){0});
}

/* The same for TG_TILE queries and so many vectors of keys from column j on, made of queries and
 * gradients of results in registers, where nothing is masked or dropped. ``seen``: of each query;
 * ``all``: whether each sees all of these keys. */
TG_LARGE void tg_weigh_tile(const tg_attention *s, const tg_backward *w, const int vectors, long row,
                            long j, const long *seen, int all) {
    const long d = tg_rounded(s->d, TG_L), e = tg_rounded(s->e, TG_L), at = row * s->wide + j;
    tg_vec x[TG_TILE][2];
    tg_clear_tile(vectors, x);
    tg_add_tile(TG_TILE, vectors, s->d, w->query + row * d, d, 1, w->across + j * s->d, TG_PANEL, x);
    TG_UNROLL for (int r = 0; r < TG_TILE; r++)
        TG_UNROLL for (int v = 0; v < vectors; v++) {
            tg_vec y = tg_vexp_weight(x[r][v] - w->level[row + r]);
            if (!all) y = tg_pick(tg_before(j + v * TG_L, seen[r]), y, (tg_vec){0});
            tg_store(w->p + at + r * s->wide + v * TG_L, y);
        }
    tg_clear_tile(vectors, x);
    tg_add_tile(TG_TILE, vectors, s->e, w->g + row * e, e, 1, w->values + j * s->e, TG_PANEL, x);
    TG_UNROLL for (int r = 0; r < TG_TILE; r++)
        TG_UNROLL for (int v = 0; v < vectors; v++) {
            const long to = at + r * s->wide + v * TG_L;
            tg_vec y = (x[r][v] - w->lean[row + r]) * tg_load(w->p + to);
            if (!all) y = tg_pick(tg_before(j + v * TG_L, seen[r]), y, (tg_vec){0});
            tg_store(w->ds + to, y);
        }
}

/* The same for TG_TILE queries and n keys. */
TG_LARGE void tg_weigh_rows(const tg_attention *s, const tg_backward *w, long row, long n,
                            const long *seen) {
    long least = n;
    for (long r = 0; r < TG_TILE; r++) least = tg_smaller(least, seen[r]);
    for (long j = 0; j < n; j += TG_PANEL) {
        if (j + TG_PANEL <= least) tg_weigh_tile(s, w, 2, row, j, seen, 1);
        else if (j + TG_L < n) tg_weigh_tile(s, w, 2, row, j, seen, 0);
        else tg_weigh_tile(s, w, 1, row, j, seen, 0);
    }
}

/* The queries of a block and the gradients of their results; zeros where a query sees no key. */
TG_LARGE void tg_pack_queries(const tg_attention *s, const tg_backward *w, const float *q,
                              const float *g, tg_layout of_g, const float *y, tg_layout of_y,
                              const float *level, long count) {
    const long d = tg_rounded(s->d, TG_L), e = tg_rounded(s->e, TG_L);
    tg_pack_rows(q, s->q.row, s->q.column, count, s->d, s->scale, s->high, w->query);
    tg_pack_rows(g, of_g.row, of_g.column, count, s->e, 1.0f, s->high, w->g);
    for (long i = 0; i < count; i++) {
        w->level[i] = level[i];
        if (level[i] == INFINITY) {
            memset(w->query + i * d, 0, sizeof(float) * d);
            memset(w->g + i * e, 0, sizeof(float) * e);
            w->lean[i] = 0.0f;
            continue;
        }
        tg_vec sum = {0};
        for (long j = 0; j < s->e; j += TG_L)
            sum += tg_load(w->g + i * e + j) *
                   tg_gathered(y + i * of_y.row + j * of_y.column, of_y.column, s->e - j);
        w->lean[i] = tg_total(sum);
    }
}

/* Weights and gradients of scores of TG_TILE packed queries from ``at`` on, which are numbers
 * ``row`` and so on, and n keys from ``first`` on. */
TG_LARGE void tg_softmax_weights(const tg_attention *s, const tg_backward *w, const void *mask,
                                 int64_t key, int64_t word, long row, long at, long count, long first,
                                 long n) {
    const long d = tg_rounded(s->d, TG_L), e = tg_rounded(s->e, TG_L), end = tg_rounded(n, TG_L);
    float *p = w->p + at * s->wide, *ds = w->ds + at * s->wide;
    long seen[TG_TILE];
    for (long r = 0; r < TG_TILE; r++) {
        const int some = at + r < count && w->level[at + r] != INFINITY;
        seen[r] = some ? tg_seen(s, row + r, first, n) : 0;
    }
    if (!s->mask && !s->words) {
        tg_weigh_rows(s, w, at, n, seen);
        return;
    }
    tg_products(n, s->wide, s->d, w->query + at * d, w->across, p);
    tg_products(n, s->wide, s->e, w->g + at * e, w->values, ds);
    for (long r = 0; r < TG_TILE; r++, p += s->wide, ds += s->wide) {
        tg_hide(s, mask, (row + r) * s->m.row + first * s->m.column, seen[r], p);
        if (s->words) tg_kept(s, key, word + (row + r) * s->words + first, seen[r], w->kept);
        tg_weigh(p, ds, s->words ? w->kept : 0, seen[r], end, w->level[at + r], w->lean[at + r]);
    }
}

/* ``count`` queries from ``row`` on, which are packed, and n keys from ``first`` on. What a causal
 * mask hides from a whole tile is in no product. */
TG_LARGE void tg_attend_back(const tg_attention *s, const tg_backward *w, const void *mask, int64_t key,
                             int64_t word, long row, long count, long first, long n) {
    const long d = tg_rounded(s->d, TG_L), e = tg_rounded(s->e, TG_L);
    for (long i = 0; i < count; i += TG_TILE) {
        const long keys = tg_seen(s, row + i + TG_TILE - 1, first, n);
        if (keys) tg_softmax_weights(s, w, mask, key, word, row + i, i, count, first, keys);
        tg_sum_tiles(TG_TILE, s->d, keys, w->ds + i * s->wide, s->wide, 1, w->keys, d, 0,
                     w->dq + i * d);
    }
    for (long j = 0; j < n; j += TG_TILE) {
        const long ahead = s->causal && first + j > row ? first + j - row : 0;
        const long at = ahead * s->wide + j, rows = count - ahead;
        tg_sum_tiles(TG_TILE, s->d, rows, w->ds + at, 1, s->wide, w->query + ahead * d, d, 1,
                     w->dk + j * d);
        tg_sum_tiles(TG_TILE, s->e, rows, w->p + at, 1, s->wide, w->g + ahead * e, e, 1,
                     w->dv + j * e);
    }
}

/* The gradient of a block of queries times the scale, which is set or added to; zero where a query
 * sees no key. */
TG_LARGE void tg_put_queries(const tg_attention *s, const tg_backward *w, long count, int adds,
                             float *dq, tg_layout at) {
    const long d = tg_rounded(s->d, TG_L);
    for (long i = 0; i < count; i++)
        for (long j = 0; j < s->d; j += TG_L) {
            const long n = s->d - j;
            float *to = dq + i * at.row + j;
            tg_vec x = tg_load(w->dq + i * d + j) * s->scale;
            if (w->level[i] == INFINITY) x = (tg_vec){0};
            if (adds) x += tg_gathered(to, 1, n);
            tg_put(to, x, n);
        }
}

TG_LARGE void tg_put_keys(const float *from, long n, long columns, float *to, tg_layout at) {
    const long padded = tg_rounded(columns, TG_L);
    for (long i = 0; i < n; i++)
        for (long j = 0; j < columns; j += TG_L)
            tg_put(to + i * at.row + j, tg_load(from + i * padded + j), columns - j);
}

/* How arrays lie besides those that the value takes: g, y; the gradients, of which each has its
 * features side by side. */
typedef struct {
    tg_layout g, y, dq, dk, dv;
} tg_gradient;

/* One head; the arrays begin with it. */
TG_LARGE void tg_attend_head_back(const tg_attention *s, const tg_gradient *lie, const float *q,
                                  const float *k, const float *v, const void *mask, const float *g,
                                  const float *y, const float *level, int64_t key, int64_t word,
                                  float *dq, float *dk, float *dv) {
    const tg_backward w = tg_backward_rows(s);
    const long d = tg_rounded(s->d, TG_L), e = tg_rounded(s->e, TG_L);
    for (long first = 0; first < s->keys; first += s->wide) {
        const long n = tg_smaller(s->wide, s->keys - first);
        tg_pack_panels(k + first * s->k.row, s->k.row, s->k.column, n, s->d, w.across);
        tg_pack_panels(v + first * s->v.row, s->v.row, s->v.column, n, s->e, w.values);
        tg_pack_rows(k + first * s->k.row, s->k.row, s->k.column, n, s->d, 1.0f, n, w.keys);
        memset(w.dk, 0, sizeof(float) * s->wide * d);
        memset(w.dv, 0, sizeof(float) * s->wide * e);
        const long start = s->causal ? first / s->high * s->high : 0;
        for (long from = start; from < s->rows; from += s->high) {
            const long count = tg_smaller(s->high, s->rows - from);
            const long seen = tg_seen(s, from + count - 1, first, n);
            if (!seen) continue;
            tg_pack_queries(s, &w, q + from * s->q.row, g + from * lie->g.row, lie->g,
                            y + from * lie->y.row, lie->y, level + from, count);
            tg_attend_back(s, &w, mask, key, word, from, count, first, seen);
            tg_put_queries(s, &w, count, first > 0, dq + from * lie->dq.row, lie->dq);
        }
        tg_put_keys(w.dk, n, s->d, dk + first * lie->dk.row, lie->dk);
        tg_put_keys(w.dv, n, s->e, dv + first * lie->dv.row, lie->dv);
    }
}

/* Parts are heads. The gradients are those of the arrays broadcast to all heads; they are written
 * to one array, at these places. */
TG_LARGE void tg_attention_gradient(TG_ATTENTION_SIZES, TG_LYING(g), TG_LYING(y), TG_LYING(dq),
                                    TG_LYING(dk), TG_LYING(dv), long at_k, long at_v, const float *q_,
                                    const float *k_, const float *v_, const void *m_, const float *g_,
                                    const float *y_, const float *level, const int64_t *key,
                                    const int64_t *position, float *out, long begin, long end) {
    const tg_attention s = TG_ATTENTION_GIVEN;
    const tg_gradient lie = {TG_LAYOUT(g), TG_LAYOUT(y), TG_LAYOUT(dq), TG_LAYOUT(dk),
                             TG_LAYOUT(dv)};
    for (long head = begin; head < end; head++) {
        const void *m = (const char *)m_ + tg_head_of(&s, s.m, head) * (mask == 2 ? 4 : 1);
        tg_attend_head_back(
            &s, &lie, q_ + tg_head_of(&s, s.q, head), k_ + tg_head_of(&s, s.k, head),
            v_ + tg_head_of(&s, s.v, head), m, g_ + tg_head_of(&s, lie.g, head),
            y_ + tg_head_of(&s, lie.y, head), level + head * rows, words ? *key : 0,
            words ? *position + head * rows * words : 0, out + tg_head_of(&s, lie.dq, head),
            out + at_k + tg_head_of(&s, lie.dk, head), out + at_v + tg_head_of(&s, lie.dv, head));
    }
}
#endif
