/* Convolutions of float32 and their gradients, in one and two dimensions.
 *
 * Channels of the result are the lanes of vectors. A tile of positions has its sums in registers; for
 * each tap and channel of the input, a vector of weights is multiplied with a number of each position.
 * Weights are packed as [group][block of 16 channels of the result][tap][channel of the input][16]. The
 * rows of an image that a band of the result needs lie, with zeros around them and channels last, in
 * the thread's own memory, unless they can be read where they are: no zeros are needed, or products
 * with them are left out.
 *
 * Sizes are constants for the compiler. Those of tiles come for 16, 8 and 4 lanes, as
 * rows * 65536 + columns * 256 + vectors. */

#ifndef TG_CONVOLUTION
#define TG_CONVOLUTION
#include "vectors.h"

#define TG_ROLLED _Pragma("GCC unroll 1") /* compiling would take long */
#define TG_SUMS 32 /* sums in registers, at most */
/* Positions of a row whose ends are tiles of their own, at most; as in ops/convolution_loops.py. */
#define TG_SHORT 32

TG long tg_of_lanes(long wide, long middle, long narrow) {
    return TG_L == 16 ? wide : TG_L == 8 ? middle : narrow;
}
TG long tg_least(long a, long b) { return a < b ? a : b; }
typedef uint8_t tg_bytes __attribute__((vector_size(TG_L), aligned(1), may_alias));

/* TG_L bytes as numbers of 32 bits; GCC takes them one by one. */
TG_LARGE tg_ivec tg_widened(const uint8_t *p) {
#if defined(__AVX2__)
    tg_ivec x;
    __asm__("vpmovzxbd %1, %0" : "=v"(x) : "m"(*(const tg_bytes *)p));
    return x;
#else
    tg_ivec x = tg_isplat(0);
    for (int l = 0; l < TG_L; l++) x[l] = p[l];
    return x;
#endif
}
TG tg_bytes tg_narrowed(tg_ivec x) {
#if defined(__AVX512F__)
    tg_bytes found;
    __asm__("vpmovdb %1, %0" : "=v"(found) : "v"(x));
    return found;
#else
    return __builtin_convertvector(x, tg_bytes);
#endif
}
/* count: a multiple of 16. */
TG_LARGE int tg_all_finite(const float *x, long count) {
    tg_vec sum[4] = {{0}};
    const long whole = count / (4 * TG_L) * (4 * TG_L);
    for (long i = 0; i < whole; i += 4 * TG_L)
        TG_UNROLL for (int k = 0; k < 4; k++) sum[k] += tg_load(x + i + k * TG_L) * 0.0f;
    for (long i = whole; i < count; i += TG_L) sum[0] += tg_load(x + i) * 0.0f;
    return tg_total(sum[0] + sum[1] + (sum[2] + sum[3])) == 0.0f;
}

TG long tg_blocks(long channels) { return (channels + 15) / 16; }

/* Where vector v of packed blocks, `block` apart, begins. */
TG long tg_vector_at(long v, long block) { return v * TG_L / 16 * block + v * TG_L % 16; }

/* What a convolution is: channels are those of a group; strides are in elements; those of an axis lie
 * side by side for rows and columns. */
typedef struct {
    long images, groups, in, out;
    long x_size[2], x_image, x_channel, x_step[2];
    long y_size[2];
    long kernel[2], stride[2], padding[2], dilation[2];
    long transposed; /* gradient for the input: x is the gradient, y that of the input */
    long depthwise;  /* a channel of x for each of y; then groups is 1, in is 1 */
    long bands, tile;
    long pooled;   /* of 2 x 2 positions the largest is kept, and which it was; y_size is even */
    long positive; /* a result below 0 is 0 */
    long scaled;   /* a result is shifted and scaled by numbers of its channel */
    long added;    /* and something is added to it that lies as y does */
} tg_conv;

/* How the positions of one axis meet taps: position q of the result, at to + q * to_step, is the sum
 * over t of tap + t * tap_step times what lies at from + q * step + t * apart. */
typedef struct {
    long count, to, to_step, from, step, taps, apart, tap, tap_step;
} tg_axis;

/* Of the gradient for the input each `stride`-th position meets the same taps. */
TG_LARGE tg_axis tg_phase(long phase, long size, long kernel, long stride, long padding,
                          long dilation) {
    if (stride == 1)
        return (tg_axis){size, 0, 1, padding - (kernel - 1) * dilation, 1, kernel, dilation, 0, 1};
    long first = -1, apart = stride;
#pragma GCC unroll 16
    for (long k = stride - 1; k >= 0; k--)
        if (k < kernel && (phase + padding - k * dilation) % stride == 0) first = k;
#pragma GCC unroll 16
    for (long k = stride - 1; k > 0; k--)
        if (k * dilation % stride == 0) apart = k;
    const long count = (size - phase + stride - 1) / stride;
    if (first < 0) return (tg_axis){count, phase, stride, 0, 1, 0, 1, 0, 1};
    const long taps = (kernel - 1 - first) / apart + 1, last = first + (taps - 1) * apart;
    return (tg_axis){count, phase, stride, (phase + padding - last * dilation) / stride, 1, taps,
                     apart * dilation / stride, kernel - 1 - last, apart};
}
TG_LARGE tg_axis tg_axis_of(const tg_conv c, int a, long phase) {
    if (c.stride[a] == 1) phase = 0; /* known before loops are written out */
    if (c.transposed)
        return tg_phase(phase, c.y_size[a], c.kernel[a], c.stride[a], c.padding[a], c.dilation[a]);
    return (tg_axis){c.y_size[a], 0, 1, -c.padding[a], c.stride[a], c.kernel[a], c.dilation[a], 0, 1};
}

/* Which of `count` places, `step` apart from `place` on, are among `size`. */
typedef struct {
    long first, end;
} tg_range;

TG tg_range tg_within(long place, long step, long count, long size) {
    const long first = place >= 0 ? 0 : tg_least(count, (step - 1 - place) / step);
    const long end = place < size ? tg_least(count, (size - 1 - place) / step + 1) : 0;
    return (tg_range){first, end < first ? first : end};
}
/* The taps that position q meets a number with, and those of `count` positions from q on that do with
 * a tap. */
TG tg_range tg_taps_within(const tg_axis a, long size, long q) {
    return tg_within(a.from + q * a.step, a.apart, a.taps, size);
}
TG tg_range tg_positions_within(const tg_axis a, long size, long q, long count, long tap) {
    return tg_within(a.from + q * a.step + tap * a.apart, a.step, count, size);
}

/* The first place that any window begins at, and how many places `count` of them cover. */
TG long tg_lowest(const tg_conv c, int a) {
    if (!c.transposed) return -c.padding[a];
    const long n = c.padding[a] - (c.kernel[a] - 1) * c.dilation[a];
    return n >= 0 ? n / c.stride[a] : -((c.stride[a] - 1 - n) / c.stride[a]);
}
TG long tg_extent(const tg_conv c, int a, long count) {
    if (!c.transposed) return (count - 1) * c.stride[a] + (c.kernel[a] - 1) * c.dilation[a] + 1;
    return count + (c.stride[a] - 1 + c.padding[a]) / c.stride[a] - tg_lowest(c, a);
}
/* How many windows there are, of the phase that has most. */
TG long tg_count(const tg_conv c, int a) {
    return c.transposed ? (c.y_size[a] + c.stride[a] - 1) / c.stride[a] : c.y_size[a];
}
TG long tg_channels(const tg_conv c) { return c.depthwise ? c.out : c.groups * c.in; }

/* Whether windows can be read where they lie: none reaches over the border. */
TG int tg_inside_axis(const tg_conv c, int a) {
    return tg_lowest(c, a) >= 0 && tg_lowest(c, a) + tg_extent(c, a, tg_count(c, a)) <= c.x_size[a];
}
TG int tg_inside(const tg_conv c) {
    const int near = c.x_channel == 1 || tg_channels(c) == 1;
    const int one = c.kernel[0] * c.kernel[1] == 1 && !c.depthwise;
    return (near || one) && !(c.depthwise && c.out % 16) && tg_inside_axis(c, 0) &&
           tg_inside_axis(c, 1);
}

/* Whether products with zeros beside rows are left out: the first and the last tile of a row are then
 * compiled apart. In long rows there are few such products. */
TG int tg_spares(const tg_conv c, const tg_axis columns) {
    return c.in > 1 && columns.taps > 1 && columns.taps <= 5 && columns.count <= TG_SHORT;
}

/* Whether tiles leave out all products with zeros, so that a convolution reads the image where it lies:
 * tiles of one row, and between the first and the last tile of a row no tap is outside. */
TG_LARGE int tg_needs_no_zeros(const tg_conv c) {
    const tg_axis a = tg_axis_of(c, 1, 0);
    const long P = tg_least(c.tile >> 8 & 255, a.count), last = a.count - P;
    const int plain = !c.pooled && !(c.transposed && c.stride[0] * c.stride[1] > 1);
    return plain && c.x_channel == 1 && c.tile >> 16 == 1 && tg_spares(c, a) &&
           (last <= P || (tg_taps_within(a, c.x_size[1], P).first == 0 &&
                          tg_taps_within(a, c.x_size[1], last + P - 2).end == a.taps));
}

/* Ask the second cache for an image that is next, while the first one is full of this. */
TG_LARGE void tg_ask_second(const void *from, long bytes) {
    for (long i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)from + i, 0, 2);
}

/* `count` positions of an image's row, channels last. */
TG_LARGE void tg_copy_positions(float *to, const float *x, long count, long channels, long channel,
                                long step) {
    if ((channel == 1 || channels == 1) && step == channels)
        memcpy(to, x, 4 * count * channels);
    else if (channel == 1)
        for (long i = 0; i < count; i++) memcpy(to + i * channels, x + i * step, 4 * channels);
    else
        for (long c = 0; c < channels; c++)
            for (long i = 0; i < count; i++) to[i * channels + c] = x[c * channel + i * step];
}

