/* Recurrent layers over a sequence: LSTM, GRU, and plain ones.
 *
 * A part of the work is some rows of the batch, which go through the whole sequence: rows do not
 * meet, so there is nothing to wait for in between. The gates of TG_L hidden units, of a few rows,
 * are sums in registers, and the cell is updated while they are there. Weights come as panels, in
 * the order in which they are read. */
#ifndef TG_RECURRENCE
#define TG_RECURRENCE
#include "vectors.h"

/* How many vectors of sums stay in registers beside their factors. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define TG_SUMS 16
#else
#define TG_SUMS 8
#endif
#define TG_ROWS_OF(vectors) ((vectors) > 2 ? TG_SUMS / 4 : (vectors) == 2 ? TG_SUMS / 2 : 8)

TG long tg_vectors_of(long units) { return (units + TG_L - 1) / TG_L; }

/* What follows a product is long: once in the text, its sums coming from memory. */
#define TG_ONE_BY_ONE _Pragma("GCC unroll 1")

/* --- panels ---
 *
 * Of a layer with gates a panel has TG_L units, a vector for each gate; of a matrix without them up
 * to 4 vectors side by side, as equally shared out as can be. */
TG long tg_panels(const long gates, long units) {
    const long vectors = tg_vectors_of(units);
    return gates > 1 ? vectors : (vectors + 3) / 4;
}

TG long tg_panel_width(const long gates, long units) {
    const long vectors = tg_vectors_of(units), panels = (vectors + 3) / 4;
    return gates > 1 ? gates : (vectors + panels - 1) / panels;
}

/* Weights as panels: [panel][k][vector][lane], zero behind the last unit. The number of unit u of
 * gate g at k is w[(g * units + u) * unit_step + k * k_step]. size: into how many parts this is
 * cut. */
TG_LARGE void tg_pack(long gates, long units, long depth, long unit_step, long k_step, long size,
                      const float *w, float *packed, long begin, long end) {
    const long panels = tg_panels(gates, units), width = tg_panel_width(gates, units);
    for (long p = panels * begin / size; p < panels * end / size; p++)
        for (long v = 0; v < width; v++) {
            const long unit = (gates > 1 ? p : p * width + v) * TG_L;
            const float *from = w + ((gates > 1 ? v * units : 0) + unit) * unit_step;
            float *to = packed + (p * depth * width + v) * TG_L;
            const long lanes = units - unit < TG_L ? units - unit : TG_L;
            if (lanes < TG_L)
                for (long k = 0; k < depth; k++) memset(to + k * width * TG_L, 0, 4 * TG_L);
            if (unit_step == 1 && lanes == TG_L)
                for (long k = 0; k < depth; k++)
                    tg_store(to + k * width * TG_L, tg_load(from + k * k_step));
            else
                for (long first = 0; first < depth; first += 16)
                    for (long l = 0; l < lanes; l++) /* what is written stays in the first cache */
                        for (long k = first; k < first + 16 && k < depth; k++)
                            to[k * width * TG_L + l] = from[l * unit_step + k * k_step];
        }
}

/* sum[r][v] += A[r, :] B[:, v] for some rows and vectors. Rows of A are lda apart; B is a panel.
 * The last vector belongs to sum[r][last]. */
TG_LARGE void tg_short_tile(const int rows, const int vectors, const int last, long depth,
                            const float *a, long lda, const float *b, tg_vec (*sum)[4]) {
    for (long k = 0; k < depth; k++, b += vectors * TG_L) {
        tg_vec w[4];
        TG_UNROLL for (int v = 0; v < vectors; v++) {
            w[v] = tg_load(b + v * TG_L);
            TG_IN_REGISTER(w[v]);
        }
        TG_UNROLL for (int r = 0; r < rows; r++) {
            tg_vec f = tg_splat(a[r * lda + k]);
            TG_IN_REGISTER(f);
            TG_UNROLL for (int v = 0; v < vectors; v++)
                sum[r][v == vectors - 1 ? last : v] += w[v] * f;
        }
    }
}

/* The same for any depth: so many products are added in order, and what they give. */
enum { TG_IN_ORDER = 256 };

TG_LARGE void tg_tile(const int rows, const int vectors, const int last, long depth, const float *a,
                      long lda, const float *b, tg_vec (*sum)[4]) {
    if (depth <= TG_IN_ORDER) {
        tg_short_tile(rows, vectors, last, depth, a, lda, b, sum);
        return;
    }
    for (long k = 0; k < depth; k += TG_IN_ORDER) {
        const long some = depth - k < TG_IN_ORDER ? depth - k : TG_IN_ORDER;
        tg_vec s[8][4];
        TG_UNROLL for (int i = 0; i < rows * 4; i++) s[i / 4][i % 4] = (tg_vec){0};
        tg_short_tile(rows, vectors, last, some, a + k, lda, b + k * vectors * TG_L, s);
        TG_UNROLL for (int i = 0; i < rows * vectors; i++) {
            const int v = i % vectors == vectors - 1 ? last : i % vectors;
            sum[i / vectors][v] += s[i / vectors][v];
        }
    }
}

