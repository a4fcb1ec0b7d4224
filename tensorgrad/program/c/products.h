/* Products of matrices in tiles whose sums stay in registers, and packing for them; after
 * support.h.
 *
 * The second factor is packed in panels of TG_PANEL columns, which are read in order. Elements of
 * the first are loaded one by one from where they lie: of a transposed one TG_TILE lie side by side,
 * and the next ones far away, so that these are asked for ahead. */
#ifndef TG_PRODUCTS
#define TG_PRODUCTS
#include "vectors.h"

/* Columns of a tile; it has TG_TILE rows, or TG_TALL: sums that a multiplication waits for are to be
 * twelve where it takes five cycles, and two begin in each. */
#define TG_PANEL (2 * TG_L)
#if TG_L == 8
#define TG_TALL 6
#else
#define TG_TALL TG_TILE
#endif

TG long tg_rounded(long n, long to) { return (n + to - 1) / to * to; }
TG long tg_smaller(long a, long b) { return a < b ? a : b; }

/* --- packing --- */

#if TG_L == 16
#define TG_FRONT 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define TG_BACK 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif TG_L == 8
#define TG_FRONT 0, 8, 1, 9, 2, 10, 3, 11
#define TG_BACK 4, 12, 5, 13, 6, 14, 7, 15
#else
#define TG_FRONT 0, 4, 1, 5
#define TG_BACK 2, 6, 3, 7
#endif
#if defined(__clang__)
#define TG_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define TG_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (tg_ivec){__VA_ARGS__})
#endif

/* TG_L vectors as a matrix, transposed: each step puts its halves into each other. */
TG_LARGE void tg_transpose(tg_vec *x) {
    tg_vec y[TG_L];
    TG_UNROLL for (int step = 1; step < TG_L; step *= 2) {
        TG_UNROLL for (int i = 0; i < TG_L / 2; i++) {
            y[2 * i] = TG_SHUFFLE(x[i], x[i + TG_L / 2], TG_FRONT);
            y[2 * i + 1] = TG_SHUFFLE(x[i], x[i + TG_L / 2], TG_BACK);
        }
        TG_UNROLL for (int i = 0; i < TG_L; i++) x[i] = y[i];
    }
}

/* n numbers from p on, ``step`` apart, and zeros. */
TG_LARGE tg_vec tg_gathered(const float *p, long step, long n) {
    if (step == 1) return n >= TG_L ? tg_load(p) : tg_load_some(p, n);
    float a[TG_L] = {0};
    for (long i = 0; i < n && i < TG_L; i++) a[i] = p[i * step];
    return tg_load(a);
}

/* Rows as columns, in panels: [panel][column][row of the panel]. Missing rows are zero. */
TG_LARGE void tg_pack_panels(const float *x, long down, long across, long rows, long columns,
                             float *to) {
    for (long i = 0; i < rows; i += TG_L) {
        float *panel = to + i / TG_PANEL * TG_PANEL * columns + i % TG_PANEL;
        for (long j = 0; j < columns; j += TG_L) {
            tg_vec t[TG_L];
            if (i + TG_L <= rows && j + TG_L <= columns && across == 1)
                TG_UNROLL for (int r = 0; r < TG_L; r++) t[r] = tg_load(x + (i + r) * down + j);
            else
                for (int r = 0; r < TG_L; r++) {
                    t[r] = (tg_vec){0};
                    if (i + r < rows)
                        t[r] = tg_gathered(x + (i + r) * down + j * across, across, columns - j);
                }
            tg_transpose(t);
            TG_UNROLL for (int c = 0; c < TG_L; c++)
                if (j + c < columns) tg_store(panel + (j + c) * TG_PANEL, t[c]);
        }
    }
    if (tg_rounded(rows, TG_L) % TG_PANEL) { /* the other half of the last panel */
        float *panel = to + rows / TG_PANEL * TG_PANEL * columns + TG_L;
        for (long j = 0; j < columns; j++) tg_store(panel + j * TG_PANEL, (tg_vec){0});
    }
}

/* Rows side by side, padded by zeros to whole vectors, times a factor; zeros up to row ``high``. */
TG_LARGE void tg_pack_rows(const float *x, long down, long across, long rows, long columns,
                           float factor, long high, float *to) {
    const long padded = tg_rounded(columns, TG_L);
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j += TG_L) {
            tg_vec y = tg_gathered(x + i * down + j * across, across, columns - j);
            tg_store(to + i * padded + j, y * factor);
        }
    memset(to + rows * padded, 0, sizeof(float) * (high - rows) * padded);
}

