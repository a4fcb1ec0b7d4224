/* Products of few rows with a factor that is packed once for many of them, after support.h.
 *
 * The factor lies in panels of TG_PACKED columns, [panel][k][column], the last one filled with zeros:
 * a panel is read in order, and stays in a near cache for all rows. Each element of the result is added
 * up in the same order wherever its row begins: parts of any size have the same bits. */
#ifndef TG_PACKED_PRODUCT
#define TG_PACKED_PRODUCT
#include "vectors.h"

#define TG_PACKED 32
#if TG_L == 16
#define TG_PACKED_ROWS 8 /* times two vectors: 16 sums */
#else
#define TG_PACKED_ROWS 4
#endif

/* The terms of one sum; sums are added up in memory, so that long ones do not drift. */
#define TG_PACKED_SUM 512

/* Some rows of two vectors of a panel's columns, of which `left` are there: `depth` terms of each. */
TG_LARGE void tg_packed_tile(const int rows, const int more, long depth, long row, long step,
                             const float *restrict A, const float *restrict B, float *restrict C,
                             long n, long left) {
    tg_vec s[TG_PACKED_ROWS][2];
    TG_UNROLL for (int r = 0; r < rows; r++) s[r][0] = s[r][1] = (tg_vec){0};
    for (long l = 0; l < depth; l++) {
        tg_vec b0 = tg_load(B + l * TG_PACKED), b1 = tg_load(B + l * TG_PACKED + TG_L);
        TG_IN_REGISTER(b0);
        TG_IN_REGISTER(b1);
        TG_UNROLL for (int r = 0; r < rows; r++) {
            const float a = A[r * row + l * step];
            s[r][0] += a * b0;
            s[r][1] += a * b1;
        }
    }
    TG_UNROLL for (int r = 0; r < rows; r++) TG_UNROLL for (int v = 0; v < 2; v++) {
        float *to = C + r * n + v * TG_L;
        const long there = left - v * TG_L;
        if (there >= TG_L) {
            if (more) s[r][v] += tg_load(to);
            tg_store(to, s[r][v]);
        } else if (there > 0) {
            if (more) s[r][v] += tg_load_some(to, there);
            tg_store_some(to, s[r][v], there);
        }
    }
}

/* Rows [i, end) and two vectors of columns from j on. */
TG_LARGE void tg_packed_rows(const int more, long depth, long n, long row, long step, const float *A,
                             const float *b, float *C, long i, long end, long j) {
    for (; i + TG_PACKED_ROWS <= end; i += TG_PACKED_ROWS)
        tg_packed_tile(TG_PACKED_ROWS, more, depth, row, step, A + i * row, b, C + i * n + j, n,
                       n - j);
    for (; i + 2 <= end; i += 2)
        tg_packed_tile(2, more, depth, row, step, A + i * row, b, C + i * n + j, n, n - j);
    for (; i < end; i++)
        tg_packed_tile(1, more, depth, row, step, A + i * row, b, C + i * n + j, n, n - j);
}

/* Rows [begin, end) of C [m, n] = A B. Elements of A are `row` and `step` apart; C is contiguous. */
TG_LARGE void tg_packed_product(long n, long k, long row, long step, const float *A, const float *B,
                                float *C, long begin, long end) {
    for (long j = 0; j < n; j += 2 * TG_L) {
        const float *b = B + j / TG_PACKED * TG_PACKED * k + j % TG_PACKED;
        long l = k < TG_PACKED_SUM ? k : TG_PACKED_SUM;
        tg_packed_rows(0, l, n, row, step, A, b, C, begin, end, j);
        for (; l < k; l += TG_PACKED_SUM)
            tg_packed_rows(1, k - l < TG_PACKED_SUM ? k - l : TG_PACKED_SUM, n, row, step,
                           A + l * step, b + l * TG_PACKED, C, begin, end, j);
    }
}
#endif