/* --- products of some rows --- */

TG int tg_has_ended(const int64_t *lengths, long t, long row) {
    return lengths && t >= lengths[row];
}

/* Y = D W, or Y += D W, for some rows of D, which has `depth` numbers; W as panels. Rows that have
 * ended keep theirs. */
TG_LARGE void tg_rows_tile(const int adds, const int rows, const int vectors, long depth, long units,
                           long p, const float *d, const float *w, float *y, const int64_t *lengths,
                           long t, long row) {
    tg_vec s[8][4];
    TG_UNROLL for (int k = 0; k < rows * vectors; k++) s[k / vectors][k % vectors] = (tg_vec){0};
    tg_tile(rows, vectors, vectors - 1, depth, d, depth, w + p * depth * vectors * TG_L, s);
    TG_UNROLL for (int r = 0; r < rows; r++) {
        if (tg_has_ended(lengths, t, row + r)) continue;
        TG_UNROLL for (int v = 0; v < vectors; v++) {
            const long at = (p * vectors + v) * TG_L, left = units - at;
            if (left <= 0) continue;
            const long n = left < TG_L ? left : TG_L;
            float *const to = y + r * units + at;
            tg_vec sum = s[r][v];
            if (adds) sum += n == TG_L ? tg_load(to) : tg_load_some(to, n);
            if (n == TG_L) tg_store(to, sum);
            else tg_store_some(to, sum, n);
        }
    }
}

TG_LARGE void tg_rows_product(const int adds, long batch, long depth, long units, const float *d,
                              const float *w, float *y, const int64_t *lengths, long t, long begin,
                              long end) {
    const int vectors = tg_panel_width(1, units), rows = TG_ROWS_OF(vectors);
    for (long p = 0; p < tg_panels(1, units); p++) {
        long row = begin;
        for (; row + rows <= end; row += rows)
            tg_rows_tile(adds, rows, vectors, depth, units, p, d + row * depth, w, y + row * units,
                         lengths, t, row);
        if (batch % rows == 0) continue; /* parts begin at multiples of 8: nothing is left */
        for (; row < end; row++)
            tg_rows_tile(adds, 1, vectors, depth, units, p, d + row * depth, w, y + row * units,
                         lengths, t, row);
    }
}

/* --- a layer ---
 *
 * The value has the states: the first one and those of all steps, so that the state before each
 * step is the row before its own, or behind it if the layer runs from the end to the beginning. An
 * LSTM's cell, as it is at the time, lies behind them. */
typedef struct {
    long steps, batch, inputs, units, out, x_step, x_row, reverse; /* out: the size of the state */
    const float *x, *px, *ph, *bias; /* weights of the input and of the state as panels; bias */
    const float *pr;                 /* those of a projection, or null */
    const int64_t *lengths;          /* or null */
    float *h, *before, *c;           /* rows of step 0 */
    float *gates, *kept;             /* for the gradient, or null */
    float *inner;                    /* what is projected, (rows of the part, units) */
} tg_layer;

TG tg_layer tg_layer_of(long steps, long batch, long inputs, long units, long out, long x_step,
                        long x_row, long reverse, float *value) {
    tg_layer a = {steps, batch, inputs, units, out, x_step, x_row, reverse};
    const long state = batch * out;
    a.h = value + (reverse ? 0 : state);
    a.before = value + (reverse ? state : 0);
    a.c = value + (steps + 1) * state;
    return a;
}

/* Rows [begin, end) of a state: those of `from`, or zeros. */
TG void tg_begin_state(float *to, const float *from, long units, long begin, long end) {
    if (from) memcpy(to + begin * units, from + begin * units, (end - begin) * units * 4);
    else memset(to + begin * units, 0, (end - begin) * units * 4);
}

/* --- LSTM: c = f c + i g, h = o tanh(c) ---
 *
 * Gates are kept as [step][row][i, f, o, g][unit], and cells. */
