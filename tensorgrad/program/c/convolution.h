/* Convolutions of float32 and their gradients, in one and two dimensions.
 *
 * Channels of the result are the lanes of vectors. A tile of positions has its sums in registers; for
 * each tap and channel of the input, a vector of weights is multiplied with a number of each position.
 * Weights are packed as [group][block of 16 channels of the result][tap][channel of the input][16]. The
 * rows of an image that a band of the result needs lie, with zeros around them and channels last, in
 * the thread's own memory, unless they can be read where they are.
 *
 * Sizes are constants for the compiler. Those of tiles come for 16, 8 and 4 lanes, as
 * rows * 65536 + columns * 256 + vectors. */

#ifndef TG_CONVOLUTION
#define TG_CONVOLUTION
#include "vectors.h"

#define TG_SUMS 32 /* sums in registers, at most */

TG long tg_of_lanes(long wide, long middle, long narrow) {
    return TG_L == 16 ? wide : TG_L == 8 ? middle : narrow;
}
TG long tg_least(long a, long b) { return a < b ? a : b; }
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
} tg_conv;

/* How the positions of one axis meet taps: position q of the result, at to + q * to_step, is the sum
 * over t of tap + t * tap_step times what lies at from + q * step + t * apart. */
typedef struct {
    long count, to, to_step, from, step, taps, apart, tap, tap_step;
} tg_axis;