/* A box of an image, zero where it reaches over the border, as [rows][columns][channels]. */
TG_LARGE void tg_copy_box(float *to, const float *x, const long size[2], long channels, long channel,
                          const long step[2], long row, long rows, long column, long columns) {
    const long begin = tg_least(column < 0 ? -column : 0, columns);
    const long stop = column + columns > size[1] ? size[1] - column : columns;
    const long end = stop < begin ? begin : stop;
    for (long r = row; r < row + rows; r++, to += columns * channels) {
        if (r < 0 || r >= size[0]) {
            memset(to, 0, 4 * columns * channels);
            continue;
        }
        memset(to, 0, 4 * begin * channels);
        tg_copy_positions(to + begin * channels, x + r * step[0] + (column + begin) * step[1],
                          end - begin, channels, channel, step[1]);
        memset(to + end * channels, 0, 4 * (columns - end) * channels);
    }
}

/* --- weights ------------------------------------------------------------------------------------ */

#define TG_AT_ONCE 144 /* vectors of 16 that are turned in the first cache: 16 channels of 9 taps */

/* Taps [t, stop) of channels [i, end) of one block: read as they lie, so all of one lane first. from, to:
 * of the block. zero: what each tap makes of zeros; these channels' is added. */
TG_LARGE void tg_pack_weights(long in, long in_step, long out_step, long tap_step, long lanes,
                              const float *from, float *to, float *zero, long t, long stop, long i,
                              long end) {
    float turned[TG_AT_ONCE * 16];
    const long count = end - i;
    if (lanes < 16) memset(turned, 0, sizeof turned);
    for (long l = 0; l < lanes; l++)
        for (long k = 0; k < count; k++)
            for (long a = 0; a < stop - t; a++)
                turned[(a * count + k) * 16 + l] =
                    from[(t + a) * tap_step + (i + k) * in_step + l * out_step];
    for (long a = 0; a < stop - t; a++)
        for (long k = 0; k < count; k++)
            TG_UNROLL for (int l = 0; l < 16; l += TG_L) {
                const tg_vec x = tg_load(turned + (a * count + k) * 16 + l);
                float *sum = zero + (t + a) * 16 + l;
                tg_store(to + ((t + a) * in + i + k) * 16 + l, x);
                tg_store(sum, tg_load(sum) + x * 0.0f);
            }
}

/* Blocks [begin, end) of packed weights, of groups * blocks; the bias follows them all, and for each tap
 * what it makes of zeros: 0, or NaN if a weight is not finite. The steps are those of the weights: from
 * group to group, and so on; from tap to tap backwards for gradients. */
TG_LARGE void tg_convolution_pack(long groups, long in, long out, long taps, long group_step,
                                  long in_step, long out_step, long tap_step, long bias_step,
                                  const float *w, const float *bias, float *packed, long begin,
                                  long end) {
    const long blocks = tg_blocks(out), block = taps * in * 16;
    const long high = tg_least(taps, TG_AT_ONCE), wide = TG_AT_ONCE / high;
    for (long b = begin; b < end; b++) {
        const long first = b % blocks * 16, lanes = tg_least(16, out - first);
        const float *from = w + b / blocks * group_step + first * out_step;
        if (tap_step < 0) from -= (taps - 1) * tap_step;
        float *last = packed + groups * blocks * block + b * 16;
        float *zero = packed + groups * blocks * (block + 16) + b * taps * 16;
        memset(zero, 0, 4 * taps * 16);
        for (long i = 0; i < in; i += wide)
            for (long t = 0; t < taps; t += high)
                tg_pack_weights(in, in_step, out_step, tap_step, lanes, from, packed + b * block, zero,
                                t, tg_least(t + high, taps), i, tg_least(i + wide, in));
        for (long l = 0; l < 16; l++)
            last[l] = bias_step && l < lanes ? bias[b / blocks * out + first + l] : 0.0f;
    }
}

/* Blocks [begin, end) of what results are scaled by: for all channels, padded to blocks, what is taken
 * away first; then all factors, and all that is added, which is nothing unless `shifted`. */
TG_LARGE void tg_convolution_scales(long groups, long out, long shifted, const float *center,
                                    const float *scale, const float *shift, float *packed, long begin,
                                    long end) {
    const long blocks = tg_blocks(out), count = groups * blocks * 16;
    for (long b = begin; b < end; b++)
        for (long l = 0; l < 16; l++) {
            const long o = b % blocks * 16 + l, from = b / blocks * out + o;
            float *to = packed + b * 16 + l;
            to[0] = o < out ? center[from] : 0.0f;
            to[count] = o < out ? scale[from] : 0.0f;
            to[2 * count] = o < out && shifted ? shift[from] : 0.0f;
        }
}

/* --- the convolution, and its gradient for the input --------------------------------------------- */

/* Adds to the sums of R * P positions, V vectors of channels each, what `count` channels of a tap give
 * to positions [first, end) of each row. channel: from one to the next of the input's. */
TG_LARGE void tg_conv_tap(const int R, const int P, const int V, const tg_conv c, long count,
                          long first, long end, long row, long column, long channel, const float *p,
                          const float *q, long v, tg_vec *sum) {
    const long block = c.kernel[0] * c.kernel[1] * c.in * 16;
    TG_ROLLED for (long i = 0; i < count; i++, p += channel, q += 16) {
        __asm__("" : "+r"(p)); /* GCC would keep what the next channels read, too, without room */
        tg_vec f[4];
        TG_UNROLL for (int k = 0; k < V; k++) {
            f[k] = tg_load(q + tg_vector_at(v + k, block));
            TG_IN_REGISTER(f[k]);
        }
        TG_UNROLL for (int r = 0; r < R; r++) TG_UNROLL for (int j = first; j < end; j++) {
            const float *at = p + r * row + j * column;
            TG_UNROLL for (int k = 0; k < V; k++)
                sum[(r * P + j) * V + k] +=
                    f[k] * (c.depthwise ? tg_load(at + k * TG_L) : tg_splat(*at));
        }
    }
}

/* Whether the weights of all taps stay in registers, beside few sums: of one channel each number of the
 * image is then loaded once for all taps and positions of a tile that meet it. */
TG int tg_keeps_weights(const tg_conv c, int V) {
    const int plain = c.stride[0] * c.stride[1] * c.dilation[0] * c.dilation[1] == 1;
    return TG_L == 16 && plain && V == 1 && c.in == 1 && c.groups == 1 && !c.depthwise &&
           !c.transposed && c.kernel[0] * c.kernel[1] <= 9;
}
TG_LARGE void tg_conv_kept(const int R, const int P, const tg_conv c, long pitch, long place,
                           const float *x, const float *w, tg_vec *sum) {
    const int A = c.kernel[0], B = c.kernel[1];
    tg_vec f[9];
    TG_UNROLL for (int t = 0; t < A * B; t++) f[t] = tg_load(w + t * 16);
    TG_UNROLL for (int i = 0; i < R + A - 1; i++) TG_UNROLL for (int j = 0; j < P + B - 1; j++) {
        tg_vec v = tg_splat(x[i * pitch + j * place]);
        TG_IN_REGISTER(v);
        TG_UNROLL for (int a = 0; a < A; a++) TG_UNROLL for (int b = 0; b < B; b++)
            if (i >= a && i - a < R && j >= b && j - b < P)
                sum[(i - a) * P + j - b] += v * f[a * B + b];
    }
}

/* Whether the taps of a row can be taken for one with so many times the channels. */
TG int tg_merges_taps(const tg_conv c, const tg_axis columns, long place, long channel) {
    const long right = columns.tap_step * c.in * 16, aside = columns.apart * place;
    return channel == 1 && aside == c.in && right == c.in * 16;
}

/* What a row of taps gives to R rows of P positions. from, f: what the first tap meets, and its weights. */
TG_LARGE void tg_conv_line(const int R, const int P, const int V, const tg_conv c,
                           const tg_axis columns, long row, long column, long place, long channel,
                           const float *from, const float *f, long v, tg_vec *sum) {
    const long right = columns.tap_step * c.in * 16, aside = columns.apart * place;
    const int merged = tg_merges_taps(c, columns, place, channel);
    TG_ROLLED for (long b = 0; b < (merged ? 1 : columns.taps); b++)
        tg_conv_tap(R, P, V, c, merged ? columns.taps * c.in : c.in, 0, P, row, column, channel,
                    from + b * aside, f + b * right, v, sum);
}

/* The same without the products with zeros. at: the first position's column. */
TG_LARGE void tg_conv_line_at(const int R, const int P, const int V, const tg_conv c,
                              const tg_axis columns, long row, long column, long place, long channel,
                              const float *from, const float *f, long v, long at, tg_vec *sum) {
    const long right = columns.tap_step * c.in * 16, aside = columns.apart * place;
    const int merged = tg_merges_taps(c, columns, place, channel);
    const long first = tg_taps_within(columns, c.x_size[1], at).first;
    const long end = tg_taps_within(columns, c.x_size[1], at + P - 1).end;
    TG_UNROLL for (int b = 0; b < columns.taps; b++) { /* [first, end): those of all positions */
        if (merged && b > first && b < end) continue;
        const tg_range m = tg_positions_within(columns, c.x_size[1], at, P, b);
        const long count = merged && b == first && b < end ? (end - first) * c.in : c.in;
        if (m.first < m.end)
            tg_conv_tap(R, P, V, c, count, m.first, m.end, row, column, channel, from + b * aside,
                        f + b * right, v, sum);
    }
}

