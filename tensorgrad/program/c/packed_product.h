/* Products of few rows with a factor that is packed once for many of them, after support.h.
 *
 * The factor lies in panels of TG_PACKED columns, [panel][k][column], the last one filled with zeros:
 * a panel is read in order, and stays in the nearest cache for all rows. Each element of the result is
 * added up in order, in one sum, wherever its row begins: parts of any size have the same bits. */
#ifndef TG_PACKED_PRODUCT
#define TG_PACKED_PRODUCT
#include "vectors.h"

#define TG_PACKED 32
#if TG_L == 16
#define TG_PACKED_ROWS 8 /* times two vectors: 16 sums */
#else
#define TG_PACKED_ROWS 4
#endif

/* Some rows of C times two vectors of a panel; `left` columns of C are there. */
TG void tg_packed_tile(const int rows, long k, long row, long step, const float *restrict A,
                       const float *restrict B, float *restrict C, long n, long left) {
    tg_vec s[TG_PACKED_ROWS][2];
    TG_UNROLL for (int r = 0; r < rows; r++) s[r][0] = s[r][1] = (tg_vec){0};
    for (long l = 0; l < k; l++) {
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
        if (left >= (v + 1) * TG_L) tg_store(C + r * n + v * TG_L, s[r][v]);
        else if (left > v * TG_L) tg_store_some(C + r * n + v * TG_L, s[r][v], left - v * TG_L);
    }
}

/* Rows [begin, end) of C [m, n] = A B. Elements of A are `row` and `step` apart; C is contiguous. */
TG void tg_packed_product(long n, long k, long row, long step, const float *A, const float *B,
                          float *C, long begin, long end) {
    for (long j = 0; j < n; j += 2 * TG_L) {
        const float *b = B + j / TG_PACKED * TG_PACKED * k + j % TG_PACKED;
        long i = begin;
        for (; i + TG_PACKED_ROWS <= end; i += TG_PACKED_ROWS)
            tg_packed_tile(TG_PACKED_ROWS, k, row, step, A + i * row, b, C + i * n + j, n, n - j);
        for (; i + 2 <= end; i += 2)
            tg_packed_tile(2, k, row, step, A + i * row, b, C + i * n + j, n, n - j);
        for (; i < end; i++)
            tg_packed_tile(1, k, row, step, A + i * row, b, C + i * n + j, n, n - j);
    }
}
#endif