/* Of the gradient for the input each `stride`-th position meets the same taps. */
TG tg_axis tg_phase(long phase, long size, long kernel, long stride, long padding, long dilation) {
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
                     apart * dilation / stride, last, -apart};
}
TG tg_axis tg_axis_of(const tg_conv c, int a, long phase) {
    if (c.transposed)
        return tg_phase(phase, c.y_size[a], c.kernel[a], c.stride[a], c.padding[a], c.dilation[a]);
    return (tg_axis){c.y_size[a], 0, 1, -c.padding[a], c.stride[a], c.kernel[a], c.dilation[a], 0, 1};
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
TG int tg_inside(const tg_conv c) {
    const int near = c.x_channel == 1 || tg_channels(c) == 1;
    const int taps = c.kernel[0] * c.kernel[1];
    if (!(near || (taps == 1 && !c.depthwise)) || (c.depthwise && c.out % 16)) return 0;
    for (int a = 0; a < 2; a++)
        if (tg_lowest(c, a) < 0 ||
            tg_lowest(c, a) + tg_extent(c, a, tg_count(c, a)) > c.x_size[a])
            return 0;
    return 1;
}

/* `count` positions of an image's row, channels last. */
TG void tg_copy_positions(float *to, const float *x, long count, long channels, long channel,
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
TG void tg_copy_box(float *to, const float *x, const long size[2], long channels, long channel,
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

/* Blocks [begin, end) of packed weights, of groups * blocks; the bias follows them all. The steps are
 * those of the weights: from group to group, and so on. */
TG void tg_convolution_pack(long groups, long in, long out, long taps, long group_step, long in_step,
                            long out_step, long tap_step, long bias_step, const float *w,
                            const float *bias, float *packed, long begin, long end) {
    const long blocks = tg_blocks(out), block = taps * in * 16;
    for (long b = begin; b < end; b++) {
        const long first = b % blocks * 16, lanes = tg_least(16, out - first);
        const float *from = w + b / blocks * group_step + first * out_step;
        float *to = packed + b * block, *last = packed + groups * blocks * block + b * 16;
        for (long t = 0; t < taps; t++)
            for (long i = 0; i < in; i++, to += 16) {
                for (long l = 0; l < lanes; l++)
                    to[l] = from[t * tap_step + i * in_step + l * out_step];
                for (long l = lanes; l < 16; l++) to[l] = 0.0f;
            }
        for (long l = 0; l < 16; l++)
            last[l] = bias_step && l < lanes ? bias[b / blocks * out + first + l] : 0.0f;
    }
}

/* --- the convolution, and its gradient for the input --------------------------------------------- */

/* Adds to the sums of R * P positions, V vectors of channels each. row, column: from one to the next
 * position; channel: of the input's channels. */
TG void tg_conv_sums(const int R, const int P, const int V, const tg_conv c, const tg_axis rows,
                     const tg_axis columns, long pitch, long place, long channel, const float *x,
                     const float *w, long v, tg_vec *sum) {
    const long block = c.kernel[0] * c.kernel[1] * c.in * 16;
    for (long a = 0; a < rows.taps; a++)
        for (long b = 0; b < columns.taps; b++) {
            const long tap = (rows.tap + a * rows.tap_step) * c.kernel[1] + columns.tap +
                             b * columns.tap_step;
            const float *p = x + a * rows.apart * pitch + b * columns.apart * place;
            const float *q = w + tap * c.in * 16;
            for (long i = 0; i < c.in; i++, p += channel, q += 16) {
                tg_vec f[4];
                TG_UNROLL for (int k = 0; k < V; k++) {
                    f[k] = tg_load(q + tg_vector_at(v + k, block));
                    TG_IN_REGISTER(f[k]);
                }
                TG_UNROLL for (int r = 0; r < R; r++) TG_UNROLL for (int j = 0; j < P; j++) {
                    const float *at = p + r * rows.step * pitch + j * columns.step * place;
                    TG_UNROLL for (int k = 0; k < V; k++)
                        sum[(r * P + j) * V + k] +=
                            f[k] * (c.depthwise ? tg_load(at + k * TG_L) : tg_splat(*at));
                }
            }
        }
}

/* One tile. x: what its first window begins at; y: where its first position goes. */
TG void tg_conv_tile(const int R, const int P, const int V, const tg_conv c, const tg_axis rows,
                     const tg_axis columns, long pitch, long place, long channel, const float *x,
                     const float *w, const float *bias, long v, float *y) {
    tg_vec sum[TG_SUMS];
    TG_UNROLL for (int i = 0; i < R * P; i++) TG_UNROLL for (int k = 0; k < V; k++)
        sum[i * V + k] = tg_load(bias + (v + k) * TG_L);
    tg_conv_sums(R, P, V, c, rows, columns, pitch, place, channel, x, w, v, sum);
    const long channels = c.groups * c.out;
    TG_UNROLL for (int r = 0; r < R; r++) TG_UNROLL for (int j = 0; j < P; j++)
        TG_UNROLL for (int k = 0; k < V; k++) {
            float *to = y + (r * rows.to_step * c.y_size[1] + j * columns.to_step) * channels;
            const long left = c.out % TG_L ? c.out - (v + k) * TG_L : TG_L;
            const tg_vec s = sum[(r * P + j) * V + k];
            if (left >= TG_L) tg_store(to + (v + k) * TG_L, s);
            else tg_store_some(to + (v + k) * TG_L, s, left);
        }
}

/* Rows [q, end) of one phase. What is left over at the end of an axis is computed by a tile that
 * overlaps with the last one. */
TG void tg_conv_band(const int R, const tg_conv c, const tg_axis rows, const tg_axis columns,
                     long pitch, long place, long channel, const float *x, const float *w,
                     const float *bias, float *y, long q, long end) {
    const long vectors = (c.out + TG_L - 1) / TG_L, channels = c.groups * c.out;
    const int P = tg_least(c.tile >> 8 & 255, columns.count), V = tg_least(c.tile & 255, vectors);
    for (long v = 0; v < vectors; v += V) {
        const long u = tg_least(v, vectors - V);
        for (long r = q; r < end; r += R) {
            const long row = tg_least(r, end - R);
            for (long j = 0; j < columns.count; j += P) {
                const long column = tg_least(j, columns.count - P);
                const float *from = x + (row - q) * rows.step * pitch +
                                    column * columns.step * place +
                                    (c.depthwise ? u * TG_L : 0);
                float *to = y + ((rows.to + row * rows.to_step) * c.y_size[1] + columns.to +
                                 column * columns.to_step) * channels;
                tg_conv_tile(R, P, V, c, rows, columns, pitch, place, channel, from, w, bias, u, to);
            }
        }
    }
}

/* All groups of one phase, in a band. x: place (0, 0) of the box, which begins at `lowest`. */
TG void tg_conv_phase(const tg_conv c, const tg_axis rows, const tg_axis columns, long pitch,
                      long place, long channel, const float *x, const float *w, float *y, long q,
                      long end) {
    const long blocks = tg_blocks(c.out), block = c.kernel[0] * c.kernel[1] * c.in * 16;
    const int R = tg_least(c.tile >> 16, rows.count);
    const long stop = tg_least(end, rows.count);
    const float *from = x + (rows.taps ? rows.from - tg_lowest(c, 0) : 0) * pitch +
                        (columns.taps ? columns.from - tg_lowest(c, 1) : 0) * place;
    for (long g = 0; g < c.groups; g++) {
        const float *weights = w + g * blocks * block;
        const float *bias = w + (c.groups * block + g * 16) * blocks;
        const float *at = from + g * c.in * channel;
        if (stop - q >= R)
            tg_conv_band(R, c, rows, columns, pitch, place, channel, at, weights, bias,
                         y + g * c.out, q, stop);
        else if (R > 1 && q < stop)
            tg_conv_band(1, c, rows, columns, pitch, place, channel, at, weights, bias,
                         y + g * c.out, q, stop);
    }
}

/* Items [begin, end) of images * bands: y, channels last, of x and packed weights. */
TG void tg_convolution_of(const tg_conv c, const float *x, const float *w, float *y, long begin,
                          long end) {
    const long channels = tg_channels(c), count = tg_count(c, 0);
    const long columns = tg_extent(c, 1, tg_count(c, 1)), inside = tg_inside(c);
    const long pitch = inside ? c.x_step[0] : columns * channels;
    const long place = inside ? c.x_step[1] : channels, channel = inside ? c.x_channel : 1;
    for (long item = begin; item < end; item++) {
        const long image = item / c.bands, band = item % c.bands;
        const long q = c.bands == 1 ? 0 : band * count / c.bands;
        const long stop = c.bands == 1 ? count : (band + 1) * count / c.bands;
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
        float *to = y + image * c.y_size[0] * c.y_size[1] * c.groups * c.out;
        const long phases[2] = {c.transposed ? c.stride[0] : 1, c.transposed ? c.stride[1] : 1};
        TG_UNROLL for (int r = 0; r < phases[0]; r++) TG_UNROLL for (int k = 0; k < phases[1]; k++)
            if (r < c.y_size[0] && k < c.y_size[1])
                tg_conv_phase(c, tg_axis_of(c, 0, r), tg_axis_of(c, 1, k), pitch, place, channel,
                              from, w, to, q, stop);
    }
}

TG void tg_convolution(long images, long groups, long in, long out, long x_rows, long x_columns,
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
        bands, tg_of_lanes(tile16, tile8, tile4)};
    tg_convolution_of(c, x, w, y, begin, end);
}

/* --- the gradient for the weights ---------------------------------------------------------------- */

/* Where numbers lie: from one image, row and place to the next, and from one row of sums to the next. */
typedef struct {
    long image, pitch, place, step;
} tg_lie;

/* Adds to A kernel rows * Q rows of sums, V vectors of channels each, what a box of images * rows *
 * columns positions gives. A row of sums is a channel of the input, or a tap. */
TG void tg_weight_tile(const int A, const int Q, const int V, const tg_conv c, long images, long rows,
                       const tg_lie x_lie, const tg_lie y_lie, const float *x, const float *y,
                       float *total, long v) {
    const long block = c.kernel[0] * c.kernel[1] * c.in * 16, line = c.kernel[1] * c.in * 16;
    tg_vec sum[TG_SUMS];
    TG_UNROLL for (int i = 0; i < A * Q * V; i++) sum[i] = (tg_vec){0};
    for (long n = 0; n < images; n++)
        for (long r = 0; r < rows; r++) {
            const float *p = x + n * x_lie.image + r * c.stride[0] * x_lie.pitch;
            const float *q = y + n * y_lie.image + r * y_lie.pitch;
            for (long j = 0; j < c.y_size[1]; j++, p += c.stride[1] * x_lie.place, q += y_lie.place) {
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

/* All sums of one group. span: how many rows of sums lie one after the other, `spans` times. */
TG void tg_weight_group(const tg_conv c, long span, long spans, long images, long rows,
                        const tg_lie x_lie, const tg_lie y_lie, const float *x, const float *y,
                        float *total) {
    const int A = c.tile >> 16, Q = c.tile >> 8 & 255, V = c.tile & 255;
    for (long v = 0; v < (c.out + TG_L - 1) / TG_L; v += V)
        for (long a = 0; a < c.kernel[0]; a += A)
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

/* One box: images from `image` on, rows [q, end) of the result, to be added to `total`. */
TG void tg_weight_box(const tg_conv c, const long y_step[2], long y_image, long y_channel,
                      const float *x, const float *y, float *total, long images, long q, long end) {
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
    if (y_channel == 1 && c.out % 16 == 0) {
        y += q * y_step[0];
    } else {
        y_lie = (tg_lie){rows * c.y_size[1] * made, c.y_size[1] * made, made, 0};
        for (long n = 0; n < images; n++)
            tg_copy_box(box + n * y_lie.image, y + n * y_image, c.y_size, made, y_channel, y_step, q,
                        rows, 0, c.y_size[1]);
        y = box;
    }
    const long merged = c.dilation[1] == 1 && c.groups == 1 && x_lie.place == c.in * x_lie.step;
    const long span = c.in == 1 ? c.kernel[1] : merged ? c.kernel[1] * c.in : c.in;
    if (c.in == 1) x_lie.step = c.dilation[1] * x_lie.place;
    const long one = c.kernel[0] * c.kernel[1] * c.in * tg_blocks(c.out) * 16;
    for (long g = 0; g < c.groups; g++)
        tg_weight_group(c, span, c.kernel[1] * c.in / span, images, rows, x_lie, y_lie,
                        x + g * c.in * (inside ? c.x_channel : 1), y + g * c.out, total + g * one);
}

/* Parts [begin, end) of the batch. Each has sums of its own, [group][block][tap][channel][16]. An item
 * is a band of rows of `together` images. */
TG void tg_convolution_weight(long images, long groups, long in, long out, long x_rows,
                              long x_columns, long x_image, long x_channel, long x_row,
                              long x_column, long y_rows, long y_columns, long kernel_rows,
                              long kernel_columns, long stride_rows, long stride_columns,
                              long padding_rows, long padding_columns, long dilation_rows,
                              long dilation_columns, long depthwise, long bands, long tile16,
                              long tile8, long tile4, long y_image, long y_channel, long y_row,
                              long y_column, long together, long parts, const float *x,
                              const float *y, float *sums, long begin, long end) {
    const tg_conv c = {
        images, groups, in, out, {x_rows, x_columns}, x_image, x_channel, {x_row, x_column},
        {y_rows, y_columns}, {kernel_rows, kernel_columns}, {stride_rows, stride_columns},
        {padding_rows, padding_columns}, {dilation_rows, dilation_columns}, 0, depthwise,
        bands, tg_of_lanes(tile16, tile8, tile4)};
    const long y_step[2] = {y_row, y_column};
    const long one = groups * tg_blocks(out) * kernel_rows * kernel_columns * in * 16;
    const long items = (images + together - 1) / together * bands;
    for (long part = begin; part < end; part++) {
        float *total = sums + part * one;
        memset(total, 0, 4 * one);
        for (long item = part * items / parts; item < (part + 1) * items / parts; item++) {
            const long image = item / bands * together, band = item % bands;
            const long q = bands == 1 ? 0 : band * y_rows / bands;
            const long stop = bands == 1 ? y_rows : (band + 1) * y_rows / bands;
            const long count = images % together ? tg_least(together, images - image) : together;
            tg_weight_box(c, y_step, y_image, y_channel, x + image * x_image, y + image * y_image,
                          total, count, q, stop);
        }
    }
}

/* Blocks [begin, end) of groups * blocks: the parts' sums added in order, as (groups * out, in, taps). */
TG void tg_convolution_weight_sum(long groups, long in, long out, long taps, long parts,
                                  const float *sums, float *w, long begin, long end) {
    const long blocks = tg_blocks(out), block = taps * in * 16, one = groups * blocks * block;
    for (long b = begin; b < end; b++) {
        const long first = b % blocks * 16, lanes = tg_least(16, out - first);
        float *to = w + (b / blocks * out + first) * in * taps;
        for (long i = 0; i < in; i++)
            for (long t = 0; t < taps; t++) {
                const float *from = sums + b * block + (t * in + i) * 16;
                float total[16];
                for (int l = 0; l < 16; l++) total[l] = from[l];
                for (long p = 1; p < parts; p++)
                    for (int l = 0; l < 16; l++) total[l] += from[p * one + l];
                for (long l = 0; l < lanes; l++) to[(l * in + i) * taps + t] = total[l];
            }
    }
}
#endif