/* Where tiles lie from one tap and position to the next: weights, and numbers of the image. */
typedef struct {
    const float *w;
    long down, row, column;
} tg_pitches;

TG tg_pitches tg_pitches_of(const tg_conv c, const tg_axis rows, const tg_axis columns, long pitch,
                            long place, const float *w) {
    return (tg_pitches){w + (rows.tap * c.kernel[1] + columns.tap) * c.in * 16,
                        rows.tap_step * c.kernel[1] * c.in * 16, rows.step * pitch,
                        columns.step * place};
}

/* What all taps give, of which tap rows with `taps` alone. */
TG_LARGE void tg_conv_sums(const int R, const int P, const int V, const tg_conv c, const tg_axis rows,
                           const tg_axis columns, long pitch, long place, long channel, const float *x,
                           const float *w, long v, const tg_range taps, tg_vec *sum) {
    const tg_pitches lie = tg_pitches_of(c, rows, columns, pitch, place, w);
    if (tg_keeps_weights(c, V)) {
        tg_conv_kept(R, P, c, pitch, place, x, w + tg_vector_at(v, c.kernel[0] * c.kernel[1] * 16), sum);
        return;
    }
    if (c.in == 1 && c.kernel[0] * c.kernel[1] <= 9) { /* not worth a loop */
        const long right = columns.tap_step * c.in * 16;
        TG_UNROLL for (int a = 0; a < rows.taps; a++) TG_UNROLL for (int b = 0; b < columns.taps; b++)
            tg_conv_tap(R, P, V, c, 1, 0, P, lie.row, lie.column, channel,
                        x + a * rows.apart * pitch + b * columns.apart * place,
                        lie.w + a * lie.down + b * right, v, sum);
        return;
    }
    TG_ROLLED for (long a = taps.first; a < taps.end; a++)
        tg_conv_line(R, P, V, c, columns, lie.row, lie.column, place, channel,
                     x + a * rows.apart * pitch, lie.w + a * lie.down, v, sum);
}

/* The same at the end of a row, whose first position is at column `at`: products with the zeros beside
 * it are left out. Of two rows from r on that are pooled, taps outside the image as well. */
TG_LARGE void tg_conv_sums_at(const int R, const int P, const int V, const tg_conv c,
                              const tg_axis rows, const tg_axis columns, long pitch, long place,
                              long channel, const float *x, const float *w, long v,
                              const tg_range taps, long r, long at, tg_vec *sum) {
    const tg_pitches lie = tg_pitches_of(c, rows, columns, pitch, place, w);
    TG_ROLLED for (long a = taps.first; a < taps.end; a++) {
        const float *from = x + a * rows.apart * pitch, *f = lie.w + a * lie.down;
        if (c.pooled && R == 2) {
            const tg_range m = tg_positions_within(rows, c.x_size[0], r, R, a);
            if (m.first && m.first < m.end)
                tg_conv_line_at(1, P, V, c, columns, lie.row, lie.column, place, channel,
                                from + lie.row, f, v, at, sum + P * V);
            if (m.first == 0 && m.end == 1)
                tg_conv_line_at(1, P, V, c, columns, lie.row, lie.column, place, channel, from, f, v,
                                at, sum);
            if (m.first || m.end < R) continue;
        }
        tg_conv_line_at(R, P, V, c, columns, lie.row, lie.column, place, channel, from, f, v, at, sum);
    }
}

/* What R * P positions from (r, j) on begin with, `lanes` channels each: the bias, and what zeros around
 * the image give at the taps that meet them. zero: for each tap, blocks being `taps` * 16 apart. */
static __attribute__((noinline, noclone)) void tg_conv_zeros(long R, long P, long lanes, const long size[2],
                                                    const tg_axis *rows, const tg_axis *columns,
                                                    long wide, long taps, const float *bias,
                                                    const float *zero, long v, long r, long j,
                                                    float *sum) {
    for (long i = 0; i < R * P; i++, sum += lanes) {
        const tg_range m = tg_taps_within(*rows, size[0], r + i / P);
        const tg_range n = tg_taps_within(*columns, size[1], j + i % P);
        memcpy(sum, bias + v * TG_L, 4 * lanes);
        for (long a = 0; a < rows->taps; a++)
            for (long b = 0; b < columns->taps; b++) {
                if (a >= m.first && a < m.end && b >= n.first && b < n.end) continue;
                const long tap = (rows->tap + a * rows->tap_step) * wide + columns->tap +
                                 b * columns->tap_step;
                for (long l = 0; l < lanes; l++) {
                    const long o = v * TG_L + l;
                    sum[l] += zero[(o / 16 * taps + tap) * 16 + o % 16];
                }
            }
    }
}

/* Stores the first `lanes` channels of R * P positions; the next ones are others'. Loops, not written out
 * for each sum: that took long to compile. */
TG_LARGE void tg_store_part(const int R, const int P, const int V, const tg_vec *sum, float *y,
                            long row, long column, long lanes) {
    float part[TG_SUMS * TG_L];
    TG_UNROLL for (int i = 0; i < R * P * V; i++) tg_store(part + i * TG_L, sum[i]);
    TG_ROLLED for (long r = 0; r < R; r++) TG_ROLLED for (long j = 0; j < P; j++)
        TG_ROLLED for (long l = 0; l < lanes; l++)
            y[r * row + j * column + l] = part[(r * P + j) * V * TG_L + l];
}

/* Of each 2 x 2 sums, none of which is NaN, the first of the largest ones, and its number. */
TG_LARGE tg_vec tg_pool_sums(const int P, const int V, const tg_vec *sum, tg_bytes *number) {
    tg_vec best = sum[0];
    TG_UNROLL for (int q = 1; q < 4; q++) best = tg_larger(sum[(q / 2 * P + q % 2) * V], best);
    tg_ivec which = tg_isplat(3);
    TG_UNROLL for (int q = 2; q >= 0; q--) {
        const tg_ivec found = sum[(q / 2 * P + q % 2) * V] == best;
        which = (found & q) | (~found & which);
    }
    *number = tg_narrowed(which);
    return best;
}

/* The same of R * P positions of `lanes` channels each, which may be NaN: the last NaN. Stores `left`
 * channels. */
static __attribute__((noinline, noclone)) void tg_store_pooled_nan(
    long R, long P, long lanes, long left, long positive, long pitch, long out, const float *sum,
    float *y, uint8_t *number) {
    for (long i = 0; i < R / 2 * (P / 2); i++)
        for (long l = 0; l < tg_least(lanes, left); l++) {
            const long r = i / (P / 2), j = i % (P / 2);
            float best = sum[(2 * r * P + 2 * j) * lanes + l];
            int which = 0;
            for (int q = 1; q < 4; q++) {
                const float x = sum[((2 * r + q / 2) * P + 2 * j + q % 2) * lanes + l];
                if (x > best || x != x) best = x, which = q;
            }
            y[r * pitch + j * out + l] = positive && best <= 0.0f ? 0.0f : best;
            number[r * pitch + j * out + l] = which;
        }
}
TG_LARGE int tg_some_nan(tg_vec x) {
#if defined(__AVX512F__)
    uint16_t found;
    __asm__("vcmpunordps %1, %1, %0" : "=Yk"(found) : "v"(x));
    return found;
#elif defined(__AVX__)
    int found;
    __asm__("vcmpunordps %1, %1, %1\n\tvmovmskps %1, %0" : "=r"(found), "+x"(x));
    return found;
#else
    const tg_ivec bad = x != x;
    int found = 0;
    for (int l = 0; l < TG_L; l++) found |= bad[l];
    return found;
#endif
}

TG_LARGE void tg_store_pooled(const int R, const int P, const int V, const tg_conv c, const tg_vec *sum,
                              long v, float *y, uint8_t *number) {
    const long pitch = c.y_size[1] / 2 * c.out, left = c.out - v * TG_L;
    tg_vec best[TG_SUMS / 4], all[4];
    tg_bytes bytes[TG_SUMS / 4];
    y += v * TG_L, number += v * TG_L;
    TG_UNROLL for (int i = 0; i < 4; i++) all[i] = sum[i]; /* R and P are even */
    TG_UNROLL for (int i = 4; i < R * P * V; i++) all[i % 4] += sum[i];
    if (__builtin_expect(tg_some_nan(all[0] + all[1] + (all[2] + all[3])), 0)) {
        float own[TG_SUMS * TG_L];
        TG_UNROLL for (int i = 0; i < R * P * V; i++) tg_store(own + i * TG_L, sum[i]);
        tg_store_pooled_nan(R, P, V * TG_L, left, c.positive, pitch, c.out, own, y, number);
        return;
    }
    TG_UNROLL for (int r = 0; r < R / 2; r++) TG_UNROLL for (int j = 0; j < P / 2; j++)
        TG_UNROLL for (int k = 0; k < V; k++) {
            const int i = (r * (P / 2) + j) * V + k;
            best[i] = tg_pool_sums(P, V, sum + (2 * r * P + 2 * j) * V + k, &bytes[i]);
            if (c.positive) best[i] = tg_larger(best[i], tg_splat(0.0f));
            if (c.out % TG_L) continue;
            tg_store(y + r * pitch + j * c.out + k * TG_L, best[i]);
            memcpy(number + r * pitch + j * c.out + k * TG_L, &bytes[i], TG_L);
        }
    if (c.out % TG_L == 0) return;
    const long lanes = tg_least(left, V * TG_L);
    tg_store_part(R / 2, P / 2, V, best, y, pitch, c.out, lanes);
    TG_ROLLED for (long r = 0; r < R / 2; r++) TG_ROLLED for (long j = 0; j < P / 2; j++)
        memcpy(number + r * pitch + j * c.out, bytes + (r * (P / 2) + j) * V, lanes);
}