TG_LARGE void tg_lstm_tile(const tg_layer *a, const int rows, const long n, long p, long t, long row) {
    const long units = a->units, out = a->out, at = p * TG_L, width = 4 * TG_L;
    float *const h = a->inner ? a->inner + row * units : a->h + (t * a->batch + row) * units;
    const float *const before = a->before + (t * a->batch + row) * out;
    tg_vec s[TG_SUMS / 4][4];
    TG_UNROLL for (int k = 0; k < rows * 4; k++)
        s[k / 4][k % 4] = tg_load(a->bias + p * width + k % 4 * TG_L);
    tg_tile(rows, 4, 3, a->inputs, a->x + t * a->x_step + row * a->x_row, a->x_row,
            a->px + p * a->inputs * width, s);
    tg_tile(rows, 4, 3, out, before, out, a->ph + p * out * width, s);
    TG_ONE_BY_ONE for (int r = 0; r < rows; r++) {
        const long place = t * a->batch + row + r;
        float *const state = a->c + (row + r) * units + at;
        tg_vec c = tg_load_some(state, n);
        tg_vec i = tg_vsigmoid(s[r][0]), f = tg_vsigmoid(s[r][1]);
        tg_vec g = tg_vtanh(s[r][2]), o = tg_vsigmoid(s[r][3]);
        tg_vec next = f * c + i * g, shown = o * tg_vtanh(next);
        if (tg_has_ended(a->lengths, t, row + r)) {
            next = c;
            if (!a->inner) shown = tg_load_some(before + r * units + at, n);
        }
        tg_store_some(state, next, n);
        tg_store_some(h + r * units + at, shown, n);
        if (!a->gates) continue;
        float *const gates = a->gates + place * 4 * units + at;
        tg_store_some(gates, i, n);
        tg_store_some(gates + units, f, n);
        tg_store_some(gates + 2 * units, o, n);
        tg_store_some(gates + 3 * units, g, n);
        tg_store_some(a->kept + place * units + at, next, n);
    }
}

/* --- GRU: n = tanh(W x + r (U h)), h = (1 - z) n + z h ---
 *
 * Gates are kept as [step][row][r, z, n][unit], and what r multiplies. The bias has four vectors:
 * the candidate n has one for each of its products. */
TG_LARGE void tg_gru_tile(const tg_layer *a, const int rows, const long n, long p, long t, long row) {
    const long units = a->units, at = p * TG_L, width = 3 * TG_L;
    float *const h = a->h + (t * a->batch + row) * units;
    const float *const before = a->before + (t * a->batch + row) * units;
    tg_vec s[TG_SUMS / 4][4];
    TG_UNROLL for (int k = 0; k < rows * 4; k++)
        s[k / 4][k % 4] = tg_load(a->bias + (p * 4 + k % 4) * TG_L);
    tg_tile(rows, 3, 2, a->inputs, a->x + t * a->x_step + row * a->x_row, a->x_row,
            a->px + p * a->inputs * width, s);
    tg_tile(rows, 3, 3, units, before, units, a->ph + p * units * width, s);
    TG_ONE_BY_ONE for (int r = 0; r < rows; r++) {
        const long place = t * a->batch + row + r;
        tg_vec last = tg_load_some(before + r * units + at, n);
        tg_vec reset = tg_vsigmoid(s[r][0]), z = tg_vsigmoid(s[r][1]);
        tg_vec new = tg_vtanh(s[r][2] + reset * s[r][3]);
        tg_vec shown = new + z * (last - new);
        if (tg_has_ended(a->lengths, t, row + r)) shown = last;
        tg_store_some(h + r * units + at, shown, n);
        if (!a->gates) continue;
        float *const gates = a->gates + place * 3 * units + at;
        tg_store_some(gates, reset, n);
        tg_store_some(gates + units, z, n);
        tg_store_some(gates + 2 * units, new, n);
        tg_store_some(a->kept + place * units + at, s[r][3], n);
    }
}

/* --- h = tanh(W x + U h + b), or with ReLU; up to four vectors of units at a time --- */
TG_LARGE void tg_rnn_tile(const tg_layer *a, const int relu, const int rows, const int vectors, long p,
                          long t, long row) {
    const long units = a->units, width = vectors * TG_L;
    float *const h = a->h + (t * a->batch + row) * units;
    const float *const before = a->before + (t * a->batch + row) * units;
    tg_vec s[8][4];
    TG_UNROLL for (int k = 0; k < rows * vectors; k++)
        s[k / vectors][k % vectors] = tg_load(a->bias + p * width + k % vectors * TG_L);
    tg_tile(rows, vectors, vectors - 1, a->inputs, a->x + t * a->x_step + row * a->x_row, a->x_row,
            a->px + p * a->inputs * width, s);
    tg_tile(rows, vectors, vectors - 1, units, before, units, a->ph + p * units * width, s);
    TG_UNROLL for (int k = 0; k < rows * vectors; k++) {
        const long r = k / vectors, at = p * width + k % vectors * TG_L, left = units - at;
        if (left <= 0) continue;
        const tg_vec sum = s[r][k % vectors];
        tg_vec shown = relu ? tg_at_least(sum, 0.0f) : tg_vtanh(sum);
        if (tg_has_ended(a->lengths, t, row + r))
            shown = tg_load_some(before + r * units + at, left < TG_L ? left : TG_L);
        if (left >= TG_L) tg_store(h + r * units + at, shown);
        else tg_store_some(h + r * units + at, shown, left);
    }
}

