// Softmax and its logarithm along the rows of a matrix, and their gradients from the result.
//
// Three kernels for each, by the length of the rows: `_short` for rows that some lanes of a warp
// hold in registers, `_row` for those that a block holds, `_long` for any, by a block that reads
// the row twice. The first two read and write every number once.
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

template <typename Op, bool packed>
__device__ __forceinline__ void value_long(const T* x, T* y, index_t rows, index_t columns) {
  const Block team = this_block();
  for (index_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* from = x + row * columns;
    T* to = y + row * columns;
    const Exponentials found = exponentials_online<packed>(from, columns);
    tiles(columns, team.size, [&](index_t start, int n) {
      A v[TILE];
      load_tile<packed>(from + start, n, team, A(0), v);
      finish<Op>(v, found);
      store_tile<packed>(to + start, n, team, v);
    });
  }
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

template <typename Op, bool packed>
__device__ __forceinline__ void gradient_long(const T* g, const T* y, T* dx, index_t rows,
                                              index_t columns) {
  const Block team = this_block();
  for (index_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const index_t begin = row * columns;
    A sum = A(0);
    tiles(columns, team.size, [&](index_t start, int n) {
      A d[TILE], v[TILE];
      load_tile<packed>(g + begin + start, n, team, A(0), d);
      load_tile<packed>(y + begin + start, n, team, A(0), v);
      sum += terms<Op>(d, v);
    });
    const A total = team.reduce<Sum>(sum);
    tiles(columns, team.size, [&](index_t start, int n) {
      A d[TILE], v[TILE];
      load_tile<packed>(g + begin + start, n, team, A(0), d);
      load_tile<packed>(y + begin + start, n, team, A(0), v);
      finish_gradient<Op>(d, v, total);
      store_tile<packed>(dx + begin + start, n, team, d);
    });
  }
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
__device__ __forceinline__ void forward_long(const T* x, T* y, index_t rows, index_t columns) {
  if (rows_aligned16(x, columns) && aligned16(y))
    value_long<Op, true>(x, y, rows, columns);
  else
    value_long<Op, false>(x, y, rows, columns);
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
__device__ __forceinline__ void backward_long(const T* g, const T* y, T* dx, index_t rows,
                                              index_t columns) {
  if (rows_aligned16(g, columns) && aligned16(y) && aligned16(dx))
    gradient_long<Op, true>(g, y, dx, rows, columns);
  else
    gradient_long<Op, false>(g, y, dx, rows, columns);
}

#define KERNELS(name, Op)                                                              \
extern "C" __global__ void __launch_bounds__(256, 1)                                   \
name##_forward_short(const T* x, T* y, index_t rows, index_t columns, index_t lanes) { \
  forward_short<Op>(x, y, rows, columns, lanes);                                       \
}                                                                                      \
extern "C" __global__ void __launch_bounds__(512, 1)                                   \
name##_forward_row(const T* x, T* y, index_t rows, index_t columns) {                  \
  forward_row<Op>(x, y, rows, columns);                                                \
}                                                                                      \
extern "C" __global__ void __launch_bounds__(512, 1)                                   \
name##_forward_long(const T* x, T* y, index_t rows, index_t columns) {                 \
  forward_long<Op>(x, y, rows, columns);                                               \
}                                                                                      \
extern "C" __global__ void __launch_bounds__(256, 1)                                   \
name##_backward_short(const T* g, const T* y, T* dx, index_t rows, index_t columns,    \
                       index_t lanes) {                                                \
  backward_short<Op>(g, y, dx, rows, columns, lanes);                                  \
}                                                                                      \
extern "C" __global__ void __launch_bounds__(512, 1)                                   \
name##_backward_row(const T* g, const T* y, T* dx, index_t rows, index_t columns) {    \
  backward_row<Op>(g, y, dx, rows, columns);                                           \
}                                                                                      \
extern "C" __global__ void __launch_bounds__(512, 1)                                   \
name##_backward_long(const T* g, const T* y, T* dx, index_t rows, index_t columns) {   \
  backward_long<Op>(g, y, dx, rows, columns);                                          \
}

KERNELS(softmax, Softmax)
KERNELS(log_softmax, LogSoftmax)
