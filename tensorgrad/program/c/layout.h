/* Numbers put into another order. After support.h. */
#ifndef TG_LAYOUT
#define TG_LAYOUT
#include "products.h"

/* Rows [begin, end), of `high` times `wide` numbers each, with these two axes exchanged. */
TG void tg_transposed_rows(long high, long wide, const float *restrict x, float *restrict y, long begin,
                           long end) {
    const long whole = high / TG_L * TG_L, across = wide / TG_L * TG_L;
    x += begin * high * wide, y += begin * high * wide;
    for (long r = begin; r < end; r++, x += high * wide, y += high * wide) {
        for (long i = 0; i < whole; i += TG_L)
            for (long j = 0; j < across; j += TG_L) {
                tg_vec t[TG_L];
                TG_UNROLL for (int k = 0; k < TG_L; k++) t[k] = tg_load(x + (i + k) * wide + j);
                tg_transpose(t);
                TG_UNROLL for (int k = 0; k < TG_L; k++) tg_store(y + (j + k) * high + i, t[k]);
            }
        for (long i = 0; i < high; i++)
            for (long j = i < whole ? across : 0; j < wide; j++) y[j * high + i] = x[i * wide + j];
    }
}
#endif