/* --- products --- */

TG_LARGE void tg_clear_tile(const int wide, tg_vec (*sum)[2]) {
    TG_UNROLL for (int r = 0; r < TG_TILE; r++)
        TG_UNROLL for (int v = 0; v < wide; v++) sum[r][v] = (tg_vec){0};
}

/* Steps of the inner axis by which rows that lie far apart are asked for ahead. */
#define TG_AHEAD 12

/* sum [rows][wide] += a b, where element (r, l) of a lies at r * across + l * along. */
TG_LARGE void tg_add_tile(const int rows, const int wide, long depth, const float *a, long across,
                          long along, const float *b, long ldb, tg_vec (*sum)[2]) {
    for (long l = 0; l < depth; l++) {
        tg_vec w[2];
        TG_UNROLL for (int v = 0; v < wide; v++) {
            w[v] = tg_load(b + l * ldb + v * TG_L);
            TG_IN_REGISTER(w[v]);
        }
        if (along > 4 * TG_PANEL) __builtin_prefetch(a + (l + TG_AHEAD) * along);
        TG_UNROLL for (int r = 0; r < rows; r++) {
            const float f = a[r * across + l * along];
            TG_UNROLL for (int v = 0; v < wide; v++) sum[r][v] += w[v] * f;
        }
    }
}

/* What sums are at last added to or multiplied with, at rows ``step`` apart: how is 1 or 2, or 0. */
typedef struct {
    int how;
    const float *x;
    long step;
} tg_epilogue;

/* c [rows][wide vectors] = a b, or is added to; then the epilogue. */
TG_LARGE void tg_sum_tile_with(const int rows, const int wide, long depth, const float *a, long across,
                               long along, const float *b, long ldb, int adds, float *c, long ldc,
                               tg_epilogue e) {
    tg_vec sum[TG_TALL][2];
    if (e.how && e.step)
        for (long r = 0; r < rows; r++)
            for (long v = 0; v < wide * TG_L; v += 16) __builtin_prefetch(e.x + r * e.step + v);
    TG_UNROLL for (int r = 0; r < rows; r++)
        TG_UNROLL for (int v = 0; v < wide; v++)
            sum[r][v] = adds ? tg_load(c + r * ldc + v * TG_L) : (tg_vec){0};
    tg_add_tile(rows, wide, depth, a, across, along, b, ldb, sum);
    TG_UNROLL for (int r = 0; r < rows; r++)
        TG_UNROLL for (int v = 0; v < wide; v++) {
            if (e.how == 1) sum[r][v] += tg_load(e.x + r * e.step + v * TG_L);
            if (e.how == 2) sum[r][v] *= tg_load(e.x + r * e.step + v * TG_L);
            tg_store(c + r * ldc + v * TG_L, sum[r][v]);
        }
}
TG_LARGE void tg_sum_tile(const int wide, long depth, const float *a, long across, long along,
                          const float *b, long ldb, int adds, float *c, long ldc) {
    const tg_epilogue none = {0};
    tg_sum_tile_with(TG_TILE, wide, depth, a, across, along, b, ldb, adds, c, ldc, none);
}

/* c [rows][columns] = a b, or is added to. b has whole vectors, and rows ldb apart. */
TG_LARGE void tg_sum_tiles(long rows, long columns, long depth, const float *a, long across, long along,
                           const float *b, long ldb, int adds, float *c) {
    const long n = tg_rounded(columns, TG_L);
    for (long i = 0; i < rows; i += TG_TILE) {
        const float *p = a + i * across;
        long j = 0;
        for (; j + TG_PANEL <= n; j += TG_PANEL)
            tg_sum_tile(2, depth, p, across, along, b + j, ldb, adds, c + i * n + j, n);
        if (j < n) tg_sum_tile(1, depth, p, across, along, b + j, ldb, adds, c + i * n + j, n);
    }
}

/* --- whole products --- */

/* How much of the inner axis is added up in registers before it goes to memory. */
#define TG_DEPTH 256

