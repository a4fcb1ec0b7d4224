// The largest element and the mean of windows that move over one to three axes, and their gradients.
//
// An array is seen as [outer, depth, height, width, inner], contiguous: with channels first, outer is
// examples times channels and inner 1; with channels last, inner is the channels, which are read
// 16 bytes at a time. One axis or two are three, of which the others have the length 1.
//
// Gradients are gathered: a thread has an element of the input and adds up what the windows give that
// it is in, in order. Whether an element is the one that a maximum was taken from is found from input
// and result; few elements are equal to the maximum of their window, and only these look at others.
#include "common.cuh"

// The windows along one axis, as tensorgrad/ops/windows.py has them: stride 0 means adaptive ones.
struct Axis {
  int size, kernel, stride, padding, dilation, results;

  __device__ __forceinline__ int step() const { return stride ? dilation : 1; }
  __device__ __forceinline__ int begin(int o) const {
    return stride ? o * stride - padding : int(index_t(o) * size / results);
  }
  // After the last element, with what lies outside.
  __device__ __forceinline__ int end(int o) const {
    return stride ? begin(o) + (kernel - 1) * dilation + 1
                  : int((index_t(o + 1) * size + results - 1) / results);
  }
  // The windows that reach an element: those before the first end before it, and so on.
  __device__ __forceinline__ int first(int i) const {
    if (!stride) return int(index_t(i) * results / size);
    const int reach = i + padding - (kernel - 1) * dilation;
    return reach > 0 ? (reach + stride - 1) / stride : 0;
  }
  __device__ __forceinline__ int last(int i) const {
    const int o = stride ? (i + padding) / stride
                         : int((index_t(i + 1) * results + size - 1) / size) - 1;
    return o < results ? o : results - 1;
  }
  __device__ __forceinline__ bool has(int o, int i) const {
    return dilation == 1 || (i - begin(o)) % dilation == 0;
  }
};

// Elements of a window that lie inside.
struct Inside {
  int begin, end, step;

  __device__ __forceinline__ Inside(const Axis& axis, int o)
      : begin(axis.begin(o)), end(axis.end(o)), step(axis.step()) {
    if (begin < 0) begin += (step - 1 - begin) / step * step;
    if (end > axis.size) end = axis.size;
  }
};

struct Pool {
  Axis d, h, w;
  index_t outer, inner;
};

// Where an element lies.
struct Point {
  index_t outer, inner;
  int d, h, w;
};

struct Division {
  index_t quotient;
  int rest;
};

// By 32 bits where they are enough: a GPU divides 64-bit numbers several times more slowly.
__device__ __forceinline__ Division divided(index_t i, int by) {
  if (i >> 32 == 0) {
    const uint32 quotient = uint32(i) / uint32(by);
    return {index_t(quotient), int(uint32(i) - quotient * uint32(by))};
  }
  return {i / by, int(i % by)};
}

// Element number i of an array of sizes d, h, w, of which `width` of the inner axis lie together.
__device__ __forceinline__ Point point(index_t i, int d, int h, int w, index_t inner, int width) {
  Division at = divided(i, int(inner / width));
  Point p;
  p.inner = index_t(at.rest) * width;
  at = divided(at.quotient, w);
  p.w = at.rest;
  at = divided(at.quotient, h);
  p.h = at.rest;
  at = divided(at.quotient, d);
  p.d = at.rest;
  p.outer = at.quotient;
  return p;
}

__device__ __forceinline__ index_t source(const Pool& a, const Point& p, int d, int h, int w) {
  return (((p.outer * a.d.size + d) * a.h.size + h) * a.w.size + w) * a.inner + p.inner;
}
__device__ __forceinline__ index_t target(const Pool& a, const Point& p, int d, int h, int w) {
  return (((p.outer * a.d.results + d) * a.h.results + h) * a.w.results + w) * a.inner + p.inner;
}

template <int width>
__device__ __forceinline__ void load(const T* from, A (&v)[width]) {
  if constexpr (width > 1) {
    const Pack<T> in = *reinterpret_cast<const Pack<T>*>(from);
#pragma unroll
    for (int k = 0; k < width; ++k) v[k] = widen(in.at[k]);
  } else {
    v[0] = widen(*from);
  }
}

template <int width>
__device__ __forceinline__ void store(T* to, const A (&v)[width]) {
  if constexpr (width > 1) {
    Pack<T> out;
#pragma unroll
    for (int k = 0; k < width; ++k) out.at[k] = narrow<T>(v[k]);
    store_pack(to, out);
  } else {
    *to = narrow<T>(v[0]);
  }
}

// Calls work(d, h, w) for the elements of a window that lie inside, in order, while it gives true.
template <typename Work>
__device__ __forceinline__ bool each_inside(const Pool& a, int od, int oh, int ow, Work work) {
  const Inside id(a.d, od), ih(a.h, oh), iw(a.w, ow);
  for (int d = id.begin; d < id.end; d += id.step)
    for (int h = ih.begin; h < ih.end; h += ih.step)
      for (int w = iw.begin; w < iw.end; w += iw.step)
        if (!work(d, h, w)) return false;
  return true;
}