enum { TG_LSTM, TG_GRU, TG_RNN_TANH, TG_RNN_RELU };

TG_LARGE void tg_gates_tile(const tg_layer *a, const int kind, const int rows, const int vectors,
                            const long n, long p, long t, long row) {
    if (kind == TG_LSTM) tg_lstm_tile(a, rows, n, p, t, row);
    else if (kind == TG_GRU) tg_gru_tile(a, rows, n, p, t, row);
    else tg_rnn_tile(a, kind == TG_RNN_RELU, rows, vectors, p, t, row);
}

TG_LARGE void tg_panel_of_gates(const tg_layer *a, const int kind, const int vectors, const long n,
                                long p, long t, long begin, long end) {
    const int rows = TG_ROWS_OF(vectors);
    long row = begin;
    for (; row + rows <= end; row += rows) tg_gates_tile(a, kind, rows, vectors, n, p, t, row);
    if (a->batch % rows == 0) return; /* as above */
    for (; row < end; row++) tg_gates_tile(a, kind, 1, vectors, n, p, t, row);
}

/* The state is what a projection makes of what it is without one. */
TG_LARGE void tg_project(const tg_layer *a, long t, long begin, long end) {
    const long out = a->out, step = t * a->batch * out;
    for (long row = begin; row < end; row++)
        if (tg_has_ended(a->lengths, t, row))
            memcpy(a->h + step + row * out, a->before + step + row * out, sizeof(float) * out);
    tg_rows_product(0, a->batch, a->units, out, a->inner, a->pr, a->h + step, a->lengths, t, begin,
                    end);
}

/* The first state and cell, or zeros, then rows [begin, end) of all steps. */
TG_LARGE void tg_layer_run(const tg_layer *a, const int kind, const float *h, const float *c,
                           long begin, long end) {
    const long units = a->units, gated = kind <= TG_GRU, panels = tg_panels(gated ? 2 : 1, units);
    const long rest = gated ? units % TG_L : 0, whole = panels - (rest > 0);
    const int vectors = gated ? 4 : tg_panel_width(1, units);
    tg_begin_state(a->before + (a->reverse ? a->steps - 1 : 0) * a->batch * a->out, h, a->out,
                   begin, end);
    if (kind == TG_LSTM) tg_begin_state(a->c, c, units, begin, end);
    for (long k = 0; k < a->steps; k++) {
        const long t = a->reverse ? a->steps - 1 - k : k;
        for (long p = 0; p < whole; p++)
            tg_panel_of_gates(a, kind, vectors, TG_L, p, t, begin, end);
        if (rest) tg_panel_of_gates(a, kind, vectors, rest, whole, t, begin, end);
        if (a->pr) tg_project(a, t, begin, end);
    }
}

TG_LARGE void tg_lstm_kept(long steps, long batch, long inputs, long units, long out, long projects,
                           long x_step, long x_row, long reverse, long has_h, long has_c,
                           long has_lengths, const float *x, const float *px, const float *ph,
                           const float *pr, const float *bias, const float *h, const float *c,
                           const int64_t *lengths, float *value, float *gates, float *cells, long begin,
                           long end) {
    tg_layer a = tg_layer_of(steps, batch, inputs, units, out, x_step, x_row, reverse, value);
    a.x = x, a.px = px, a.ph = ph, a.bias = bias, a.gates = gates, a.kept = cells;
    a.lengths = has_lengths ? lengths : 0;
    if (projects) a.pr = pr, a.inner = (float *)tg_rows(0) - begin * units;
    tg_layer_run(&a, TG_LSTM, has_h ? h : 0, has_c ? c : 0, begin, end);
}

TG_LARGE void tg_lstm(long steps, long batch, long inputs, long units, long out, long projects,
                      long x_step, long x_row, long reverse, long has_h, long has_c, long has_lengths,
                      const float *x, const float *px, const float *ph, const float *pr,
                      const float *bias, const float *h, const float *c, const int64_t *lengths,
                      float *value, long begin, long end) {
    tg_lstm_kept(steps, batch, inputs, units, out, projects, x_step, x_row, reverse, has_h, has_c,
                 has_lengths, x, px, ph, pr, bias, h, c, lengths, value, 0, 0, begin, end);
}