/* What becomes of sums. scales: of the first channel of a group, each kind `count` after the last one;
 * added: where the first position's channels are. */
typedef struct {
    const float *scales, *added;
    long count;
} tg_after;

TG_LARGE void tg_conv_after(const int R, const int P, const int V, const tg_conv c,
                            const tg_after after, long v, long row, long column, tg_vec *sum) {
    TG_UNROLL for (int k = 0; k < V; k++) {
        const float *p = after.scales + (v + k) * TG_L;
        const tg_vec center = tg_load(p), scale = tg_load(p + after.count);
        const tg_vec shift = tg_load(p + 2 * after.count);
        const long lanes = tg_least(c.out - (v + k) * TG_L, TG_L);
        TG_UNROLL for (int r = 0; r < R; r++) TG_UNROLL for (int j = 0; j < P; j++) {
            const float *more = after.added + r * row + j * column + (v + k) * TG_L;
            tg_vec x = (sum[(r * P + j) * V + k] - center) * scale + shift;
            if (c.added) x += c.out % TG_L ? tg_load_some(more, lanes) : tg_load(more);
            if (c.positive) x = tg_pick(x <= 0.0f, tg_splat(0.0f), x);
            sum[(r * P + j) * V + k] = x;
        }
    }
}

/* Where a tile of a phase takes its numbers: weights and biases of the group, what taps make of zeros,
 * if that is not 0 everywhere, and what becomes of sums. */
typedef struct {
    const float *w, *bias, *zero;
    long pitch, place, channel;
    tg_after after;
} tg_source;

/* What R * P positions from row r and column j on begin with. */
TG_LARGE void tg_conv_begin(const int R, const int P, const int V, const tg_conv c, const tg_axis rows,
                            const tg_axis columns, const tg_source s, long v, long r, long j,
                            tg_vec *sum) {
    float own[TG_SUMS * TG_L];
    const float *start = s.bias + v * TG_L;
    long step = 0;
    if (s.zero) {
        tg_conv_zeros(R, P, V * TG_L, c.x_size, &rows, &columns, c.kernel[1],
                      c.kernel[0] * c.kernel[1], s.bias, s.zero, v, r, j, own);
        start = own, step = V * TG_L;
    }
    TG_UNROLL for (int i = 0; i < R * P; i++, start += step) TG_UNROLL for (int k = 0; k < V; k++)
        sum[i * V + k] = tg_load(start + k * TG_L);
}

/* What becomes of their sums, at vector v; y, number: where the first position of the phase goes. */
TG_LARGE void tg_conv_end(const int R, const int P, const int V, const tg_conv c, const tg_axis rows,
                          const tg_axis columns, tg_after after, long v, long r, long j, float *y,
                          uint8_t *number, tg_vec *sum) {
    const long channels = c.groups * c.out, left = c.out - v * TG_L;
    const long row = rows.to_step * c.y_size[1] * channels, column = columns.to_step * channels;
    const long to = c.pooled ? r / 2 * (c.y_size[1] / 2) + j / 2
                             : (rows.to + r * rows.to_step) * c.y_size[1] + columns.to +
                                   j * columns.to_step;
    y += to * channels, number += to * channels, after.added += to * channels;
    if (c.scaled) tg_conv_after(R, P, V, c, after, v, row, column, sum);
    if (c.pooled) {
        tg_store_pooled(R, P, V, c, sum, v, y, number);
        return;
    }
    if (c.out % TG_L) {
        tg_store_part(R, P, V, sum, y + v * TG_L, row, column, tg_least(left, V * TG_L));
        return;
    }
    TG_UNROLL for (int r = 0; r < R; r++) TG_UNROLL for (int j = 0; j < P; j++)
        TG_UNROLL for (int k = 0; k < V; k++)
            tg_store(y + r * row + j * column + k * TG_L + v * TG_L, sum[(r * P + j) * V + k]);
}

TG tg_range tg_tap_rows(const int R, const tg_conv c, const tg_axis rows, long r) {
    return R == 1 ? tg_taps_within(rows, c.x_size[0], r) : (tg_range){0, rows.taps};
}
TG const float *tg_windows_at(const tg_conv c, const tg_axis rows, const tg_axis columns,
                              const tg_source s, const float *x, long q, long v, long r, long j) {
    return x + (r - q) * rows.step * s.pitch + j * columns.step * s.place +
           (c.depthwise ? v * TG_L : 0);
}

/* One tile, at row r and column j, and at vector v. x: the first window of row q. */
TG_LARGE void tg_conv_tile(const int R, const int P, const int V, const tg_conv c, const tg_axis rows,
                           const tg_axis columns, const tg_source s, const float *x, long q, long v,
                           long r, long j, float *y, uint8_t *number) {
    tg_vec sum[TG_SUMS];
    tg_conv_begin(R, P, V, c, rows, columns, s, v, r, j, sum);
    tg_conv_sums(R, P, V, c, rows, columns, s.pitch, s.place, s.channel,
                 tg_windows_at(c, rows, columns, s, x, q, v, r, j), s.w, v,
                 tg_tap_rows(R, c, rows, r), sum);
    tg_conv_end(R, P, V, c, rows, columns, s.after, v, r, j, y, number, sum);
}

/* The same at an end of a row. Both in one would be compiled twice, as constants show too late which. */
TG_LARGE void tg_conv_tile_at(const int R, const int P, const int V, const tg_conv c,
                              const tg_axis rows, const tg_axis columns, const tg_source s,
                              const float *x, long q, long v, long r, long j, float *y,
                              uint8_t *number) {
    tg_vec sum[TG_SUMS];
    tg_conv_begin(R, P, V, c, rows, columns, s, v, r, j, sum);
    tg_conv_sums_at(R, P, V, c, rows, columns, s.pitch, s.place, s.channel,
                    tg_windows_at(c, rows, columns, s, x, q, v, r, j), s.w, v,
                    tg_tap_rows(R, c, rows, r), r, j, sum);
    tg_conv_end(R, P, V, c, rows, columns, s.after, v, r, j, y, number, sum);
}

/* Rows [q, end) of one phase, R at least. What is left over at the end of an axis is computed by a tile
 * that overlaps with the last one. */
TG_LARGE void tg_conv_band(const int R, const tg_conv c, const tg_axis rows, const tg_axis columns,
                           const tg_source s, const float *x, float *y, uint8_t *number, long q,
                           long end) {
    const long vectors = (c.out + TG_L - 1) / TG_L;
    const int P = tg_least(c.tile >> 8 & 255, columns.count), V = tg_least(c.tile & 255, vectors);
    const int spares = tg_spares(c, columns);
    const long last = columns.count - P;
    for (long v = 0; v < vectors; v += V) {
        const long u = tg_least(v, vectors - V);
        TG_ROLLED for (long i = q; i < end; i += R) {
            const long r = tg_least(i, end - R);
            if (spares) tg_conv_tile_at(R, P, V, c, rows, columns, s, x, q, u, r, 0, y, number);
            TG_ROLLED for (long j = spares ? P : 0; j < last + (spares ? 0 : P); j += P)
                tg_conv_tile(R, P, V, c, rows, columns, s, x, q, u, r, tg_least(j, last), y, number);
            if (spares && last)
                tg_conv_tile_at(R, P, V, c, rows, columns, s, x, q, u, r, last, y, number);
        }
    }
}

/* All groups of one phase, in a band. x: place (0, 0) of the box, which begins at `lowest`. */
TG_LARGE void tg_conv_phase(const tg_conv c, const tg_axis rows, const tg_axis columns, long pitch,
                            long place, long channel, const float *x, const float *w, int finite,
                            const tg_after after, float *y, uint8_t *number, long q, long end) {
    const long blocks = tg_blocks(c.out), taps = c.kernel[0] * c.kernel[1], block = taps * c.in * 16;
    const int R = tg_least(c.tile >> 16, rows.count);
    const long stop = tg_least(end, rows.count);
    const float *from = x + (rows.taps ? rows.from - tg_lowest(c, 0) : 0) * pitch +
                        (columns.taps ? columns.from - tg_lowest(c, 1) : 0) * place;
    for (long g = 0; g < c.groups; g++) {
        const float *zero = w + c.groups * blocks * (block + 16) + g * blocks * taps * 16;
        const tg_source s = {w + g * blocks * block, w + (c.groups * block + g * 16) * blocks,
                             finite ? 0 : zero, pitch, place, channel,
                             {after.scales + g * blocks * 16, after.added + g * c.out, after.count}};
        const float *at = from + g * c.in * channel;
        if (q < stop) tg_conv_band(R, c, rows, columns, s, at, y + g * c.out, number, q, stop);
    }
}