// Calls work(d, h, w) for the windows that an element is in, in order.
template <typename Work>
__device__ __forceinline__ void each_window(const Pool& a, const Point& p, Work work) {
  const int last_d = a.d.last(p.d), last_h = a.h.last(p.h), last_w = a.w.last(p.w);
  for (int d = a.d.first(p.d); d <= last_d; ++d) {
    if (!a.d.has(d, p.d)) continue;
    for (int h = a.h.first(p.h); h <= last_h; ++h) {
      if (!a.h.has(h, p.h)) continue;
      for (int w = a.w.first(p.w); w <= last_w; ++w)
        if (a.w.has(w, p.w)) work(d, h, w);
    }
  }
}

// Calls work(point) for all results, and for all elements of the input.
template <int width, typename Work>
__device__ __forceinline__ void each_result(const Pool& a, Work work) {
  const index_t n = a.outer * a.d.results * a.h.results * a.w.results * (a.inner / width);
  for (index_t i = thread_number(); i < n; i += thread_count())
    work(point(i, a.d.results, a.h.results, a.w.results, a.inner, width));
}
template <int width, typename Work>
__device__ __forceinline__ void each_element(const Pool& a, Work work) {
  const index_t n = a.outer * a.d.size * a.h.size * a.w.size * (a.inner / width);
  for (index_t i = thread_number(); i < n; i += thread_count())
    work(point(i, a.d.size, a.h.size, a.w.size, a.inner, width));
}

// --- the largest ---------------------------------------------------------------------------------

template <int width>
__device__ __forceinline__ void max_forward(const Pool& a, const T* x, T* y) {
  each_result<width>(a, [=](Point p) {
    A best[width];
#pragma unroll
    for (int k = 0; k < width; ++k) best[k] = -infinity<A>();
    each_inside(a, p.d, p.h, p.w, [&](int d, int h, int w) {
      A v[width];
      load<width>(x + source(a, p, d, h, w), v);
#pragma unroll
      for (int k = 0; k < width; ++k) best[k] = Max::combine(best[k], v[k]);
      return true;
    });
    store<width>(y + target(a, p, p.d, p.h, p.w), best);
  });
}

__device__ __forceinline__ bool same(A x, A y) { return x == y || (x != x && y != y); }

// Of which of `width` neighbouring channels the element at a point is the one that counts in a
// window, as bits: of those that are equal to the maximum the first, of NaN the last.
template <int width>
__device__ __forceinline__ uint32 chosen(const Pool& a, const T* x, const Point& p, int od, int oh,
                                         int ow, const A (&own)[width], const A (&most)[width]) {
  uint32 left = 0;
#pragma unroll
  for (int k = 0; k < width; ++k) left |= uint32(same(own[k], most[k])) << k;
  if (left == 0) return 0;
  const index_t mine = source(a, p, p.d, p.h, p.w);
  each_inside(a, od, oh, ow, [&](int d, int h, int w) {
    const index_t other = source(a, p, d, h, w);
    A v[width];
    load<width>(x + other, v);
#pragma unroll
    for (int k = 0; k < width; ++k) {
      const bool before = most[k] != most[k] ? other > mine : other < mine;
      if (before && same(v[k], most[k])) left &= ~(1u << k);
    }
    return left != 0;
  });
  return left;
}

template <int width>
__device__ __forceinline__ void max_backward(const Pool& a, const T* g, const T* x, const T* y,
                                             T* dx) {
  each_element<width>(a, [=](Point p) {
    const index_t here = source(a, p, p.d, p.h, p.w);
    A own[width], sum[width];
    load<width>(x + here, own);
#pragma unroll
    for (int k = 0; k < width; ++k) sum[k] = A(0);
    each_window(a, p, [&](int d, int h, int w) {
      const index_t at = target(a, p, d, h, w);
      A most[width];
      load<width>(y + at, most);
      const uint32 mine = chosen<width>(a, x, p, d, h, w, own, most);
      if (mine == 0) return;
      A v[width];
      load<width>(g + at, v);
#pragma unroll
      for (int k = 0; k < width; ++k)
        if (mine >> k & 1) sum[k] += v[k];
    });
    store<width>(dx + here, sum);
  });
}

// The number, in the pooled axes taken as one, of the element that a maximum was taken from.
__device__ __forceinline__ void places(const Pool& a, const T* x, const T* y, index_t* out) {
  each_result<1>(a, [=](Point p) {
    const index_t at = target(a, p, p.d, p.h, p.w);
    const A most = widen(y[at]);
    index_t found = 0;
    each_inside(a, p.d, p.h, p.w, [&](int d, int h, int w) {
      if (!same(widen(x[source(a, p, d, h, w)]), most)) return true;
      found = (index_t(d) * a.h.size + h) * a.w.size + w;
      return most != most;
    });
    out[at] = found;
  });
}