TG_LARGE void tg_gru_kept(long steps, long batch, long inputs, long units, long x_step, long x_row,
                          long reverse, long has_h, long has_lengths, const float *x, const float *px,
                          const float *ph, const float *bias, const float *h, const int64_t *lengths,
                          float *value, float *gates, float *states, long begin, long end) {
    tg_layer a = tg_layer_of(steps, batch, inputs, units, units, x_step, x_row, reverse, value);
    a.x = x, a.px = px, a.ph = ph, a.bias = bias, a.gates = gates, a.kept = states;
    a.lengths = has_lengths ? lengths : 0;
    tg_layer_run(&a, TG_GRU, has_h ? h : 0, 0, begin, end);
}

TG_LARGE void tg_gru(long steps, long batch, long inputs, long units, long x_step, long x_row,
                     long reverse, long has_h, long has_lengths, const float *x, const float *px,
                     const float *ph, const float *bias, const float *h, const int64_t *lengths,
                     float *value, long begin, long end) {
    tg_gru_kept(steps, batch, inputs, units, x_step, x_row, reverse, has_h, has_lengths, x, px, ph,
                bias, h, lengths, value, 0, 0, begin, end);
}

TG_LARGE void tg_rnn(long relu, long steps, long batch, long inputs, long units, long x_step,
                     long x_row, long reverse, long has_h, long has_lengths, const float *x,
                     const float *px, const float *ph, const float *bias, const float *h,
                     const int64_t *lengths, float *value, long begin, long end) {
    tg_layer a = tg_layer_of(steps, batch, inputs, units, units, x_step, x_row, reverse, value);
    a.x = x, a.px = px, a.ph = ph, a.bias = bias, a.lengths = has_lengths ? lengths : 0;
    if (relu) tg_layer_run(&a, TG_RNN_RELU, has_h ? h : 0, 0, begin, end);
    else tg_layer_run(&a, TG_RNN_TANH, has_h ? h : 0, 0, begin, end);
}

/* --- backward ---
 *
 * What comes backward has, at step t, the gradient d of what the products gave, and in the end
 * those of the first state and cell, whose memory holds them on the way. */

/* One row of one step, n units: what comes into the state is dh + g, or dh where there is no g. */
TG_LARGE void tg_lstm_back_cell(const long n, long units, const float *gates, const float *cell,
                                const float *before, const float *g, float *dh, float *dc, float *d,
                                const int ended) {
    tg_vec shown = tg_load_some(dh, n), zero = {0};
    if (g) shown += tg_load_some(g, n);
    if (ended) { /* what comes in goes on to the step before */
        tg_store_some(dh, shown, n);
        for (int k = 0; k < 4; k++) tg_store_some(d + k * units, zero, n);
        return;
    }
    tg_vec i = tg_load_some(gates, n), f = tg_load_some(gates + units, n);
    tg_vec o = tg_load_some(gates + 2 * units, n), z = tg_load_some(gates + 3 * units, n);
    tg_vec c = before ? tg_load_some(before, n) : zero, inner = tg_vtanh(tg_load_some(cell, n));
    tg_vec through = tg_load_some(dc, n) + (1.0f - inner * inner) * o * shown;
    tg_store_some(d, (i - i * i) * z * through, n);
    tg_store_some(d + units, (f - f * f) * c * through, n);
    tg_store_some(d + 2 * units, (1.0f - z * z) * i * through, n);
    tg_store_some(d + 3 * units, (o - o * o) * inner * shown, n);
    tg_store_some(dc, through * f, n);
}

/* Of a projection: dh += g, which is kept, and what comes into the state before it. */
TG_LARGE void tg_project_back(long batch, long units, long out, const float *g, const float *w,
                              float *dh, float *projected, float *shown, const int64_t *lengths, long t,
                              long begin, long end) {
    for (long row = begin; row < end; row++) {
        const float alive = tg_has_ended(lengths, t, row) ? 0.0f : 1.0f;
        for (long i = row * out; i < (row + 1) * out; i++) {
            dh[i] += g[i];
            projected[i] = dh[i] * alive;
        }
    }
    tg_rows_product(0, batch, out, units, dh, w, shown, 0, t, begin, end);
}

/* Rows [begin, end) of one step: d, and the gradient of the cell before it. */
TG_LARGE void tg_lstm_back_rows(long units, const float *gates, const float *cells, const float *before,
                                const float *g, float *dh, float *dc, float *d, const int64_t *lengths,
                                long t, long begin, long end) {
    const long whole = units / TG_L * TG_L, rest = units - whole;
    for (long row = begin; row < end; row++) {
        const long at = row * units;
        const float *const of = gates + at * 4, *const cell = cells + at;
        const float *const last = before ? before + at : 0, *const in = g ? g + at : 0;
        float *const h = dh + at, *const c = dc + at, *const to = d + at * 4;
        const int ended = tg_has_ended(lengths, t, row);
        for (long j = 0; j < whole; j += TG_L)
            tg_lstm_back_cell(TG_L, units, of + j, cell + j, last ? last + j : 0, in ? in + j : 0,
                              h + j, c + j, to + j, ended);
        if (rest)
            tg_lstm_back_cell(rest, units, of + whole, cell + whole, last ? last + whole : 0,
                              in ? in + whole : 0, h + whole, c + whole, to + whole, ended);
    }
}

