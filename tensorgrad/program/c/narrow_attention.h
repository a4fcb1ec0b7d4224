/* Attention of few features and not many keys, without mask and dropout: lanes are queries.
 *
 * attention.h pads features to vectors and goes tile by tile, which takes longer here than what it
 * computes. A key's scores are a vector, made of numbers of the key; so maxima and sums need no
 * exchange of lanes. Only the gradients for keys and values, sums over queries, do: weights are
 * transposed for them, TG_L keys at a time. */
#ifndef TG_NARROW_ATTENTION
#define TG_NARROW_ATTENTION
#include "attention.h"

#define TG_FEATURES 8 /* at most; Python sees to it */

/* Features of n queries from x on, a vector each, times a factor. */
TG_LARGE void tg_across(const float *x, tg_layout lie, long n, long features, float factor,
                        tg_vec *to) {
    for (long c = 0; c < features; c++)
        to[c] = tg_gathered(x + c * lie.column, lie.row, n) * factor;
}
/* And back: x is [features][TG_L]. */
TG_LARGE void tg_put_across(const float *x, long n, long features, float *to, long row) {
    for (long c = 0; c < features; c++)
        for (long l = 0; l < n; l++) to[l * row + c] = x[c * TG_L + l];
}

/* What vectors of features give with the numbers of one row. */
TG_LARGE tg_vec tg_along(const tg_vec *x, const float *row, long step, long features) {
    tg_vec sum = {0};
    TG_UNROLL for (long c = 0; c < features; c++) sum += x[c] * row[c * step];
    return sum;
}

/* Queries [from, from + n) of a head; the arrays begin with the head. */
TG_LARGE void tg_attend_across(const tg_attention *s, const float *q, const float *k, const float *v,
                               long from, long n, float *y, tg_layout out, float *r) {
    tg_vec query[TG_FEATURES], sums[TG_FEATURES], top = tg_splat(-INFINITY), sum = {0};
    float *x = tg_rows(0), low[TG_L], total[TG_L], level[TG_L];
    const long keys = s->causal ? tg_smaller(s->keys, from + n) : s->keys;
    tg_across(q + from * s->q.row, s->q, n, s->d, s->scale, query);
    for (long j = 0; j < keys; j++) {
        tg_vec score = tg_along(query, k + j * s->k.row, s->k.column, s->d);
        if (s->causal) score = tg_pick(tg_before(from, j), tg_splat(-INFINITY), score);
        tg_store(x + j * TG_L, score);
        top = tg_larger(score, top);
    }
    top = tg_pick(top == -INFINITY, (tg_vec){0}, top);
    TG_UNROLL for (long c = 0; c < s->e; c++) sums[c] = (tg_vec){0};
    for (long j = 0; j < keys; j++) {
        const tg_vec weight = tg_vexp_weight(tg_load(x + j * TG_L) - top);
        sum += weight;
        TG_UNROLL for (long c = 0; c < s->e; c++)
            sums[c] += weight * v[j * s->v.row + c * s->v.column];
    }
    const tg_vec part = 1.0f / sum;
    TG_UNROLL for (long c = 0; c < s->e; c++)
        sums[c] = tg_pick(sum == 0.0f, (tg_vec){0}, sums[c] * part);
    tg_put_across((const float *)sums, n, s->e, y + from * out.row, out.row);
    tg_store(low, top), tg_store(total, sum);
#pragma omp simd
    for (long l = 0; l < TG_L; l++)
        level[l] = total[l] == 0 ? INFINITY : low[l] + tg_log_f(total[l]);
    memcpy(r + from, level, sizeof(float) * n);
}

/* As ``tg_attention_value``; mask and random words are not read. */
TG_LARGE void tg_narrow_value(TG_ATTENTION_SIZES, TG_LYING(y), const float *q_, const float *k_,
                              const float *v_, const void *m_, const int64_t *key,
                              const int64_t *position, float *y_, float *level, long begin, long end) {
    const tg_attention s = TG_ATTENTION_GIVEN;
    const tg_layout out = TG_LAYOUT(y);
    const long blocks = (rows + high - 1) / high;
    for (long t = begin; t < end; t++) {
        const long head = t / blocks, first = t % blocks * high;
        const long last = tg_smaller(rows, first + high);
        for (long from = first; from < last; from += TG_L)
            tg_attend_across(&s, q_ + tg_head_of(&s, s.q, head), k_ + tg_head_of(&s, s.k, head),
                             v_ + tg_head_of(&s, s.v, head), from, tg_smaller(TG_L, last - from),
                             y_ + tg_head_of(&s, out, head), out, level + head * rows);
    }
}

/* --- gradients --- */

/* Of TG_L queries: those, scaled, and the gradients of their results, as vectors and as numbers; the
 * logarithms of their sums, and the products of a result and its gradient. */
typedef struct {
    tg_vec query[TG_FEATURES], g[TG_FEATURES], dq[TG_FEATURES], level, lean;
    float queries[TG_FEATURES * TG_L], gs[TG_FEATURES * TG_L];
} tg_across_back;

TG_LARGE void tg_take_across(const tg_attention *s, const tg_gradient *lie, const float *q,
                             const float *g, const float *y, const float *level, long n,
                             tg_across_back *w) {
    tg_vec result[TG_FEATURES];
    float none[TG_L];
    for (long l = 0; l < TG_L; l++) none[l] = l < n ? level[l] : INFINITY;
    w->level = tg_load(none), w->lean = (tg_vec){0};
    tg_across(q, s->q, n, s->d, s->scale, w->query);
    tg_across(g, lie->g, n, s->e, 1.0f, w->g);
    tg_across(y, lie->y, n, s->e, 1.0f, result);
    const tg_ivec blind = w->level == INFINITY;
    TG_UNROLL for (long c = 0; c < s->d; c++) {
        w->query[c] = tg_pick(blind, (tg_vec){0}, w->query[c]);
        w->dq[c] = (tg_vec){0};
        tg_store(w->queries + c * TG_L, w->query[c]);
    }
    TG_UNROLL for (long c = 0; c < s->e; c++) {
        w->g[c] = tg_pick(blind, (tg_vec){0}, w->g[c]);
        w->lean += tg_pick(blind, (tg_vec){0}, w->g[c] * result[c]);
        tg_store(w->gs + c * TG_L, w->g[c]);
    }
}