/* Columns of a block of B, ``depth`` elements each, as a panel. */
TG_LARGE void tg_pack_panel(const float *b, int tb, long ldb, long depth, long columns, float *to) {
    if (tb) {
        tg_pack_panels(b, ldb, 1, columns, depth, to);
        return;
    }
    for (long l = 0; l < depth; l++)
        TG_UNROLL for (int v = 0; v < TG_PANEL; v += TG_L)
            tg_store(to + l * TG_PANEL + v, tg_gathered(b + l * ldb + v, 1, columns - v));
}

/* Some rows, at most TG_TILE, and columns at the rim of C: added up in a tile beside it. */
TG_LARGE void tg_sum_rim(long rows, long columns, long depth, const float *a, long across, long along,
                         const float *panel, int adds, float *c, long ldc, float *beside,
                         tg_epilogue e) {
    float *of_a = beside + TG_TILE * TG_PANEL;
    for (long r = 0; r < TG_TILE; r++)
        for (long l = 0; l < depth; l++)
            of_a[r * TG_DEPTH + l] = r < rows ? a[r * across + l * along] : 0.0f;
    tg_sum_tile(2, depth, of_a, TG_DEPTH, 1, panel, TG_PANEL, 0, beside, TG_PANEL);
    for (long r = 0; r < rows; r++)
        for (long j = 0; j < columns; j++) {
            float x = beside[r * TG_PANEL + j];
            if (adds) x += c[r * ldc + j];
            if (e.how == 1) x += e.x[r * e.step + j];
            if (e.how == 2) x *= e.x[r * e.step + j];
            c[r * ldc + j] = x;
        }
}

/* The rows of the next tile, where so many are left: as few as can be of those that are not tall. */
TG long tg_tile_rows(long left, long columns) {
    const int tall = left % TG_TALL == 0 || (left % 2 && left > TG_TALL);
    return columns == TG_PANEL && tall ? TG_TALL : tg_smaller(TG_TILE, left);
}

/* Parts of C [m, n] = op(A) op(B), row-major, plus or times E; op transposes where flagged. Parts
 * are blocks of so many rows and columns, by rows. */
TG_LARGE void tg_product_with(long m, long n, long k, int ta, long lda, int tb, long ldb, long high,
                              long wide, int how, long step, const float *A, const float *B,
                              const float *E, float *C, long begin, long end) {
    const long across = ta ? 1 : lda, along = ta ? lda : 1, blocks = (n + wide - 1) / wide;
    float *panel = tg_rows(0), *beside = panel + TG_DEPTH * TG_PANEL;
    for (long t = begin; t < end; t++) {
        const long top = t / blocks * high, bottom = tg_smaller(m, top + high);
        const long left = t % blocks * wide, right = tg_smaller(n, left + wide);
        for (long l = 0; l < k; l += TG_DEPTH) {
            const long depth = tg_smaller(TG_DEPTH, k - l);
            for (long j = left; j < right; j += TG_PANEL) {
                const long columns = tg_smaller(TG_PANEL, right - j);
                tg_pack_panel(B + (tb ? j * ldb + l : l * ldb + j), tb, ldb, depth, columns, panel);
                for (long i = top, rows; i < bottom; i += rows) {
                    const float *a = A + i * across + l * along;
                    float *c = C + i * n + j;
                    const int last = l + depth == k;
                    const tg_epilogue e = {last ? how : 0, how ? E + i * step + j : 0, step};
                    rows = tg_tile_rows(bottom - i, columns);
                    if (columns < TG_PANEL || rows < TG_TILE)
                        tg_sum_rim(rows, columns, depth, a, across, along, panel, l > 0, c, n, beside,
                                   e);
#if TG_TALL != TG_TILE
                    else if (rows == TG_TALL)
                        tg_sum_tile_with(TG_TALL, 2, depth, a, across, along, panel, TG_PANEL, l > 0,
                                         c, n, e);
#endif
                    else
                        tg_sum_tile_with(TG_TILE, 2, depth, a, across, along, panel, TG_PANEL, l > 0,
                                         c, n, e);
                }
            }
        }
    }
}
TG_LARGE void tg_product(long m, long n, long k, int ta, long lda, int tb, long ldb, long high,
                         long wide, const float *A, const float *B, float *C, long begin, long end) {
    tg_product_with(m, n, k, ta, lda, tb, ldb, high, wide, 0, 0, A, B, 0, C, begin, end);
}
#endif
