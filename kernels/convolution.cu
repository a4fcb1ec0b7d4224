// Convolutions as matrix products: the windows of an array as the columns of a matrix, and back.
//
// An array is seen as [examples, channels, depth, height, width], contiguous; one axis or two are three,
// of which the others have the length 1. The columns are a matrix with a row for each channel and
// tap. Behind each other in a row lie the positions of one example, or of many (`inner`); of matrices
// there are `outer`, `block` elements apart.
//
// What comes back is gathered: a thread has an element of the input and adds up the columns that it
// is in, in order.
#include "common.cuh"

// The windows along one axis: window o has the elements o * stride - padding + k * dilation.
struct Axis {
  int size, kernel, stride, padding, dilation, results;

  __device__ __forceinline__ int begin(int o) const { return o * stride - padding; }
  // The windows that reach an element: those before the first one, and so on.
  __device__ __forceinline__ int first(int i) const {
    const int reach = i + padding - (kernel - 1) * dilation;
    if (reach <= 0) return 0;
    return stride == 1 ? reach : (reach + stride - 1) / stride;
  }
  __device__ __forceinline__ int last(int i) const {
    const int o = stride == 1 ? i + padding : (i + padding) / stride;
    return o < results ? o : results - 1;
  }
  // Which tap of window o an element is, or -1.
  __device__ __forceinline__ int tap(int o, int i) const {
    const int from = i - begin(o);
    if (dilation == 1) return from;
    return from % dilation ? -1 : from / dilation;
  }
};

struct Windows {
  Axis d, h, w;

  __device__ __forceinline__ index_t size() const { return index_t(d.size) * h.size * w.size; }
  __device__ __forceinline__ index_t results() const {
    return index_t(d.results) * h.results * w.results;
  }
  __device__ __forceinline__ index_t taps() const {
    return index_t(d.kernel) * h.kernel * w.kernel;
  }
};

struct Division {
  index_t quotient, rest;
};

// By 32 bits where they are enough: a GPU divides 64-bit numbers several times more slowly.
__device__ __forceinline__ Division divided(index_t i, index_t by) {
  if ((i | by) >> 32 == 0) {
    const uint32 quotient = uint32(i) / uint32(by);
    return {index_t(quotient), index_t(uint32(i) - quotient * uint32(by))};
  }
  return {i / by, i % by};
}

// --- columns -------------------------------------------------------------------------------------

struct Columns {
  index_t channels, outer, inner, begin, count, row, block;
};

// A place in the results of an example: where its window begins, and the first element of the channel
// in its example, behind that of the pack's first element.
struct Corner {
  int from, d, h, w;
};

// That of element number q of a row; one that has no elements, if q is beyond the row's end.
__device__ __forceinline__ Corner corner(const Windows& a, const Columns& c, index_t first,
                                         index_t q) {
  if (q >= c.inner * c.count) return {0, 0, 0, -(1 << 30) - a.w.kernel * a.w.dilation};
  const Division example = divided(q, c.count);
  const Division w = divided(c.begin + example.rest, a.w.results);
  const Division h = divided(w.quotient, a.h.results);
  return {int((example.quotient - first) * c.channels * a.size()), a.d.begin(int(h.quotient)),
          a.h.begin(int(h.rest)), a.w.begin(int(w.rest))};
}

__device__ __forceinline__ bool inside(int i, int size) { return uint32(i) < uint32(size); }

// Where a line of a channel begins that a window meets, or -1 if it is outside.
__device__ __forceinline__ int line_of(const Windows& a, const Corner& at, int d, int h) {
  const int z = at.d + d * a.d.dilation, y = at.h + h * a.h.dilation;
  return inside(z, a.d.size) && inside(y, a.h.size) ? at.from + (z * a.h.size + y) * a.w.size : -1;
}

// The rows of one channel, for a pack of windows that lie in one line and begin side by side: each
// element of the input is read once for all taps of a line.
__device__ __forceinline__ void pack_in_line(const Windows& a, const Corner& at, const T* x,
                                             index_t row, T* to) {
  constexpr int width = Pack<T>::size;
  const T zero = narrow<T>(A(0));
#pragma unroll 1
  for (int d = 0; d < a.d.kernel; ++d) {
#pragma unroll 1
    for (int h = 0; h < a.h.kernel; ++h) {
      const int line = line_of(a, at, d, h);
      const T* from = x + line + at.w;
      Pack<T> out;
#pragma unroll
      for (int k = 0; k < width; ++k)
        out.at[k] = line >= 0 && inside(at.w + k, a.w.size) ? from[k] : zero;
#pragma unroll 1
      for (int w = 1;; ++w) {
        store_pack(to, out);
        to += row;
        if (w == a.w.kernel) break;
#pragma unroll
        for (int k = 0; k < width - 1; ++k) out.at[k] = out.at[k + 1];
        const int i = w + width - 1;
        out.at[width - 1] = line >= 0 && inside(at.w + i, a.w.size) ? from[i] : zero;
      }
    }
  }
}