/* sums [features][TG_L] += what TG_L rows of weights, lanes being keys, give with the queries'
 * numbers [features][TG_L]. */
TG_LARGE void tg_add_across(const tg_vec *weights, const float *x, long features, float *sums) {
    TG_UNROLL for (long c = 0; c < features; c++) {
        tg_vec sum = tg_load(sums + c * TG_L);
        TG_UNROLL for (int l = 0; l < TG_L; l++) sum += weights[l] * x[c * TG_L + l];
        tg_store(sums + c * TG_L, sum);
    }
}

/* Queries from ``from`` on and keys [first, first + n), TG_L at most, whose sums are at dk and dv. */
TG_LARGE void tg_attend_across_back(const tg_attention *s, const float *k, const float *v, long from,
                                    long first, long n, tg_across_back *w, float *dk, float *dv) {
    tg_vec p[TG_L], ds[TG_L];
    TG_UNROLL for (int j = 0; j < TG_L; j++) p[j] = ds[j] = (tg_vec){0};
    for (long j = 0; j < n; j++) {
        const float *key = k + (first + j) * s->k.row, *value = v + (first + j) * s->v.row;
        tg_vec weight = tg_vexp_weight(tg_along(w->query, key, s->k.column, s->d) - w->level);
        tg_vec d = (tg_along(w->g, value, s->v.column, s->e) - w->lean) * weight;
        if (s->causal) {
            const tg_ivec hidden = tg_before(from, first + j);
            weight = tg_pick(hidden, (tg_vec){0}, weight), d = tg_pick(hidden, (tg_vec){0}, d);
        }
        p[j] = weight, ds[j] = d;
        TG_UNROLL for (long c = 0; c < s->d; c++) w->dq[c] += d * key[c * s->k.column];
    }
    tg_transpose(p);
    tg_transpose(ds);
    tg_add_across(ds, w->queries, s->d, dk);
    tg_add_across(p, w->gs, s->e, dv);
}

/* One head; the arrays begin with it. */
TG_LARGE void tg_attend_head_across(const tg_attention *s, const tg_gradient *lie, const float *q,
                                    const float *k, const float *v, const float *g, const float *y,
                                    const float *level, float *dq, float *dk, float *dv) {
    const long blocks = (s->keys + TG_L - 1) / TG_L;
    float *keys = tg_rows(0), *values = keys + blocks * s->d * TG_L;
    memset(keys, 0, sizeof(float) * blocks * (s->d + s->e) * TG_L);
    for (long from = 0; from < s->rows; from += TG_L) {
        const long n = tg_smaller(TG_L, s->rows - from);
        const long seen = s->causal ? tg_smaller(s->keys, from + n) : s->keys;
        tg_across_back w;
        tg_take_across(s, lie, q + from * s->q.row, g + from * lie->g.row, y + from * lie->y.row,
                       level + from, n, &w);
        for (long b = 0; b < blocks && b * TG_L < seen; b++)
            tg_attend_across_back(s, k, v, from, b * TG_L, tg_smaller(TG_L, seen - b * TG_L), &w,
                                  keys + b * s->d * TG_L, values + b * s->e * TG_L);
        TG_UNROLL for (long c = 0; c < s->d; c++)
            w.dq[c] = tg_pick(w.level == INFINITY, (tg_vec){0}, w.dq[c] * s->scale);
        tg_put_across((const float *)w.dq, n, s->d, dq + from * lie->dq.row, lie->dq.row);
    }
    for (long b = 0; b < blocks; b++) {
        const long n = tg_smaller(TG_L, s->keys - b * TG_L);
        tg_put_across(keys + b * s->d * TG_L, n, s->d, dk + b * TG_L * lie->dk.row,
                      lie->dk.row);
        tg_put_across(values + b * s->e * TG_L, n, s->e, dv + b * TG_L * lie->dv.row,
                      lie->dv.row);
    }
}

/* As ``tg_attention_gradient``. */
TG_LARGE void tg_narrow_gradient(TG_ATTENTION_SIZES, TG_LYING(g), TG_LYING(y), TG_LYING(dq),
                                 TG_LYING(dk), TG_LYING(dv), long at_k, long at_v, const float *q_,
                                 const float *k_, const float *v_, const void *m_, const float *g_,
                                 const float *y_, const float *level, const int64_t *key,
                                 const int64_t *position, float *out, long begin, long end) {
    const tg_attention s = TG_ATTENTION_GIVEN;
    const tg_gradient lie = {TG_LAYOUT(g), TG_LAYOUT(y), TG_LAYOUT(dq), TG_LAYOUT(dk),
                             TG_LAYOUT(dv)};
    for (long head = begin; head < end; head++)
        tg_attend_head_across(
            &s, &lie, q_ + tg_head_of(&s, s.q, head), k_ + tg_head_of(&s, s.k, head),
            v_ + tg_head_of(&s, s.v, head), g_ + tg_head_of(&s, lie.g, head),
            y_ + tg_head_of(&s, lie.y, head), level + head * rows,
            out + tg_head_of(&s, lie.dq, head), out + at_k + tg_head_of(&s, lie.dk, head),
            out + at_v + tg_head_of(&s, lie.dv, head));
}
#endif