/* Items [begin, end) of images * bands: y, channels last, of x and packed weights. */
TG_LARGE void tg_convolution_of(const tg_conv c, const float *x, const float *w, const float *scales,
                                const float *added, float *y, uint8_t *number, long begin, long end) {
    const long one = c.pooled ? 2 : 1, made = c.y_size[0] / one * (c.y_size[1] / one) * c.groups * c.out;
    const long channels = tg_channels(c), count = tg_count(c, 0);
    const long columns = tg_extent(c, 1, tg_count(c, 1));
    const int inside = tg_inside(c) || (tg_needs_no_zeros(c));
    const long pitch = inside ? c.x_step[0] : columns * channels;
    const long place = inside ? c.x_step[1] : channels, channel = inside ? c.x_channel : 1;
    const long taps = c.kernel[0] * c.kernel[1], blocks = c.groups * tg_blocks(c.out);
    const int finite = tg_all_finite(w + blocks * (taps * c.in + 1) * 16, blocks * taps * 16);
    for (long item = begin; item < end; item++) {
        const long image = item / c.bands, band = item % c.bands;
        const long q = c.bands == 1 ? 0 : band * (count / one) / c.bands * one;
        const long stop = c.bands == 1 ? count : (band + 1) * (count / one) / c.bands * one;
        const long step = c.transposed ? 1 : c.stride[0];
        const float *from = x + image * c.x_image;
        if (inside) {
            from += (q * step + tg_lowest(c, 0)) * pitch + tg_lowest(c, 1) * place;
        } else {
            float *box = tg_rows(0);
            tg_copy_box(box, from, c.x_size, channels, c.x_channel, c.x_step,
                        q * step + tg_lowest(c, 0), tg_extent(c, 0, stop - q), tg_lowest(c, 1),
                        columns);
            from = box;
        }
        const long phases[2] = {c.transposed ? c.stride[0] : 1, c.transposed ? c.stride[1] : 1};
        TG_UNROLL for (int r = 0; r < phases[0]; r++) TG_UNROLL for (int k = 0; k < phases[1]; k++)
            if (r < c.y_size[0] && k < c.y_size[1])
                tg_conv_phase(c, tg_axis_of(c, 0, r), tg_axis_of(c, 1, k), pitch, place, channel,
                              from, w, finite,
                              (tg_after){scales, added + image * made, blocks * 16},
                              y + image * made, number + image * made, q, stop);
    }
}

TG_LARGE void tg_convolution(long images, long groups, long in, long out, long x_rows, long x_columns,
                             long x_image, long x_channel, long x_row, long x_column, long y_rows,
                             long y_columns, long kernel_rows, long kernel_columns, long stride_rows,
                             long stride_columns, long padding_rows, long padding_columns,
                             long dilation_rows, long dilation_columns, long transposed, long depthwise,
                             long bands, long tile16, long tile8, long tile4, const float *x,
                             const float *w, float *y, long begin, long end) {
    const tg_conv c = {
        images, groups, in, out, {x_rows, x_columns}, x_image, x_channel, {x_row, x_column},
        {y_rows, y_columns}, {kernel_rows, kernel_columns}, {stride_rows, stride_columns},
        {padding_rows, padding_columns}, {dilation_rows, dilation_columns}, transposed, depthwise,
        bands, tg_of_lanes(tile16, tile8, tile4), 0, 0, 0, 0};
    tg_convolution_of(c, x, w, 0, 0, y, 0, begin, end);
}

/* The same of a convolution whose result is scaled, with `added`, if something is, in the order of y. */
TG_LARGE void tg_convolution_scaled(long images, long groups, long in, long out, long x_rows,
                                    long x_columns, long x_image, long x_channel, long x_row,
                                    long x_column, long y_rows, long y_columns, long kernel_rows,
                                    long kernel_columns, long stride_rows, long stride_columns,
                                    long padding_rows, long padding_columns, long dilation_rows,
                                    long dilation_columns, long depthwise, long bands, long tile16,
                                    long tile8, long tile4, long positive, long adds, const float *x,
                                    const float *w, const float *scales, const float *added, float *y,
                                    long begin, long end) {
    const tg_conv c = {
        images, groups, in, out, {x_rows, x_columns}, x_image, x_channel, {x_row, x_column},
        {y_rows, y_columns}, {kernel_rows, kernel_columns}, {stride_rows, stride_columns},
        {padding_rows, padding_columns}, {dilation_rows, dilation_columns}, 0, depthwise,
        bands, tg_of_lanes(tile16, tile8, tile4), 0, positive, 1, adds};
    tg_convolution_of(c, x, w, scales, added, y, 0, begin, end);
}

/* The same with the largest of 2 x 2 positions, and which of them it was: y_rows and y_columns are
 * those before, and even. */
TG_LARGE void tg_convolution_pooled(long images, long groups, long in, long out, long x_rows,
                                    long x_columns, long x_image, long x_channel, long x_row,
                                    long x_column, long y_rows, long y_columns, long kernel_rows,
                                    long kernel_columns, long stride_rows, long stride_columns,
                                    long padding_rows, long padding_columns, long dilation_rows,
                                    long dilation_columns, long bands, long tile16, long tile8,
                                    long tile4, long positive, const float *x, const float *w, float *y,
                                    uint8_t *number, long begin, long end) {
    const tg_conv c = {
        images, groups, in, out, {x_rows, x_columns}, x_image, x_channel, {x_row, x_column},
        {y_rows, y_columns}, {kernel_rows, kernel_columns}, {stride_rows, stride_columns},
        {padding_rows, padding_columns}, {dilation_rows, dilation_columns}, 0, 0, bands,
        tg_of_lanes(tile16, tile8, tile4), 1, positive, 0, 0};
    tg_convolution_of(c, x, w, 0, 0, y, number, begin, end);
}

/* --- the gradient for the weights ---------------------------------------------------------------- */

/* Where numbers lie: from one image, row and place to the next, and from one row of sums to the next. */
typedef struct {
    long image, pitch, place, step;
} tg_lie;

#define TG_MANY_SUMS 65536 /* which do not stay in the second cache */

/* Adds to A kernel rows * Q rows of sums, V vectors of channels each, what a box of images * rows *
 * columns positions gives. A row of sums is a channel of the input, or a tap. */
TG_LARGE void tg_weight_tile(const int A, const int Q, const int V, const tg_conv c, long images,
                             const tg_range rows, const tg_lie x_lie, const tg_lie y_lie,
                             const float *x, const float *y, float *total, long v) {
    const long block = c.kernel[0] * c.kernel[1] * c.in * 16, line = c.kernel[1] * c.in * 16;
    tg_vec sum[TG_SUMS];
    if (block * tg_blocks(c.out) > TG_MANY_SUMS)
        TG_UNROLL for (int a = 0; a < A; a++) TG_UNROLL for (int i = 0; i < Q; i++)
            TG_UNROLL for (int k = 0; k < V; k++)
                __builtin_prefetch(total + a * line + i * 16 + tg_vector_at(v + k, block), 1);
    TG_UNROLL for (int i = 0; i < A * Q * V; i++) sum[i] = (tg_vec){0};
    for (long n = 0; n < images; n++)
        for (long r = rows.first; r < rows.end; r++) {
            const float *p = x + n * x_lie.image + r * c.stride[0] * x_lie.pitch;
            const float *q = y + n * y_lie.image + r * y_lie.pitch;
            for (long j = 0; j < c.y_size[1]; j++, p += c.stride[1] * x_lie.place, q += y_lie.place) {
                __asm__("" : "+r"(p)); /* as in tg_conv_tap */
                tg_vec f[4];
                TG_UNROLL for (int k = 0; k < V; k++) {
                    f[k] = tg_load(q + k * TG_L);
                    TG_IN_REGISTER(f[k]);
                }
                TG_UNROLL for (int a = 0; a < A; a++) TG_UNROLL for (int i = 0; i < Q; i++) {
                    const float *at = p + a * c.dilation[0] * x_lie.pitch + i * x_lie.step;
                    TG_UNROLL for (int k = 0; k < V; k++)
                        sum[(a * Q + i) * V + k] +=
                            f[k] * (c.depthwise ? tg_load(at + k * TG_L) : tg_splat(*at));
                }
            }
        }
    TG_UNROLL for (int a = 0; a < A; a++) TG_UNROLL for (int i = 0; i < Q; i++)
        TG_UNROLL for (int k = 0; k < V; k++) {
            float *to = total + a * line + i * 16 + tg_vector_at(v + k, block);
            tg_store(to, tg_load(to) + sum[(a * Q + i) * V + k]);
        }
}

/* All sums of one group, of rows [q, end) of the result. span: how many rows of sums lie one after the
 * other, `spans` times. whole: whether products with zeros above and below are computed. */
TG_LARGE void tg_weight_group(const tg_conv c, long span, long spans, long images, long q, long end,
                              int whole, const tg_lie x_lie, const tg_lie y_lie, const float *x,
                              const float *y, float *total) {
    const int A = c.tile >> 16, Q = c.tile >> 8 & 255, V = c.tile & 255;
    for (long v = 0; v < (c.out + TG_L - 1) / TG_L; v += V)
        for (long a = 0; a < c.kernel[0]; a += A) {
            const long top = q * c.stride[0] + a * c.dilation[0] - c.padding[0];
            const tg_range rows = A > 1 || whole ? (tg_range){0, end - q}
                                                 : tg_within(top, c.stride[0], end - q, c.x_size[0]);
            for (long b = 0; b < spans; b++) {
                const float *p = x + a * c.dilation[0] * x_lie.pitch +
                                 b * c.dilation[1] * x_lie.place + (c.depthwise ? v * TG_L : 0);
                float *to = total + (a * c.kernel[1] * c.in + b * span) * 16;
                long i = 0;
                for (; i + Q <= span; i += Q)
                    tg_weight_tile(A, Q, V, c, images, rows, x_lie, y_lie, p + i * x_lie.step,
                                   y + v * TG_L, to + i * 16, v);
                if (span % Q)
                    tg_weight_tile(A, span % Q, V, c, images, rows, x_lie, y_lie,
                                   p + i * x_lie.step, y + v * TG_L, to + i * 16, v);
            }
        }
}

