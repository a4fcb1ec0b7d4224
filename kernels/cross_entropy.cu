// Cross-entropy of the rows of a matrix of logits and integer labels, and its gradient.
//
// The forward pass reads the logits once and keeps two numbers of each row in r: the greatest logit
// (r[row]) and the sum of exp(x - greatest) (r[rows + row]); their logarithm as one number would
// lose the digits that large logits leave no room for. The backward pass reads the logits once more
// and writes their gradient. `_short` is for rows that some lanes of a warp hold in registers,
// `_long` for rows of any length, a block to each.
//
// A label out of range makes the loss of its row NaN, and the gradient of the row too.
//
// The bounds say that one block on a multiprocessor is enough: else the compiler spills registers
// to make room for more.
#include "rows.cuh"

__device__ __forceinline__ bool in_range(index_t label, index_t columns) {
  return label >= 0 && label < columns;
}

// --- value ---------------------------------------------------------------------------------------

// By one thread for each row.
template <typename Label>
__device__ __forceinline__ A row_loss(const T* row, index_t columns, Label label,
                                      Exponentials of) {
  if (!in_range(label, columns)) return not_a_number<A>();
  return log(of.sum) - (widen(row[label]) - of.most);
}

// What a thread has to do for a row that it is the first thread of: keep what the gradient needs,
// and write the row's loss, or add it to the thread's.
template <typename Label>
__device__ __forceinline__ void close_row(const T* x, const Label* labels, A* r, T* each,
                                          index_t row, index_t rows, index_t columns,
                                          bool reduced, Exponentials of, A& sum) {
  r[row] = of.most;
  r[rows + row] = of.sum;
  const A loss = row_loss(x + row * columns, columns, labels[row], of);
  if (reduced)
    sum += loss;
  else
    each[row] = narrow<T>(loss);
}

template <bool packed, typename Label>
__device__ __forceinline__ A losses_short(const T* x, const Label* labels, A* r, T* each,
                                          index_t rows, int columns, int lanes, bool reduced) {
  A sum = A(0);
  rows_by_lanes(rows, lanes, [&](Lanes team, index_t row, bool live) {
    A v[TILE];
    load_tile<packed>(x + row * columns, columns, team, -infinity<A>(), v);
    const Exponentials found = exponentials(v, team);
    if (live && team.thread == 0)
      close_row(x, labels, r, each, row, rows, columns, reduced, found, sum);
  });
  return sum;
}

template <bool packed, typename Label>
__device__ __forceinline__ A losses_long(const T* x, const Label* labels, A* r, T* each,
                                         index_t rows, index_t columns, bool reduced) {
  A sum = A(0);
  for (index_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const Exponentials found = exponentials_online<packed>(x + row * columns, columns);
    if (threadIdx.x == 0) close_row(x, labels, r, each, row, rows, columns, reduced, found, sum);
  }
  return sum;
}

// The losses of a block's rows together, in an order that the grid alone determines: the loss
// itself, if there is one block.
__device__ __forceinline__ void write_sum(A sum, A* partial, T* loss, index_t divisor) {
  const A total = block_reduce<Sum>(sum);
  if (threadIdx.x != 0) return;
  if (gridDim.x == 1)
    loss[0] = narrow<T>(total / A(divisor));
  else
    partial[blockIdx.x] = total;
}

template <typename Label>
__device__ __forceinline__ void forward_short(const T* x, const Label* labels, A* r, A* partial,
                                              T* each, index_t rows, index_t columns,
                                              index_t divisor, index_t lanes) {
  const bool reduced = divisor != 0;
  const A sum =
      rows_aligned16(x, columns)
          ? losses_short<true>(x, labels, r, each, rows, int(columns), int(lanes), reduced)
          : losses_short<false>(x, labels, r, each, rows, int(columns), int(lanes), reduced);
  if (reduced) write_sum(sum, partial, each, divisor);
}

template <typename Label>
__device__ __forceinline__ void forward_long(const T* x, const Label* labels, A* r, A* partial,
                                             T* each, index_t rows, index_t columns,
                                             index_t divisor) {
  const bool reduced = divisor != 0;
  const A sum = rows_aligned16(x, columns)
                    ? losses_long<true>(x, labels, r, each, rows, columns, reduced)
                    : losses_long<false>(x, labels, r, each, rows, columns, reduced);
  if (reduced) write_sum(sum, partial, each, divisor);
}

// --- gradient ------------------------------------------------------------------------------------

// What a row counts for: g has one number for each row (step 1), or one for all (step 0).
__device__ __forceinline__ A weight_of(const T* g, index_t step, index_t divisor, index_t row,
                                       index_t columns, index_t label) {
  if (!in_range(label, columns)) return not_a_number<A>();
  return widen(g[row * step]) / A(divisor);
}

// v = exp(v - most) / sum * weight, less the weight at the place `label` of the tile.
template <bool packed, typename Team>
__device__ __forceinline__ void slopes(A (&v)[TILE], Team team, A most, A sum, A weight,
                                       int label) {
  const A scale = A(1) / sum;
#pragma unroll
  for (int k = 0; k < TILE; ++k) {
    v[k] = exp(v[k] - most) * scale * weight;
    if (place_of<packed>(k, team.size, team.thread) == label) v[k] -= weight;
  }
}

