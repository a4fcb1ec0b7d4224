// Softmax and its logarithm along the rows of a matrix, and their gradients from the result.
//
// By the length of the rows: `_short` for rows that some lanes of a warp hold in registers, `_row` for
// those that a block holds, `_wide` for longer ones of packs, of which each of 1024 threads holds
// several tiles. These read and write every number once. `_long` is for any row, by a block that
// reads it twice, the second time from the cache. Where long rows are too few to keep a GPU busy,
// blocks share each: `_parts` leaves what the parts add to the sum, `_long` adds that up.
//
// The bounds say that one block on a multiprocessor is enough: else the compiler spills registers
// to make room for more.
#include "rows.cuh"

// --- values --------------------------------------------------------------------------------------

// keep: what is held of an element until the sum is known; scale: what is made of the sum.
struct Softmax {
  static __device__ __forceinline__ A keep(A z) { return exp(z); }
  static __device__ __forceinline__ A scale(A sum) { return A(1) / sum; }
  static __device__ __forceinline__ A result(A kept, A scale) { return kept * scale; }
  static __device__ __forceinline__ A term(A g, A y) { return g * y; }
  static __device__ __forceinline__ A gradient(A g, A y, A total) { return y * (g - total); }
};

struct LogSoftmax {
  static __device__ __forceinline__ A keep(A z) { return z; }
  static __device__ __forceinline__ A scale(A sum) { return log(sum); }
  static __device__ __forceinline__ A result(A kept, A scale) { return kept - scale; }
  static __device__ __forceinline__ A term(A g, A) { return g; }
  static __device__ __forceinline__ A gradient(A g, A y, A total) { return g - exp(y) * total; }
};

// A row, or a part of one, whose greatest element and sum are known.
template <typename Op>
__device__ __forceinline__ void finish(A (&v)[TILE], Exponentials of) {
  const A scale = Op::scale(of.sum);
#pragma unroll
  for (int k = 0; k < TILE; ++k) v[k] = Op::result(Op::keep(v[k] - of.most), scale);
}

template <typename Op, bool packed>
__device__ __forceinline__ void value_short(const T* x, T* y, index_t rows, int columns,
                                            int lanes) {
  rows_by_lanes(rows, lanes, [&](Lanes team, index_t row, bool live) {
    A v[TILE];
    load_tile<packed>(x + row * columns, columns, team, -infinity<A>(), v);
    finish<Op>(v, exponentials(v, team));
    if (live) store_tile<packed>(y + row * columns, columns, team, v);
  });
}

template <typename Op, bool packed>
__device__ __forceinline__ void value_row(const T* x, T* y, index_t rows, int columns) {
  const Block team = this_block();
  for (index_t row = blockIdx.x; row < rows; row += gridDim.x) {
    A v[TILE];
    load_tile<packed>(x + row * columns, columns, team, -infinity<A>(), v);
    finish<Op>(v, exponentials(v, team));
    store_tile<packed>(y + row * columns, columns, team, v);
  }
}

// Tiles of a long row to a thread: of a value, and of a gradient, for which two arrays are held.
constexpr int VALUE_TILES = sizeof(T) == 8 ? 1 : 4, GRADIENT_TILES = 2;

template <typename Op>
__device__ __forceinline__ void value_wide(const T* x, T* y, index_t rows, int columns) {
  const Block team = this_block();
  const int whole = TILE * team.size;
  for (index_t row = blockIdx.x; row < rows; row += gridDim.x) {
    A v[VALUE_TILES][TILE];
    A most = -infinity<A>();
#pragma unroll
    for (int t = 0; t < VALUE_TILES; ++t) {
      load_tile<true>(x + row * columns + t * whole, columns - t * whole, team, -infinity<A>(), v[t]);
#pragma unroll
      for (int k = 0; k < TILE; ++k) most = Max::combine(most, v[t][k]);
    }
    most = team.reduce<Max>(most);
    A sum = A(0);
#pragma unroll
    for (int t = 0; t < VALUE_TILES; ++t)
#pragma unroll
      for (int k = 0; k < TILE; ++k) sum += exp(v[t][k] - most);
    const Exponentials found = {most, team.reduce<Sum>(sum)};
#pragma unroll
    for (int t = 0; t < VALUE_TILES; ++t) {
      finish<Op>(v[t], found);
      store_tile<true>(y + row * columns + t * whole, columns - t * whole, team, v[t]);
    }
  }
}