/* Rows [q, end) of what a gradient after pooling 2 x 2 positions is before that. */
TG_LARGE void tg_spread_rows(float *restrict to, const tg_conv c, const float *restrict g, long channel,
                             const long step[2], const uint8_t *restrict number, long q, long end) {
    const long rows = c.y_size[0] / 2, columns = c.y_size[1] / 2;
    for (long r = q; r < end; r++)
        for (long j = 0; j < c.y_size[1]; j++, to += c.out) {
            if (r / 2 >= rows || j / 2 >= columns) {
                memset(to, 0, 4 * c.out);
                continue;
            }
            const float *from = g + r / 2 * step[0] + j / 2 * step[1];
            const uint8_t *at = number + (r / 2 * columns + j / 2) * c.out;
            const int own = r % 2 * 2 + j % 2;
            const long whole = channel == 1 ? c.out / TG_L * TG_L : 0;
            for (long l = 0; l < whole; l += TG_L) {
                const tg_vec value = tg_load(from + l);
                tg_store(to + l, tg_pick(tg_widened(at + l) == own, value, tg_splat(0.0f)));
            }
            for (long l = whole; l < c.out; l++) to[l] = at[l] == own ? from[l * channel] : 0.0f;
        }
}

#if defined(__AVX512F__)
/* Of one channel of the input the places that the windows of 2 x 2 positions meet, at most 16, are one
 * vector, from which each channel of the result picks what meets its gradient: a quarter of the
 * products, and no gradient before the pool. For numbers that are finite. */
TG int tg_picks(const tg_conv c, long q, long end) {
    const int plain = c.stride[0] * c.stride[1] * c.dilation[0] * c.dilation[1] == 1;
    return c.pooled && plain && c.groups * c.in == 1 && c.out % 16 == 0 &&
           (c.kernel[0] + 1) * (c.kernel[1] + 1) <= 16 && q % 2 == 0 &&
           (end % 2 == 0 || end == c.y_size[0]);
}
TG tg_vec tg_picked(tg_vec from, tg_ivec which) {
    tg_vec found;
    __asm__("vpermps %2, %1, %0" : "=v"(found) : "v"(which), "v"(from));
    return found;
}

/* 16 places for each window of a row. x: the first one's. */
TG_LARGE void tg_window_places(const tg_conv c, const tg_lie lie, const float *x, float *to) {
    const long high = c.kernel[0] + 1, wide = c.kernel[1] + 1, count = c.y_size[1] / 2;
    for (long j = 0; j < count; j++) {
        const float *from = x + 2 * j * lie.place;
        float *own = to + 16 * j;
        TG_UNROLL for (long a = 0; a < high; a++)
            if (lie.place == 1) memcpy(own + a * wide, from + a * lie.pitch, 4 * wide);
            else for (long b = 0; b < wide; b++) own[a * wide + b] = from[a * lie.pitch + b * lie.place];
        for (long k = high * wide; k < 16; k++) own[k] = 0.0f;
    }
}

/* Adds what a row of windows gives for 16 channels. places: 16 for each window. */
TG_LARGE void tg_picked_row(const tg_conv c, const float *places, const float *g, long g_column,
                            const uint8_t *number, float *total) {
    const long taps = c.kernel[0] * c.kernel[1], wide = c.kernel[1] + 1;
    tg_vec sum[16];
    TG_UNROLL for (int t = 0; t < taps; t++) sum[t] = tg_load(total + t * 16);
    TG_ROLLED for (long j = 0; j < c.y_size[1] / 2; j++) {
        const tg_vec value = tg_load(g + j * g_column), from = tg_load(places + 16 * j);
        const tg_ivec q = tg_widened(number + j * c.out);
        const tg_ivec own = (q >> 1) * (int32_t)wide + (q & 1);
        TG_UNROLL for (int t = 0; t < taps; t++) {
            const int at = t / c.kernel[1] * wide + t % c.kernel[1];
            sum[t] += value * tg_picked(from, own + at);
        }
    }
    TG_UNROLL for (int t = 0; t < taps; t++) tg_store(total + t * 16, sum[t]);
}

/* Rows [q, end) of an image; 0, having done nothing, if its places are not finite. x: the first one's.
 * room: for all windows' places; own: for sums. */
TG_LARGE int tg_weight_picked(const tg_conv c, const tg_lie lie, const float *x, const float *g,
                              const long step[2], const uint8_t *number, float *room, float *total,
                              long q, long end) {
    const long columns = c.y_size[1] / 2, block = c.kernel[0] * c.kernel[1] * 16;
    const long first = q / 2, stop = end / 2;
    for (long r = first; r < stop; r++)
        tg_window_places(c, lie, x + 2 * (r - first) * lie.pitch, room + (r - first) * columns * 16);
    if (!tg_all_finite(room, (stop - first) * columns * 16)) return 0;
    for (long b = 0; b < c.out / 16; b++) {
        float own[16 * 16] = {0}; /* few positions in one sum, as elsewhere */
        for (long r = first; r < stop; r++)
            tg_picked_row(c, room + (r - first) * columns * 16, g + r * step[0] + b * 16, step[1],
                          number + r * columns * c.out + b * 16, own);
        float *to = total + b * block;
        for (long i = 0; i < block; i += 16) tg_store(to + i, tg_load(to + i) + tg_load(own + i));
    }
    return 1;
}
#endif

/* Whether rows of [q, end) that meet zeros above or below the image are finite: products with these
 * zeros are nothing then. y: of row q. */
TG_LARGE int tg_edges_finite(const tg_conv c, const tg_lie lie, const float *y, long images, long q,
                             long end) {
    const long made = c.groups * c.out, together = lie.place == made ? c.y_size[1] : 1;
    if (made % 16) return 0;
    TG_ROLLED for (long n = 0; n < images; n++) TG_ROLLED for (long r = q; r < end; r++) {
        const long top = r * c.stride[0] - c.padding[0];
        if (top >= 0 && top + (c.kernel[0] - 1) * c.dilation[0] < c.x_size[0]) continue;
        TG_ROLLED for (long j = 0; j < c.y_size[1]; j += together)
            if (!tg_all_finite(y + n * lie.image + (r - q) * lie.pitch + j * lie.place,
                               together * made))
                return 0;
    }
    return 1;
}

/* One box: images from `image` on, rows [q, end) of the result, to be added to `total`. */
TG_LARGE void tg_weight_box(const tg_conv c, const long y_step[2], long y_image, long y_channel,
                            const float *x, const float *y, const uint8_t *number, float *total,
                            long images, long q, long end) {
    const long channels = tg_channels(c), columns = tg_extent(c, 1, c.y_size[1]), made = c.groups * c.out;
    const long height = tg_extent(c, 0, end - q), rows = end - q, inside = tg_inside(c);
    float *box = tg_rows(0);
    tg_lie x_lie = {c.x_image, c.x_step[0], c.x_step[1], c.x_channel};
    tg_lie y_lie = {y_image, y_step[0], y_step[1], 0};
    const long top = q * c.stride[0] + tg_lowest(c, 0);
    if (inside) {
        x += top * c.x_step[0] + tg_lowest(c, 1) * c.x_step[1];
    } else {
        x_lie = (tg_lie){height * columns * channels, columns * channels, channels, 1};
        for (long n = 0; n < images; n++, box += x_lie.image)
            tg_copy_box(box, x + n * c.x_image, c.x_size, channels, c.x_channel, c.x_step, top,
                        height, tg_lowest(c, 1), columns);
        x = tg_rows(0);
    }
    const long pools = c.y_size[0] / 2 * (c.y_size[1] / 2) * made;
#if defined(__AVX512F__)
    if (tg_picks(c, q, end) && y_channel == 1)
        for (; images; images--, x += x_lie.image, y += y_image, number += pools)
            if (!tg_weight_picked(c, x_lie, x, y, y_step, number, box, total, q, end)) break;
#endif
    if (!c.pooled && y_channel == 1 && c.out % 16 == 0) {
        y += q * y_step[0];
    } else {
        y_lie = (tg_lie){rows * c.y_size[1] * made, c.y_size[1] * made, made, 0};
        for (long n = 0; n < images; n++)
            if (c.pooled)
                tg_spread_rows(box + n * y_lie.image, c, y + n * y_image, y_channel, y_step,
                               number + n * pools, q, end);
            else tg_copy_box(box + n * y_lie.image, y + n * y_image, c.y_size, made, y_channel, y_step, q,
                        rows, 0, c.y_size[1]);
        y = box;
    }
    const long merged = c.dilation[1] == 1 && c.groups == 1 && x_lie.place == c.in * x_lie.step;
    const long span = c.in == 1 ? c.kernel[1] : merged ? c.kernel[1] * c.in : c.in;
    if (c.in == 1) x_lie.step = c.dilation[1] * x_lie.place;
    const long one = c.kernel[0] * c.kernel[1] * c.in * tg_blocks(c.out) * 16;
    const int whole = c.tile >> 16 > 1 || !tg_edges_finite(c, y_lie, y, images, q, end);
    for (long g = 0; g < c.groups; g++)
        tg_weight_group(c, span, c.kernel[1] * c.in / span, images, q, end, whole, x_lie, y_lie,
                        x + g * c.in * (inside ? c.x_channel : 1), y + g * c.out, total + g * one);
}

/* Parts [begin, end) of the batch. Each has sums of its own, [group][block][tap][channel][16]. An item
 * is a band of rows of `together` images. */
TG_LARGE void tg_weight_parts(const tg_conv c, const long y_step[2], long y_image, long y_channel,
                              long together, long parts, const float *x, const float *y,
                              const uint8_t *number, float *sums, long begin, long end) {
    const long one = c.groups * tg_blocks(c.out) * c.kernel[0] * c.kernel[1] * c.in * 16;
    const long items = (c.images + together - 1) / together * c.bands, height = c.y_size[0];
    const long pools = height / 2 * (c.y_size[1] / 2) * c.groups * c.out;
    for (long part = begin; part < end; part++) {
        float *total = sums + part * one;
        memset(total, 0, 4 * one);
        for (long item = part * items / parts; item < (part + 1) * items / parts; item++) {
            const long image = item / c.bands * together, band = item % c.bands;
            const long q = c.bands == 1 ? 0 : band * height / c.bands;
            const long stop = c.bands == 1 ? height : (band + 1) * height / c.bands;
            const long count =
                c.images % together ? tg_least(together, c.images - image) : together;
            tg_weight_box(c, y_step, y_image, y_channel, x + image * c.x_image,
                          y + image * y_image, number + image * pools, total, count, q, stop);
        }
    }
}