/* g: the gradient of the value; w and pr: the weights of the state and of a projection as panels of
 * columns. */
TG_LARGE void tg_lstm_back(long steps, long batch, long units, long out, long projects, long reverse,
                           long has_c, long has_lengths, const float *g, const float *c, const float *w,
                           const float *pr, const int64_t *lengths, const float *gates,
                           const float *cells, float *back, long begin, long end) {
    const long state = batch * units, shown = batch * out;
    float *const dh = back + steps * state * 4, *const dc = dh + shown, *projected = dc + state;
    float *const own = (float *)tg_rows(0) - begin * units;
    const float *const gh = g + (reverse ? 0 : shown);
    if (!has_lengths) lengths = 0;
    tg_begin_state(dh, 0, out, begin, end);
    tg_begin_state(dc, g + (steps + 1) * shown, units, begin, end);
    for (long k = 0; k < steps; k++) {
        const long t = reverse ? k : steps - 1 - k, earlier = reverse ? t + 1 : t - 1;
        float *const d = back + t * state * 4;
        const float *const before = k < steps - 1 ? cells + earlier * state : has_c ? c : 0;
        const float *const in = gh + t * shown;
        if (projects)
            tg_project_back(batch, units, out, in, pr, dh, projected + t * shown, own, lengths, t,
                            begin, end);
        tg_lstm_back_rows(units, gates + t * state * 4, cells + t * state, before,
                          projects ? 0 : in, projects ? own : dh, dc, d, lengths, t, begin,
                          end);
        tg_rows_product(0, batch, 4 * units, out, d, w, dh, lengths, t, begin, end);
    }
}

/* d: the gradients of what the input's product gave, inner: those of the state's. */
TG_LARGE void tg_gru_back_cell(const long n, long units, const float *gates, const float *state,
                               const float *before, const float *g, float *dh, float *d, float *inner,
                               const int ended) {
    tg_vec shown = tg_load_some(dh, n) + tg_load_some(g, n), zero = {0};
    if (ended) {
        tg_store_some(dh, shown, n);
        for (int k = 0; k < 3; k++)
            tg_store_some(d + k * units, zero, n), tg_store_some(inner + k * units, zero, n);
        return;
    }
    tg_vec r = tg_load_some(gates, n), z = tg_load_some(gates + units, n);
    tg_vec new = tg_load_some(gates + 2 * units, n);
    tg_vec dz = (z - z * z) * ((tg_load_some(before, n) - new) * shown);
    tg_vec dn = (1.0f - new * new) * shown * (1.0f - z);
    tg_vec dr = (r - r * r) * tg_load_some(state, n) * dn;
    tg_store_some(d, dr, n);
    tg_store_some(d + units, dz, n);
    tg_store_some(d + 2 * units, dn, n);
    tg_store_some(inner, dr, n);
    tg_store_some(inner + units, dz, n);
    tg_store_some(inner + 2 * units, dn * r, n);
    tg_store_some(dh, shown * z, n);
}

/* value: that of the layer; see tg_lstm_back. */
TG_LARGE void tg_gru_back(long steps, long batch, long units, long reverse, long has_lengths,
                          const float *g, const float *value, const float *w, const int64_t *lengths,
                          const float *gates, const float *states, float *back, long begin, long end) {
    const long state = batch * units, whole = units / TG_L * TG_L, rest = units - whole;
    float *const inner = back + steps * state * 3, *const dh = inner + steps * state * 3;
    const float *const gh = g + (reverse ? 0 : state), *const h = value + (reverse ? state : 0);
    if (!has_lengths) lengths = 0;
    tg_begin_state(dh, 0, units, begin, end);
    for (long k = 0; k < steps; k++) {
        const long t = reverse ? k : steps - 1 - k;
        for (long row = begin; row < end; row++) {
            const long at = row * units, here = t * state + at;
            const int ended = tg_has_ended(lengths, t, row);
            for (long j = 0; j < whole; j += TG_L)
                tg_gru_back_cell(TG_L, units, gates + here * 3 + j, states + here + j, h + here + j,
                                 gh + here + j, dh + at + j, back + here * 3 + j,
                                 inner + here * 3 + j, ended);
            if (rest)
                tg_gru_back_cell(rest, units, gates + here * 3 + whole, states + here + whole,
                                 h + here + whole, gh + here + whole, dh + at + whole,
                                 back + here * 3 + whole, inner + here * 3 + whole, ended);
        }
        tg_rows_product(1, batch, 3 * units, units, inner + t * state * 3, w, dh, lengths, t, begin,
                        end);
    }
}