// Calls work(row, begin, columns, number) for the parts of all rows, shared out among blocks.
template <typename Work>
__device__ __forceinline__ void by_parts(index_t rows, index_t columns, index_t parts, Work work) {
  for (index_t at = blockIdx.x; at < rows * parts; at += gridDim.x) {
    const Part part(columns, at % parts, parts);
    work(at / parts, at / parts * columns + part.begin, part.columns, at);
  }
}

// What the parts of a row amount to. A part of -infinity alone has no finite sum, but adds nothing
// where another part has more.
__device__ __forceinline__ Exponentials joined(const Pair* found, index_t parts) {
  A most = found[0].first;
  for (index_t p = 1; p < parts; ++p) most = Max::combine(most, found[p].first);
  A sum = A(0);
  for (index_t p = 0; p < parts; ++p)
    if (found[p].first != -infinity<A>() || most == -infinity<A>())
      sum += found[p].second * exp(found[p].first - most);
  return {most, sum};
}

template <bool packed>
__device__ __forceinline__ void value_parts(const T* x, Pair* found, index_t rows, index_t columns,
                                           index_t parts) {
  by_parts(rows, columns, parts, [=](index_t, index_t from, index_t n, index_t number) {
    const Exponentials of = exponentials_online<packed>(x + from, n);
    if (threadIdx.x == 0) found[number] = {of.most, of.sum};
  });
}

template <typename Op, bool packed>
__device__ __forceinline__ void value_long(const T* x, T* y, const Pair* found, index_t rows,
                                            index_t columns, index_t parts) {
  const Block team = this_block();
  by_parts(rows, columns, parts, [=](index_t row, index_t from, index_t n, index_t) {
    const Exponentials of = parts > 1 ? joined(found + row * parts, parts)
                                      : exponentials_online<packed>(x + from, n);
    tiles(n, team.size, [&](index_t start, int left) {
      A v[TILE];
      load_tile<packed>(x + from + start, left, team, A(0), v);
      finish<Op>(v, of);
      store_tile<packed>(y + from + start, left, team, v);
    });
  });
}

// --- gradients -----------------------------------------------------------------------------------

template <typename Op>
__device__ __forceinline__ A terms(const A (&g)[TILE], const A (&y)[TILE]) {
  A sum = A(0);
#pragma unroll
  for (int k = 0; k < TILE; ++k) sum += Op::term(g[k], y[k]);
  return sum;
}

template <typename Op>
__device__ __forceinline__ void finish_gradient(A (&g)[TILE], const A (&y)[TILE], A total) {
#pragma unroll
  for (int k = 0; k < TILE; ++k) g[k] = Op::gradient(g[k], y[k], total);
}

template <typename Op, bool packed>
__device__ __forceinline__ void gradient_short(const T* g, const T* y, T* dx, index_t rows,
                                               int columns, int lanes) {
  rows_by_lanes(rows, lanes, [&](Lanes team, index_t row, bool live) {
    A d[TILE], v[TILE];
    load_tile<packed>(g + row * columns, columns, team, A(0), d);
    load_tile<packed>(y + row * columns, columns, team, A(0), v);
    finish_gradient<Op>(d, v, team.reduce<Sum>(terms<Op>(d, v)));
    if (live) store_tile<packed>(dx + row * columns, columns, team, d);
  });
}

template <typename Op, bool packed>
__device__ __forceinline__ void gradient_row(const T* g, const T* y, T* dx, index_t rows,
                                             int columns) {
  const Block team = this_block();
  for (index_t row = blockIdx.x; row < rows; row += gridDim.x) {
    A d[TILE], v[TILE];
    load_tile<packed>(g + row * columns, columns, team, A(0), d);
    load_tile<packed>(y + row * columns, columns, team, A(0), v);
    finish_gradient<Op>(d, v, team.reduce<Sum>(terms<Op>(d, v)));
    store_tile<packed>(dx + row * columns, columns, team, d);
  }
}