TG_LARGE void tg_convolution_weight(long images, long groups, long in, long out, long x_rows,
                                    long x_columns, long x_image, long x_channel, long x_row,
                                    long x_column, long y_rows, long y_columns, long kernel_rows,
                                    long kernel_columns, long stride_rows, long stride_columns,
                                    long padding_rows, long padding_columns, long dilation_rows,
                                    long dilation_columns, long depthwise, long bands, long tile16,
                                    long tile8, long tile4, long pooled, long y_image, long y_channel,
                                    long y_row, long y_column, long together, long parts,
                                    const float *x, const float *y, const uint8_t *number, float *sums,
                                    long begin, long end) {
    const tg_conv c = {
        images, groups, in, out, {x_rows, x_columns}, x_image, x_channel, {x_row, x_column},
        {y_rows, y_columns}, {kernel_rows, kernel_columns}, {stride_rows, stride_columns},
        {padding_rows, padding_columns}, {dilation_rows, dilation_columns}, 0, depthwise,
        bands, tg_of_lanes(tile16, tile8, tile4), pooled, 0, 0, 0};
    const long y_step[2] = {y_row, y_column};
    tg_weight_parts(c, y_step, y_image, y_channel, together, parts, x, y, number, sums, begin, end);
}

/* Of taps [t, stop) and channels [i, end) the parts' sums added in order, first as they lie, then where
 * `lanes` channels of the result want them. from: of the first tap and channel of the block. */
TG_LARGE void tg_sum_parts(long in, long parts, long one, long in_step, long out_step, long lanes,
                           const float *from, float *to, long t, long stop, long i, long end) {
    float total[TG_AT_ONCE * 16];
    const long taps = stop - t;
    for (long a = t; a < stop; a++)
        for (long k = i; k < end; k++)
            TG_UNROLL for (int l = 0; l < 16; l += TG_L) {
                const float *p = from + (a * in + k) * 16 + l;
                tg_vec sum = tg_load(p);
                for (long n = 1; n < parts; n++) sum += tg_load(p + n * one);
                tg_store(total + ((k - i) * taps + a - t) * 16 + l, sum);
            }
    for (long l = 0; l < lanes; l++)
        for (long k = i; k < end; k++)
            for (long a = t; a < stop; a++)
                to[l * out_step + k * in_step + a] = total[((k - i) * taps + a - t) * 16 + l];
}

/* Blocks [begin, end) of groups * blocks; sums of parts are `one` numbers apart. The steps are those of
 * the weights' axes; those of groups follow each other. */
TG_LARGE void tg_convolution_weight_sum(long groups, long in, long out, long taps, long parts, long one,
                                        long in_step, long out_step, const float *sums, float *w,
                                        long begin, long end) {
    const long blocks = tg_blocks(out), block = taps * in * 16;
    const long high = tg_least(taps, TG_AT_ONCE), wide = TG_AT_ONCE / high;
    for (long b = begin; b < end; b++) {
        const long first = b % blocks * 16, lanes = tg_least(16, out - first);
        float *to = w + (b / blocks * out + first) * out_step;
        for (long i = 0; i < in; i += wide)
            for (long t = 0; t < taps; t += high)
                tg_sum_parts(in, parts, one, in_step, out_step, lanes, sums + b * block, to, t,
                             tg_least(t + high, taps), i, tg_least(i + wide, in));
    }
}

/* --- both gradients of a convolution that is pooled ----------------------------------------------- */

/* A gradient after pooling is not zero at one of four positions at most: so a quarter of the products
 * do, for numbers that are finite. Lanes are channels of the input, a multiple of 16; with stride 1 the
 * windows cover the input and its border, the box. */
#define TG_NEAR 4096 /* numbers that stay in the first cache */
#define TG_POOLED_TAPS 9 /* at most, as in ops/convolution_loops.py */
#define TG_POOLED_PLACES 20 /* that the taps of a window meet, of its four positions */
typedef struct {
    long in, out, rows, columns, kernel[2], padding[2], box[2]; /* rows, columns: before pooling */
    long positive, masked; /* gradients are 0 where the result, or the input, is not positive */
} tg_pooled;

/* The gradient of an image, [window][channel], zero where y is not positive if there is a y, and its sums
 * of channels. y: as `to`. */
TG_LARGE void tg_pooled_gradient(const tg_pooled c, const float *restrict g, long channel,
                                 const long step[2], const float *restrict y, float *restrict to,
                                 float *restrict sum) {
    const long columns = c.columns / 2, whole = channel == 1 ? c.out / TG_L * TG_L : 0;
    for (long r = 0; r < c.rows / 2; r++, g += step[0], to += columns * c.out) {
        const float *own = c.positive ? y + r * columns * c.out : to;
        for (long o = 0; o < whole; o += TG_L) {
            tg_vec total = tg_splat(0.0f);
            for (long j = 0; j < columns; j++) {
                tg_vec v = tg_load(g + j * step[1] + o);
                if (c.positive) v = tg_pick(tg_load(own + j * c.out + o) > 0.0f, v, tg_splat(0.0f));
                tg_store(to + j * c.out + o, v);
                total += v;
            }
            tg_store(sum + o, tg_load(sum + o) + total);
        }
        for (long o = whole; o < c.out; o++) {
            float total = 0.0f;
            for (long j = 0; j < columns; j++) {
                const float v = g[j * step[1] + o * channel];
                to[j * c.out + o] = !c.positive || own[j * c.out + o] > 0.0f ? v : 0.0f;
                total += to[j * c.out + o];
            }
            sum[o] += total;
        }
    }
}

/* For each window and channel the first place in the box that its gradient meets. */
TG_LARGE void tg_pooled_places(const tg_pooled c, const uint8_t *number, int32_t *places) {
    const long whole = c.out / TG_L * TG_L;
    for (long r = 0; r < c.rows / 2; r++)
        for (long j = 0; j < c.columns / 2; j++, number += c.out, places += c.out) {
            const int32_t own = (2 * r * c.box[1] + 2 * j) * c.in, down = c.box[1] * c.in;
            for (long o = 0; o < whole; o += TG_L) {
                const tg_ivec q = tg_widened(number + o);
                const tg_ivec at = own + (q >> 1) * down + (q & 1) * (int32_t)c.in;
                memcpy(places + o, &at, 4 * TG_L);
            }
            for (long o = whole; o < c.out; o++)
                places[o] = own + number[o] / 2 * down + number[o] % 2 * c.in;
        }
}

/* What channel o of the result adds to the sums of one vector of the input's channels. x: the box; total:
 * of this channel and these, tap by tap. g, places: of this channel. Windows [begin, end). */
TG_LARGE void tg_pooled_weights(const int K0, const int K1, const tg_pooled c, const float *x,
                                float *total, const float *g, const int32_t *places, long begin,
                                long end) {
    const long tap = c.out * 16;
    tg_vec s[TG_POOLED_TAPS]; /* sized by K0 they would not be in registers */
    TG_UNROLL for (int t = 0; t < K0 * K1; t++) s[t] = tg_splat(0.0f);
    TG_ROLLED for (long i = begin; i < end; i++) {
        const tg_vec v = tg_splat(g[i * c.out]);
        const float *from = x + places[i * c.out];
        TG_UNROLL for (int t = 0; t < K0 * K1; t++)
            s[t] += v * tg_load(from + (t / K1 * c.box[1] + t % K1) * c.in);
    }
    TG_UNROLL for (int t = 0; t < K0 * K1; t++)
        tg_store(total + t * tap, tg_load(total + t * tap) + s[t]);
}

/* For each 64 channels of a window four sets of bits: those whose number is 0, 1, 2 and 3 and whose
 * gradient is not 0. */
TG_LARGE void tg_pooled_sets(const tg_pooled c, const uint8_t *number, const float *g, uint64_t *sets) {
    for (long first = 0; first < c.out; first += 64, sets += 4) {
        long o = first;
        const long end = tg_least(c.out, first + 64);
        sets[0] = sets[1] = sets[2] = sets[3] = 0;
#if defined(__AVX512F__)
        for (; o + 16 <= end; o += 16) {
            const tg_ivec numbers = tg_widened(number + o);
            TG_UNROLL for (int q = 0; q < 4; q++) {
                uint16_t found;
                __asm__("vpcmpeqd %2, %1, %0\n\tvcmpneqps %4, %3, %0 %{%0%}"
                        : "=&Yk"(found)
                        : "v"(numbers), "v"(tg_isplat(q)), "v"(tg_load(g + o)), "v"(tg_splat(0.0f)));
                sets[q] |= (uint64_t)found << (o - first);
            }
        }
#endif
        for (; o < end; o++) sets[number[o]] |= (uint64_t)(g[o] != 0.0f) << (o - first);
    }
}

/* Adds to the sums of the places that a window's taps meet what the channels of a set give, whose number
 * is q. w: of one vector of the input's channels. */
TG_LARGE void tg_pooled_set(const int K0, const int K1, const int q, const tg_pooled c, const float *w,
                            const float *g, uint64_t set, tg_vec *sum) {
    TG_ROLLED for (; set; set &= set - 1) {
        const long o = __builtin_ctzll(set);
        const tg_vec v = tg_splat(g[o]);
        TG_UNROLL for (int t = 0; t < K0 * K1; t++)
            sum[(q / 2 + t / K1) * (K1 + 1) + q % 2 + t % K1] +=
                v * tg_load(w + (t * c.out + o) * 16);
    }
}