// --- the mean ------------------------------------------------------------------------------------

// What the sum over a window is divided by: `divisor`, or if that is 0 the number of elements,
// with those of the padding if `counted`.
struct Divisor {
  A divisor;
  bool counted;

  __device__ __forceinline__ A along(const Axis& axis, int o) const {
    const int begin = axis.begin(o), end = axis.end(o);
    if (counted) {
      const int limit = axis.size + axis.padding;
      return A((end < limit ? end : limit) - begin);
    }
    return A((end < axis.size ? end : axis.size) - (begin > 0 ? begin : 0));
  }
  __device__ __forceinline__ A of(const Pool& a, int d, int h, int w) const {
    return divisor != A(0) ? divisor : along(a.d, d) * along(a.h, h) * along(a.w, w);
  }
};

template <int width>
__device__ __forceinline__ void mean_forward(const Pool& a, Divisor by, const T* x, T* y) {
  each_result<width>(a, [=](Point p) {
    A sum[width];
#pragma unroll
    for (int k = 0; k < width; ++k) sum[k] = A(0);
    each_inside(a, p.d, p.h, p.w, [&](int d, int h, int w) {
      A v[width];
      load<width>(x + source(a, p, d, h, w), v);
#pragma unroll
      for (int k = 0; k < width; ++k) sum[k] += v[k];
      return true;
    });
    const A divisor = by.of(a, p.d, p.h, p.w);
#pragma unroll
    for (int k = 0; k < width; ++k) sum[k] /= divisor;
    store<width>(y + target(a, p, p.d, p.h, p.w), sum);
  });
}

template <int width>
__device__ __forceinline__ void mean_backward(const Pool& a, Divisor by, const T* g, T* dx) {
  each_element<width>(a, [=](Point p) {
    A sum[width];
#pragma unroll
    for (int k = 0; k < width; ++k) sum[k] = A(0);
    each_window(a, p, [&](int d, int h, int w) {
      A v[width];
      load<width>(g + target(a, p, d, h, w), v);
      const A divisor = by.of(a, d, h, w);
#pragma unroll
      for (int k = 0; k < width; ++k) sum[k] += v[k] / divisor;
    });
    store<width>(dx + source(a, p, p.d, p.h, p.w), sum);
  });
}

// --- kernels -------------------------------------------------------------------------------------

// The numbers of the three axes, in the order of `Axis`, the outer size and the inner one.
#define POOL                                                                  \
  index_t d0, index_t d1, index_t d2, index_t d3, index_t d4, index_t d5,     \
      index_t h0, index_t h1, index_t h2, index_t h3, index_t h4, index_t h5, \
      index_t w0, index_t w1, index_t w2, index_t w3, index_t w4, index_t w5, \
      index_t outer, index_t inner
#define POOL_OF                                             \
  {                                                         \
    {int(d0), int(d1), int(d2), int(d3), int(d4), int(d5)}, \
    {int(h0), int(h1), int(h2), int(h3), int(h4), int(h5)}, \
    {int(w0), int(w1), int(w2), int(w3), int(w4), int(w5)}, \
    outer, inner                                            \
  }

extern "C" __global__ void __launch_bounds__(256, 1)
max_pool_forward(const T* x, T* y, int packed, POOL) {
  const Pool a = POOL_OF;
  if (packed)
    max_forward<Pack<T>::size>(a, x, y);
  else
    max_forward<1>(a, x, y);
}

extern "C" __global__ void __launch_bounds__(256, 1)
max_pool_backward(const T* g, const T* x, const T* y, T* dx, int packed, POOL) {
  const Pool a = POOL_OF;
  if (packed)
    max_backward<Pack<T>::size>(a, g, x, y, dx);
  else
    max_backward<1>(a, g, x, y, dx);
}

extern "C" __global__ void __launch_bounds__(256, 1)
max_pool_places(const T* x, const T* y, index_t* out, POOL) {
  places(POOL_OF, x, y, out);
}

extern "C" __global__ void __launch_bounds__(256, 1)
avg_pool_forward(const T* x, T* y, A divisor, int counted, int packed, POOL) {
  const Pool a = POOL_OF;
  if (packed)
    mean_forward<Pack<T>::size>(a, {divisor, counted != 0}, x, y);
  else
    mean_forward<1>(a, {divisor, counted != 0}, x, y);
}

extern "C" __global__ void __launch_bounds__(256, 1)
avg_pool_backward(const T* g, T* dx, A divisor, int counted, int packed, POOL) {
  const Pool a = POOL_OF;
  if (packed)
    mean_backward<Pack<T>::size>(a, {divisor, counted != 0}, g, dx);
  else
    mean_backward<1>(a, {divisor, counted != 0}, g, dx);
}