template <typename Op>
__device__ __forceinline__ void gradient_wide(const T* g, const T* y, T* dx, index_t rows,
                                              int columns) {
  const Block team = this_block();
  const int whole = TILE * team.size;
  for (index_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const index_t begin = row * columns;
    A d[GRADIENT_TILES][TILE], v[GRADIENT_TILES][TILE];
    A sum = A(0);
#pragma unroll
    for (int t = 0; t < GRADIENT_TILES; ++t) {
      load_tile<true>(g + begin + t * whole, columns - t * whole, team, A(0), d[t]);
      load_tile<true>(y + begin + t * whole, columns - t * whole, team, A(0), v[t]);
      sum += terms<Op>(d[t], v[t]);
    }
    const A total = team.reduce<Sum>(sum);
#pragma unroll
    for (int t = 0; t < GRADIENT_TILES; ++t) {
      finish_gradient<Op>(d[t], v[t], total);
      store_tile<true>(dx + begin + t * whole, columns - t * whole, team, d[t]);
    }
  }
}

template <typename Op, bool packed>
__device__ __forceinline__ A part_total(const T* g, const T* y, index_t n, Block team) {
  A sum = A(0);
  tiles(n, team.size, [&](index_t start, int left) {
    A d[TILE], v[TILE];
    load_tile<packed>(g + start, left, team, A(0), d);
    load_tile<packed>(y + start, left, team, A(0), v);
    sum += terms<Op>(d, v);
  });
  return team.reduce<Sum>(sum);
}

template <typename Op, bool packed>
__device__ __forceinline__ void gradient_parts(const T* g, const T* y, A* sums, index_t rows,
                                              index_t columns, index_t parts) {
  const Block team = this_block();
  by_parts(rows, columns, parts, [=](index_t, index_t from, index_t n, index_t number) {
    const A sum = part_total<Op, packed>(g + from, y + from, n, team);
    if (team.thread == 0) sums[number] = sum;
  });
}

template <typename Op, bool packed>
__device__ __forceinline__ void gradient_long(const T* g, const T* y, T* dx, const A* sums,
                                               index_t rows, index_t columns, index_t parts) {
  const Block team = this_block();
  by_parts(rows, columns, parts, [=](index_t row, index_t from, index_t n, index_t) {
    A total = A(0);
    for (index_t p = 0; p < parts && parts > 1; ++p) total += sums[row * parts + p];
    if (parts == 1) total = part_total<Op, packed>(g + from, y + from, n, team);
    tiles(n, team.size, [&](index_t start, int left) {
      A d[TILE], v[TILE];
      load_tile<packed>(g + from + start, left, team, A(0), d);
      load_tile<packed>(y + from + start, left, team, A(0), v);
      finish_gradient<Op>(d, v, total);
      store_tile<packed>(dx + from + start, left, team, d);
    });
  });
}

// --- kernels -------------------------------------------------------------------------------------

// Whether rows can be read and written 16 bytes at a time is the same for all threads.
template <typename Op>
__device__ __forceinline__ void forward_short(const T* x, T* y, index_t rows, index_t columns,
                                              index_t lanes) {
  if (rows_aligned16(x, columns) && aligned16(y))
    value_short<Op, true>(x, y, rows, int(columns), int(lanes));
  else
    value_short<Op, false>(x, y, rows, int(columns), int(lanes));
}

template <typename Op>
__device__ __forceinline__ void forward_row(const T* x, T* y, index_t rows, index_t columns) {
  if (rows_aligned16(x, columns) && aligned16(y))
    value_row<Op, true>(x, y, rows, int(columns));
  else
    value_row<Op, false>(x, y, rows, int(columns));
}

template <typename Op>
__device__ __forceinline__ void forward_long(const T* x, T* y, const A* found, index_t rows,
                                              index_t columns, index_t parts) {
  const Pair* of = reinterpret_cast<const Pair*>(found);
  if (rows_aligned16(x, columns) && aligned16(y))
    value_long<Op, true>(x, y, of, rows, columns, parts);
  else
    value_long<Op, false>(x, y, of, rows, columns, parts);
}

template <typename Op>
__device__ __forceinline__ void backward_short(const T* g, const T* y, T* dx, index_t rows,
                                               index_t columns, index_t lanes) {
  if (rows_aligned16(g, columns) && aligned16(y) && aligned16(dx))
    gradient_short<Op, true>(g, y, dx, rows, int(columns), int(lanes));
  else
    gradient_short<Op, false>(g, y, dx, rows, int(columns), int(lanes));
}