template <bool packed, typename Label>
__device__ __forceinline__ void gradient_short(const T* g, const T* x, const Label* labels,
                                               const A* r, T* dx, index_t rows, int columns,
                                               int lanes, index_t step, index_t divisor) {
  rows_by_lanes(rows, lanes, [&](Lanes team, index_t row, bool live) {
    A v[TILE];
    load_tile<packed>(x + row * columns, columns, team, A(0), v);
    const index_t label = labels[row];
    const A weight = weight_of(g, step, divisor, row, columns, label);
    const int at = in_range(label, columns) ? int(label) : -1;
    slopes<packed>(v, team, r[row], r[rows + row], weight, at);
    if (live) store_tile<packed>(dx + row * columns, columns, team, v);
  });
}

template <bool packed, typename Label>
__device__ __forceinline__ void gradient_long(const T* g, const T* x, const Label* labels,
                                              const A* r, T* dx, index_t rows, index_t columns,
                                              index_t step, index_t divisor) {
  const Block team = this_block();
  for (index_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const index_t label = labels[row];
    const A weight = weight_of(g, step, divisor, row, columns, label);
    const A most = r[row], sum = r[rows + row];
    const index_t begin = row * columns;
    tiles(columns, team.size, [&](index_t start, int n) {
      A v[TILE];
      load_tile<packed>(x + begin + start, n, team, A(0), v);
      const int at = label >= start && label < start + n ? int(label - start) : -1;
      slopes<packed>(v, team, most, sum, weight, at);
      store_tile<packed>(dx + begin + start, n, team, v);
    });
  }
}

template <typename Label>
__device__ __forceinline__ void backward_short(const T* g, const T* x, const Label* labels,
                                               const A* r, T* dx, index_t rows, index_t columns,
                                               index_t lanes, index_t step, index_t divisor) {
  if (rows_aligned16(x, columns) && aligned16(dx))
    gradient_short<true>(g, x, labels, r, dx, rows, int(columns), int(lanes), step, divisor);
  else
    gradient_short<false>(g, x, labels, r, dx, rows, int(columns), int(lanes), step, divisor);
}

template <typename Label>
__device__ __forceinline__ void backward_long(const T* g, const T* x, const Label* labels,
                                              const A* r, T* dx, index_t rows, index_t columns,
                                              index_t step, index_t divisor) {
  if (rows_aligned16(x, columns) && aligned16(dx))
    gradient_long<true>(g, x, labels, r, dx, rows, columns, step, divisor);
  else
    gradient_long<false>(g, x, labels, r, dx, rows, columns, step, divisor);
}

// --- kernels -------------------------------------------------------------------------------------

// loss[0] = the sum of n numbers / divisor, by one block.
extern "C" __global__ void __launch_bounds__(1024)
cross_entropy_total(const A* partial, T* loss, index_t n, index_t divisor) {
  A sum = A(0);
  for (index_t i = threadIdx.x; i < n; i += blockDim.x) sum += partial[i];
  sum = block_reduce<Sum>(sum);
  if (threadIdx.x == 0) loss[0] = narrow<T>(sum / A(divisor));
}

// For labels of 32 and of 64 bits. divisor: of the sum of all losses, or 0 where each row's is
// wanted. Then `partial` is left alone; else each of several blocks writes the sum of its rows'
// losses there, and one block writes the loss to `each`.
#define KERNELS(bits, Label)                                                                       \
extern "C" __global__ void __launch_bounds__(256, 1)                                               \
cross_entropy_forward_short_##bits(const T* x, const Label* labels, A* r, A* partial, T* each,     \
                                   index_t rows, index_t columns, index_t divisor, index_t lanes) {\
  forward_short(x, labels, r, partial, each, rows, columns, divisor, lanes);                       \
}                                                                                                  \
extern "C" __global__ void __launch_bounds__(512, 1)                                               \
cross_entropy_forward_long_##bits(const T* x, const Label* labels, A* r, A* partial, T* each,      \
                                  index_t rows, index_t columns, index_t divisor) {                \
  forward_long(x, labels, r, partial, each, rows, columns, divisor);                               \
}                                                                                                  \
extern "C" __global__ void __launch_bounds__(256, 1)                                               \
cross_entropy_backward_short_##bits(const T* g, const T* x, const Label* labels, const A* r,       \
                                    T* dx, index_t rows, index_t columns, index_t step,            \
                                    index_t divisor, index_t lanes) {                              \
  backward_short(g, x, labels, r, dx, rows, columns, lanes, step, divisor);                        \
}                                                                                                  \
extern "C" __global__ void __launch_bounds__(512, 1)                                               \
cross_entropy_backward_long_##bits(const T* g, const T* x, const Label* labels, const A* r, T* dx, \
                                   index_t rows, index_t columns, index_t step, index_t divisor) { \
  backward_long(g, x, labels, r, dx, rows, columns, step, divisor);                                \
}

KERNELS(32, int)
KERNELS(64, index_t)