// The same for any pack, whose first element is number q.
__device__ __forceinline__ void pack_of_any(const Windows& a, const Columns& c, index_t first,
                                            index_t q, const T* x, T* to) {
  constexpr int width = Pack<T>::size;
  const T zero = narrow<T>(A(0));
  Corner at[width];
#pragma unroll
  for (int k = 0; k < width; ++k) at[k] = corner(a, c, first, q + k);
#pragma unroll 1
  for (int d = 0; d < a.d.kernel; ++d) {
#pragma unroll 1
    for (int h = 0; h < a.h.kernel; ++h) {
      int line[width];
#pragma unroll
      for (int k = 0; k < width; ++k) line[k] = line_of(a, at[k], d, h);
#pragma unroll 1
      for (int w = 0; w < a.w.kernel; ++w, to += c.row) {
        Pack<T> out;
#pragma unroll
        for (int k = 0; k < width; ++k) {
          const int i = at[k].w + w * a.w.dilation;
          out.at[k] = line[k] >= 0 && inside(i, a.w.size) ? x[line[k] + i] : zero;
        }
        store_pack(to, out);
      }
    }
  }
}

// direct: whether a pack of a row is one of the input, too: there is one tap, and it goes along.
__device__ __forceinline__ void to_columns(const Windows& a, const Columns& c, const T* x,
                                           T* columns, bool direct) {
  constexpr int width = Pack<T>::size;
  const index_t packs = (c.inner * c.count + width - 1) / width;
  const index_t n = c.outer * c.channels * packs;
  for (index_t i = thread_number(); i < n; i += thread_count()) {
    const Division pack = divided(i, packs), channel = divided(pack.quotient, c.channels);
    const index_t q = pack.rest * width;
    T* to = columns + channel.quotient * c.block + channel.rest * a.taps() * c.row + q;
    const Division example = divided(q, c.count);
    const index_t plane =
        (channel.quotient * c.inner + example.quotient) * c.channels + channel.rest;
    const T* from = x + plane * a.size();
    if (direct) {
      store_pack(to, *reinterpret_cast<const Pack<T>*>(from + c.begin + example.rest));
      continue;
    }
    const index_t column = divided(c.begin + example.rest, a.w.results).rest;
    if (a.w.stride == 1 && a.w.dilation == 1 && column + width <= a.w.results)
      pack_in_line(a, corner(a, c, example.quotient, q), from, c.row, to);
    else
      pack_of_any(a, c, example.quotient, q, from, to);
  }
}

// --- from columns --------------------------------------------------------------------------------

// Where an element of the input lies.
struct Point {
  index_t plane;  // of which example and channel
  int d, h, w;

  __device__ __forceinline__ Point(const Windows& a, index_t i) {
    Division at = divided(i, a.w.size);
    w = int(at.rest);
    at = divided(at.quotient, a.h.size);
    h = int(at.rest);
    at = divided(at.quotient, a.d.size);
    d = int(at.rest);
    plane = at.quotient;
  }
  __device__ __forceinline__ void step(const Windows& a) {
    if (++w < a.w.size) return;
    w = 0;
    if (++h < a.h.size) return;
    h = 0;
    if (++d < a.d.size) return;
    d = 0;
    ++plane;
  }
};

// The sum of what the windows give that an element is in. rows: those of its channel, from the first
// position of its example on.
__device__ __forceinline__ A gathered(const Windows& a, const Point& p, const A* rows, index_t row) {
  A sum = A(0);
  const int last_d = a.d.last(p.d), last_h = a.h.last(p.h), last_w = a.w.last(p.w);
  for (int d = a.d.first(p.d); d <= last_d; ++d) {
    const int tap_d = a.d.tap(d, p.d);
    if (tap_d < 0) continue;
    for (int h = a.h.first(p.h); h <= last_h; ++h) {
      const int tap_h = a.h.tap(h, p.h);
      if (tap_h < 0) continue;
      const index_t line = (index_t(d) * a.h.results + h) * a.w.results;
      const index_t tap = (index_t(tap_d) * a.h.kernel + tap_h) * a.w.kernel;
      for (int w = a.w.first(p.w); w <= last_w; ++w) {
        const int tap_w = a.w.tap(w, p.w);
        if (tap_w >= 0) sum += rows[(tap + tap_w) * row + line + w];
      }
    }
  }
  return sum;
}

// bias: a number for each channel, or null.
__device__ __forceinline__ A element(const Windows& a, const Columns& c, const Point& p,
                                     const A* columns, const T* bias) {
  const Division plane = divided(p.plane, c.channels), matrix = divided(plane.quotient, c.inner);
  const A* rows = columns + matrix.quotient * c.block + plane.rest * a.taps() * c.row +
                  matrix.rest * a.results();
  const A sum = gathered(a, p, rows, c.row);
  return bias ? sum + widen(bias[plane.rest]) : sum;
}