template <typename Op>
__device__ __forceinline__ void backward_row(const T* g, const T* y, T* dx, index_t rows,
                                             index_t columns) {
  if (rows_aligned16(g, columns) && aligned16(y) && aligned16(dx))
    gradient_row<Op, true>(g, y, dx, rows, int(columns));
  else
    gradient_row<Op, false>(g, y, dx, rows, int(columns));
}

template <typename Op>
__device__ __forceinline__ void backward_parts(const T* g, const T* y, A* sums, index_t rows,
                                              index_t columns, index_t parts) {
  if (rows_aligned16(g, columns) && aligned16(y))
    gradient_parts<Op, true>(g, y, sums, rows, columns, parts);
  else
    gradient_parts<Op, false>(g, y, sums, rows, columns, parts);
}

template <typename Op>
__device__ __forceinline__ void backward_long(const T* g, const T* y, T* dx, const A* sums,
                                               index_t rows, index_t columns, index_t parts) {
  if (rows_aligned16(g, columns) && aligned16(y) && aligned16(dx))
    gradient_long<Op, true>(g, y, dx, sums, rows, columns, parts);
  else
    gradient_long<Op, false>(g, y, dx, sums, rows, columns, parts);
}

// Of both alike.
extern "C" __global__ void __launch_bounds__(512, 1)
exponentials_parts(const T* x, A* found, index_t rows, index_t columns, index_t parts) {
  Pair* to = reinterpret_cast<Pair*>(found);
  if (rows_aligned16(x, columns))
    value_parts<true>(x, to, rows, columns, parts);
  else
    value_parts<false>(x, to, rows, columns, parts);
}

#define KERNELS(name, Op)                                                              \
extern "C" __global__ void __launch_bounds__(256, 1)                                   \
name##_forward_short(const T* x, T* y, index_t rows, index_t columns, index_t lanes) { \
  forward_short<Op>(x, y, rows, columns, lanes);                                       \
}                                                                                      \
extern "C" __global__ void __launch_bounds__(1024, 1)                                  \
name##_forward_row(const T* x, T* y, index_t rows, index_t columns) {                  \
  forward_row<Op>(x, y, rows, columns);                                                \
}                                                                                      \
extern "C" __global__ void __launch_bounds__(1024, 1)                                  \
name##_forward_wide(const T* x, T* y, index_t rows, index_t columns) {                 \
  value_wide<Op>(x, y, rows, int(columns));                                            \
}                                                                                      \
extern "C" __global__ void __launch_bounds__(512, 1)                                   \
name##_forward_long(const T* x, T* y, const A* found, index_t rows, index_t columns,  \
                     index_t parts) {                                                  \
  forward_long<Op>(x, y, found, rows, columns, parts);                                \
}                                                                                      \
extern "C" __global__ void __launch_bounds__(256, 1)                                   \
name##_backward_short(const T* g, const T* y, T* dx, index_t rows, index_t columns,    \
                      index_t lanes) {                                                 \
  backward_short<Op>(g, y, dx, rows, columns, lanes);                                  \
}                                                                                      \
extern "C" __global__ void __launch_bounds__(1024, 1)                                  \
name##_backward_row(const T* g, const T* y, T* dx, index_t rows, index_t columns) {    \
  backward_row<Op>(g, y, dx, rows, columns);                                           \
}                                                                                      \
extern "C" __global__ void __launch_bounds__(1024, 1)                                  \
name##_backward_wide(const T* g, const T* y, T* dx, index_t rows, index_t columns) {   \
  gradient_wide<Op>(g, y, dx, rows, int(columns));                                     \
}                                                                                      \
extern "C" __global__ void __launch_bounds__(512, 1)                                   \
name##_backward_parts(const T* g, const T* y, A* sums, index_t rows, index_t columns,   \
                     index_t parts) {                                                  \
  backward_parts<Op>(g, y, sums, rows, columns, parts);                                 \
}                                                                                      \
extern "C" __global__ void __launch_bounds__(512, 1)                                   \
name##_backward_long(const T* g, const T* y, T* dx, const A* sums, index_t rows,      \
                      index_t columns, index_t parts) {                                \
  backward_long<Op>(g, y, dx, sums, rows, columns, parts);                            \
}

KERNELS(softmax, Softmax)
KERNELS(log_softmax, LogSoftmax)