TG void tg_rnn_back_cell(const long n, const int relu, const float *h, const float *g, float *dh,
                         float *d, const int ended) {
    tg_vec shown = tg_load_some(dh, n) + tg_load_some(g, n), y = tg_load_some(h, n), zero = {0};
    tg_vec slope = 1.0f - y * y;
    if (relu) slope = tg_pick(y > 0.0f, tg_splat(1.0f), zero);
    if (ended) tg_store_some(dh, shown, n), slope = shown = zero;
    tg_store_some(d, slope * shown, n);
}

TG_LARGE void tg_rnn_back(long relu, long steps, long batch, long units, long reverse, long has_lengths,
                          const float *g, const float *value, const float *w, const int64_t *lengths,
                          float *back, long begin, long end) {
    const long state = batch * units, whole = units / TG_L * TG_L, rest = units - whole;
    float *const dh = back + steps * state;
    const float *const gh = g + (reverse ? 0 : state), *const h = value + (reverse ? 0 : state);
    if (!has_lengths) lengths = 0;
    tg_begin_state(dh, 0, units, begin, end);
    for (long k = 0; k < steps; k++) {
        const long t = reverse ? k : steps - 1 - k;
        for (long row = begin; row < end; row++) {
            const long at = row * units, here = t * state + at;
            const int ended = tg_has_ended(lengths, t, row);
            for (long j = 0; j < whole; j += TG_L)
                tg_rnn_back_cell(TG_L, relu, h + here + j, gh + here + j, dh + at + j,
                                 back + here + j, ended);
            if (rest)
                tg_rnn_back_cell(rest, relu, h + here + whole, gh + here + whole, dh + at + whole,
                                 back + here + whole, ended);
        }
        tg_rows_product(0, batch, units, units, back + t * state, w, dh, lengths, t, begin, end);
    }
}

/* --- gradients of weights and biases: D^T X, D^T H and sums of D, over all rows of all steps ---
 *
 * Blocks of rows are copied in the order in which they are read: of D four numbers of each row side
 * by side, of X and H a panel of up to four vectors. What a block gives is added to that of those
 * before it, so that errors do not grow with the number of rows. */
enum {
    TG_BLOCK = 96,                /* rows: a panel of them stays in the first cache */
    TG_ACROSS = 64,               /* numbers of D in a part of the work */
    TG_WIDE = TG_SUMS / 4 * TG_L, /* numbers in a panel */
    TG_GROUP = 512                /* columns whose sums are kept at a time */
};

/* Some numbers of each row, [row][width]; zero behind the last. */
TG_LARGE void tg_copy_panel(const float *from, long step, long rows, long numbers, float *to) {
    for (long k = 0; k < rows; k++, to += TG_WIDE, from += step) {
        if (numbers == TG_WIDE)
            TG_UNROLL for (int i = 0; i < TG_WIDE; i += TG_L) tg_store(to + i, tg_load(from + i));
        else
            for (long i = 0; i < TG_WIDE; i++) to[i] = i < numbers ? from[i] : 0.0f;
    }
}

/* Numbers of some rows as [four numbers][row][4]; sums: those of each number are added. */
TG_LARGE void tg_copy_fours(const float *from, long step, long rows, long numbers, float *to,
                            double *sums) {
    const long whole = numbers / 4 * 4, up = (numbers + 3) / 4 * 4;
    float sum[TG_ACROSS] = {0};
    for (long k = 0; k < rows; k++, from += step) {
        for (long i = 0; i < whole; i += 4) memcpy(to + i * rows + k * 4, from + i, 16);
        for (long i = whole; i < up; i++)
            to[whole * rows + k * 4 + i - whole] = i < numbers ? from[i] : 0.0f;
        if (numbers == TG_ACROSS)
            TG_UNROLL for (int i = 0; i < TG_ACROSS; i += TG_L)
                tg_store(sum + i, tg_load(sum + i) + tg_load(from + i));
        else
            for (long i = 0; i < numbers; i++) sum[i] += from[i];
    }
    for (long i = 0; i < numbers; i++) sums[i] += sum[i];
}