template <int width>
__device__ __forceinline__ void from_columns(const Windows& a, const Columns& c, const A* columns,
                                             const T* bias, T* x) {
  const index_t n = c.outer * c.inner * c.channels * a.size();
  for (index_t i = thread_number() * width; i < n; i += thread_count() * width) {
    Point p(a, i);
    if constexpr (width > 1) {
      Pack<T> out;
#pragma unroll
      for (int k = 0; k < width; ++k) {
        out.at[k] = narrow<T>(element(a, c, p, columns, bias));
        p.step(a);
      }
      store_pack(x + i, out);
    } else {
      x[i] = narrow<T>(element(a, c, p, columns, bias));
    }
  }
}

// --- results -------------------------------------------------------------------------------------

// From [channels, examples * count] to positions `begin` and so on of [examples, channels, positions].
template <int width>
__device__ __forceinline__ void apart(const A* sums, const T* bias, T* y, index_t channels,
                                      index_t examples, index_t begin, index_t count,
                                      index_t positions) {
  const index_t packs = count / width, n = examples * channels * packs;
  for (index_t i = thread_number(); i < n; i += thread_count()) {
    const Division pack = divided(i, packs), plane = divided(pack.quotient, channels);
    const A* from = sums + (plane.rest * examples + plane.quotient) * count + pack.rest * width;
    T* to = y + pack.quotient * positions + begin + pack.rest * width;
    const A more = bias ? widen(bias[plane.rest]) : A(0);
    if constexpr (width > 1) {
      constexpr int each = Pack<A>::size;
      Pack<T> out;
#pragma unroll
      for (int k = 0; k < width; k += each) {
        const Pack<A> in = *reinterpret_cast<const Pack<A>*>(from + k);
#pragma unroll
        for (int j = 0; j < each; ++j) out.at[k + j] = narrow<T>(in.at[j] + more);
      }
      store_pack(to, out);
    } else {
      *to = narrow<T>(*from + more);
    }
  }
}

// --- kernels -------------------------------------------------------------------------------------

// The numbers of the three axes, in the order of `Axis`.
#define WINDOWS                                                               \
  index_t d0, index_t d1, index_t d2, index_t d3, index_t d4, index_t d5,     \
      index_t h0, index_t h1, index_t h2, index_t h3, index_t h4, index_t h5, \
      index_t w0, index_t w1, index_t w2, index_t w3, index_t w4, index_t w5
#define WINDOWS_OF                                          \
  {                                                         \
    {int(d0), int(d1), int(d2), int(d3), int(d4), int(d5)}, \
    {int(h0), int(h1), int(h2), int(h3), int(h4), int(h5)}, \
    {int(w0), int(w1), int(w2), int(w3), int(w4), int(w5)}  \
  }

extern "C" __global__ void __launch_bounds__(256, 1)
im2col(const T* x, T* columns, int direct, WINDOWS, index_t channels, index_t outer, index_t inner,
       index_t begin, index_t count, index_t row, index_t block) {
  const Columns c = {channels, outer, inner, begin, count, row, block};
  to_columns(WINDOWS_OF, c, x, columns, direct != 0);
}

extern "C" __global__ void __launch_bounds__(256, 1)
col2im(const A* columns, const T* bias, T* x, int has_bias, int packed, WINDOWS, index_t channels,
       index_t outer, index_t inner, index_t row, index_t block) {
  const Windows a = WINDOWS_OF;
  const Columns c = {channels, outer, inner, 0, 0, row, block};
  if (packed)
    from_columns<Pack<T>::size>(a, c, columns, has_bias ? bias : nullptr, x);
  else
    from_columns<1>(a, c, columns, has_bias ? bias : nullptr, x);
}

extern "C" __global__ void __launch_bounds__(256, 1)
examples_apart(const A* sums, const T* bias, T* y, int has_bias, int packed, index_t channels,
               index_t examples, index_t begin, index_t count, index_t positions) {
  const T* more = has_bias ? bias : nullptr;
  if (packed)
    apart<Pack<T>::size>(sums, more, y, channels, examples, begin, count, positions);
  else
    apart<1>(sums, more, y, channels, examples, begin, count, positions);
}

// A number for each channel in [examples, channels, positions]: what a product can be added to.
extern "C" __global__ void __launch_bounds__(256, 1)
spread_channels(const T* bias, T* y, index_t n, index_t channels, index_t positions) {
  constexpr int width = Pack<T>::size;
  for (index_t i = thread_number() * width; i < n; i += thread_count() * width) {
    Division at = divided(i, positions);
    index_t channel = divided(at.quotient, channels).rest;
    Pack<T> out;
#pragma unroll
    for (int k = 0; k < width; ++k) {
      out.at[k] = bias[channel];
      if (++at.rest == positions) {
        at.rest = 0;
        if (++channel == channels) channel = 0;
      }
    }
    if (i + width <= n && aligned16(y)) {
      store_pack(y + i, out);
    } else {
#pragma unroll
      for (int k = 0; k < width; ++k)
        if (i + k < n) y[i + k] = out.at[k];
    }
  }
}