/* What a window adds to the gradient of one vector of the input's channels. rows: where the rows of its
 * places lie, of which those from `at` on are its. */
TG_LARGE void tg_pooled_window(const int K0, const int K1, const tg_pooled c, float *const *rows,
                               long at, const float *w, const float *g, const uint64_t *sets) {
    tg_vec sum[TG_POOLED_PLACES];
    TG_UNROLL for (int a = 0; a <= K0; a++) TG_UNROLL for (int b = 0; b <= K1; b++)
        sum[a * (K1 + 1) + b] = tg_load(rows[a] + at + b * c.in);
    for (long o = 0; o < c.out; o += 64, sets += 4)
        TG_UNROLL for (int q = 0; q < 4; q++)
            tg_pooled_set(K0, K1, q, c, w + o * 16, g + o, sets[q], sum);
    TG_UNROLL for (int a = 0; a <= K0; a++) TG_UNROLL for (int b = 0; b <= K1; b++)
        tg_store(rows[a] + at + b * c.in, sum[a * (K1 + 1) + b]);
}

/* What position (r, j) before pooling adds, at all its taps; inside: whether it is one. */
TG_LARGE void tg_pooled_place(const tg_pooled c, int inside, long r, long j, const float *x, float *d,
                              const float *w, float *total, tg_vec value) {
    for (long a = 0; a < c.kernel[0]; a++)
        for (long b = 0; b < c.kernel[1]; b++) {
            if (r + a < 0 || r + a >= c.box[0] || j + b < 0 || j + b >= c.box[1]) continue;
            const long at = ((r + a) * c.box[1] + j + b) * c.in;
            const long t = (a * c.kernel[1] + b) * c.out * 16;
            if (inside) tg_store(total + t, tg_load(total + t) + value * tg_load(x + at));
            tg_store(d + at, tg_load(d + at) + value * tg_load(w + t));
        }
}

/* What an image adds to the sums for the weights, band by band. */
TG_LARGE void tg_pooled_sums(const int K0, const int K1, const tg_pooled c, const float *x,
                             float *total, const float *g, const int32_t *places) {
    const long size = c.box[0] * c.box[1] * c.in, windows = c.rows / 2 * (c.columns / 2);
    const long bands = tg_least((size + TG_NEAR - 1) / TG_NEAR, tg_least(c.rows / 2, 64));
    for (long band = 0; band < bands; band++)
        for (long v = 0; v < c.in / TG_L; v++)
            TG_ROLLED for (long o = 0; o < c.out; o++)
                tg_pooled_weights(K0, K1, c, x + v * TG_L,
                                  total + tg_vector_at(v, K0 * K1 * c.out * 16) + o * 16, g + o,
                                  places + o, band * windows / bands, (band + 1) * windows / bands);
}

/* Row r of the box of an image's gradient, if it is no border: what is stored of it, and its sums of
 * channels. */
TG_LARGE void tg_pooled_row(const tg_pooled c, const float *d, const float *x, long r, float *dx,
                            float *sum) {
    const long columns = c.box[1] - 2 * c.padding[1], row = r - c.padding[0];
    if (row < 0 || row >= c.box[0] - 2 * c.padding[0]) return;
    d += c.padding[1] * c.in;
    x += (r * c.box[1] + c.padding[1]) * c.in;
    dx += row * columns * c.in;
    for (long v = 0; v < c.in; v += TG_L) {
        tg_vec total = tg_splat(0.0f);
        for (long i = v; i < columns * c.in; i += c.in) {
            tg_vec value = tg_load(d + i);
            if (c.masked) value = tg_pick(tg_load(x + i) > 0.0f, value, tg_splat(0.0f));
            tg_store(dx + i, value);
            total += value;
        }
        tg_store(sum + v, tg_load(sum + v) + total);
    }
}

/* The gradient of an image. d: memory for the rows of the box that a row of windows meets, in turn;
 * sets: for the channels of a window by their numbers. */
TG_LARGE void tg_pooled_input(const int K0, const int K1, const tg_pooled c, const float *x, float *d,
                              const float *w, const float *g, const uint8_t *number, uint64_t *sets,
                              float *dx, float *sum) {
    const long line = c.box[1] * c.in, block = K0 * K1 * c.out * 16;
    memset(d, 0, 4 * (K0 + 1) * line);
    for (long r = 0; r < c.rows / 2; r++) {
        float *rows[TG_POOLED_PLACES];
        TG_UNROLL for (int a = 0; a <= K0; a++) rows[a] = d + (2 * r + a) % (K0 + 1) * line;
        TG_ROLLED for (long j = 0; j < c.columns / 2; j++, g += c.out, number += c.out) {
            tg_pooled_sets(c, number, g, sets);
            TG_ROLLED for (long v = 0; v < c.in / TG_L; v++)
                tg_pooled_window(K0, K1, c, rows, 2 * j * c.in + v * TG_L,
                                 w + tg_vector_at(v, block), g, sets);
        }
        TG_UNROLL for (int a = 0; a < 2; a++) {
            tg_pooled_row(c, rows[a], x, 2 * r + a, dx, sum);
            memset(rows[a], 0, 4 * line);
        }
    }
    for (long r = c.rows / 2 * 2; r < c.box[0]; r++)
        tg_pooled_row(c, d + r % (K0 + 1) * line, x, r, dx, sum);
}

/* The same of the whole image with all products, where one factor may be zero and the other is not
 * finite. */
static __attribute__((noinline)) void tg_pooled_everything(
    const tg_pooled c, const float *x, float *d, const float *w, float *total, const float *g,
    const int32_t *places) {
    const long columns = c.columns / 2, block = c.kernel[0] * c.kernel[1] * c.out * 16;
    for (long v = 0; v < c.in / TG_L; v++, x += TG_L, d += TG_L)
        for (long o = 0; o < c.out; o++)
            for (long r = 1 - c.kernel[0]; r < c.box[0]; r++)
                for (long j = 1 - c.kernel[1]; j < c.box[1]; j++) {
                    const int inside = r >= 0 && r < c.rows && j >= 0 && j < c.columns;
                    const long own = (r * c.box[1] + j) * c.in;
                    const int pooled = inside && r / 2 < c.rows / 2 && j / 2 < columns &&
                                       places[(r / 2 * columns + j / 2) * c.out + o] == own;
                    const float value = pooled ? g[(r / 2 * columns + j / 2) * c.out + o] : 0.0f;
                    const long at = tg_vector_at(v, block) + o * 16;
                    tg_pooled_place(c, inside, r, j, x, d, w + at, total + at, tg_splat(value));
                }
}

/* Parts [begin, end) of the batch: the gradient for x, channels last, and sums: for the weights,
 * [block of channels of x][tap][channel of the result][16], as w is packed; then those of the gradient
 * after pooling and of that for x, of each channel. y: the result, if that is to be positive. */
TG_LARGE void tg_convolution_pooled_gradients( long images, long in, long out, long x_rows,
                                              long x_columns, long x_image, long x_channel, long x_row,
                                              long x_column, long rows, long columns, long kernel_rows,
                                              long kernel_columns, long padding_rows,
                                              long padding_columns, long g_image, long g_channel,
                                              long g_row, long g_column, long positive, long masked,
                                              long parts, const float *x, const float *w,
                                              const float *g, const uint8_t *number, const float *y,
                                              float *dx, float *sums, long begin, long end) {
    const tg_pooled c = {in, out, rows, columns, {kernel_rows, kernel_columns},
                         {padding_rows, padding_columns},
                         {rows + kernel_rows - 1, columns + kernel_columns - 1}, positive, masked};
    const long x_size[2] = {x_rows, x_columns}, x_step[2] = {x_row, x_column};
    const long g_step[2] = {g_row, g_column}, size = c.box[0] * c.box[1] * in;
    const long pools = rows / 2 * (columns / 2) * out, count = kernel_rows * kernel_columns * in * out;
    float *box = tg_rows(0), *d = box + size, *own = d + size, *made = own + 2 * pools;
    int32_t *places = (int32_t *)(own + pools);
    uint64_t sets[(out + 63) / 64 * 4];
    const int weights_finite = tg_all_finite(w, count);
    for (long part = begin; part < end; part++) {
        float *total = sums + part * (count + out + in);
        memset(total, 0, 4 * (count + out + in));
        for (long n = part * images / parts; n < (part + 1) * images / parts; n++) {
            float *to = dx + n * x_rows * x_columns * in;
            memset(made, 0, 4 * (out + in));
            if (n + 1 < images) {
                tg_ask_second(x + (n + 1) * x_image, 4 * x_rows * x_columns * in);
                tg_ask_second(g + (n + 1) * g_image, 4 * pools);
                tg_ask_second(y + (n + 1) * pools, 4 * pools);
                tg_ask_second(number + (n + 1) * pools, pools);
            }
            tg_copy_box(box, x + n * x_image, x_size, in, x_channel, x_step, -padding_rows, c.box[0],
                        -padding_columns, c.box[1]);
            tg_pooled_gradient(c, g + n * g_image, g_channel, g_step, y + n * pools, own, made);
            tg_pooled_places(c, number + n * pools, places);
            if (weights_finite && tg_all_finite(box, size)) {
                tg_pooled_sums(kernel_rows, kernel_columns, c, box, total, own, places);
                tg_pooled_input(kernel_rows, kernel_columns, c, box, d, w, own, number + n * pools,
                                sets, to, made + out);
            } else {
                memset(d, 0, 4 * size);
                tg_pooled_everything(c, box, d, w, total, own, places);
                for (long r = 0; r < c.box[0]; r++)
                    tg_pooled_row(c, d + r * c.box[1] * in, box, r, to, made + out);
            }
            for (long k = 0; k < out + in; k++) total[count + k] += made[k];
        }
    }
}
#endif