/* sum[c][:] += D[:, c] X over some rows, for four numbers of D. */
TG_LARGE void tg_outer_tile(long rows, const float *d, const float *x, long x_step, float *sum) {
    enum { V = TG_SUMS / 4 };
    tg_vec s[4][V];
    TG_UNROLL for (int k = 0; k < 4 * V; k++) s[k / V][k % V] = (tg_vec){0};
    for (long k = 0; k < rows; k++, d += 4, x += x_step) {
        tg_vec w[V];
        TG_UNROLL for (int v = 0; v < V; v++) {
            w[v] = tg_load(x + v * TG_L);
            TG_IN_REGISTER(w[v]);
        }
        TG_UNROLL for (int c = 0; c < 4; c++) {
            tg_vec f = tg_splat(d[c]);
            TG_IN_REGISTER(f);
            TG_UNROLL for (int v = 0; v < V; v++) s[c][v] += w[v] * f;
        }
    }
    TG_UNROLL for (int k = 0; k < 4 * V; k++) {
        float *const to = sum + k / V * TG_GROUP + k % V * TG_L;
        tg_store(to, tg_load(to) + s[k / V][k % V]);
    }
}

/* Where panel q of [X, H] begins, among the columns of its own matrix, and how many it has. */
typedef struct {
    const float *from;
    long step, start, numbers, width;
} tg_columns;

TG tg_columns tg_columns_of(long q, long inputs, long units, long x_step, const float *x,
                            const float *h) {
    const long before = (inputs + TG_WIDE - 1) / TG_WIDE;
    tg_columns c = {x, x_step, q * TG_WIDE, 0, inputs};
    if (q >= before) c = (tg_columns){h, units, (q - before) * TG_WIDE, 0, units};
    c.numbers = c.width - c.start < TG_WIDE ? c.width - c.start : TG_WIDE;
    return c;
}

/* Ask for what the next block has of D, bit by bit: at place i of so many numbers. */
TG_LARGE void tg_ask_rows(const float *d, long across, long first, long rows, long i, long numbers) {
    const long last = rows < first + TG_BLOCK ? rows : first + TG_BLOCK;
    const long some = (TG_BLOCK * 4 + TG_ACROSS - 1) / TG_ACROSS, from = first + i / 4 * some;
    for (long k = from; k < from + some && k < last; k++) tg_ask(d + k * across, 4 * numbers);
}

/* D [rows, across], X [rows, inputs], whose rows are x_step apart, H [rows, units]. out: the
 * products [across, inputs] and [across, units], and the sums. A part of the work is TG_ACROSS
 * numbers of D. */
TG_LARGE void tg_weights(long rows, long across, long inputs, long units, long x_step, const float *d,
                         const float *x, const float *h, float *out, long begin, long end) {
    enum { GROUP = TG_GROUP / TG_WIDE };
    const long panels = (inputs + TG_WIDE - 1) / TG_WIDE + (units + TG_WIDE - 1) / TG_WIDE;
    float *const sum = tg_rows(0), *const some_d = sum + TG_ACROSS * TG_GROUP;
    float *const some_x = some_d + TG_BLOCK * TG_ACROSS;
    for (long c = begin * TG_ACROSS; c < end * TG_ACROSS && c < across; c += TG_ACROSS) {
        const long numbers = across - c < TG_ACROSS ? across - c : TG_ACROSS;
        double biases[TG_ACROSS];
        for (long g = 0; g < panels; g += GROUP) {
            const long last = panels < g + GROUP ? panels : g + GROUP;
            memset(sum, 0, sizeof(float) * TG_ACROSS * TG_GROUP);
            memset(biases, 0, sizeof biases);
            for (long k = 0; k < rows; k += TG_BLOCK) {
                const long some = rows - k < TG_BLOCK ? rows - k : TG_BLOCK;
                tg_copy_fours(d + k * across + c, across, some, numbers, some_d, biases);
                for (long q = g; q < last; q++) {
                    const tg_columns a = tg_columns_of(q, inputs, units, x_step, x, h);
                    const float *of = a.from + k * a.step + a.start;
                    float *const to = sum + (q - g) * TG_WIDE;
                    /* Rows that lie far apart would take each other's place in the cache. */
                    const int copied = a.numbers < TG_WIDE || a.step > 128;
                    const float *const panel = copied ? some_x : of;
                    const long step = copied ? TG_WIDE : a.step;
                    if (copied) tg_copy_panel(of, a.step, some, a.numbers, some_x);
                    for (long i = 0; i < numbers; i += 4) {
                        if (q == g) tg_ask_rows(d + c, across, k + TG_BLOCK, rows, i, numbers);
                        tg_outer_tile(some, some_d + i * some, panel, step, to + i * TG_GROUP);
                    }
                }
            }
            for (long q = g; q < last; q++) {
                const tg_columns a = tg_columns_of(q, inputs, units, x_step, x, h);
                float *const to = out + (a.from == x ? 0 : across * inputs) + a.start;
                for (long i = 0; i < numbers; i++)
                    memcpy(to + (c + i) * a.width, sum + i * TG_GROUP + (q - g) * TG_WIDE,
                           sizeof(float) * a.numbers);
            }
        }
        for (long i = 0; i < numbers; i++) out[across * (inputs + units) + c + i] = biases[i];
    }
}
#endif
