// Layer norm and RMS norm along the rows of a matrix, and their gradients.
//
// The value and the gradient of x have three kernels each, by the length of the rows: `_short` for
// rows that some lanes of a warp hold in registers, `_row` for those that a block holds, `_long` for
// any, by a block that reads the row several times. The gradients of weight and bias are sums over
// the rows: a second stage that reads g and x once more, column by column (`norm_parameters`), and
// leaves partial sums for sums.cu.
//
// mean and scale (1 / standard deviation, or 1 / root mean square) have one number for each row. RMS
// norm is layer norm with the mean taken for 0.
#include "rows.cuh"
#include "place.cuh"

// What a kernel gets besides the arrays that it reads and writes row by row.
struct Parameters {
  const T* weight;  // not read unless has_weight
  const T* bias;
  bool has_weight, has_bias;
};

template <typename Team>
__device__ __forceinline__ bool within(int k, int n, Team team, bool packed) {
  return (packed ? place_of<true>(k, team.size, team.thread)
                 : place_of<false>(k, team.size, team.thread)) < n;
}

// The sum of a tile, and the sum of its squared distances from `mean`, of this thread's part.
__device__ __forceinline__ A tile_sum(const A (&v)[TILE]) {
  A sum = A(0);
#pragma unroll
  for (int k = 0; k < TILE; ++k) sum += v[k];
  return sum;
}
template <bool packed, typename Team>
__device__ __forceinline__ A tile_squares(const A (&v)[TILE], int n, Team team, A mean) {
  A sum = A(0);
#pragma unroll
  for (int k = 0; k < TILE; ++k)
    if (within(k, n, team, packed)) sum += (v[k] - mean) * (v[k] - mean);
  return sum;
}

// y = (x - mean) * scale * weight + bias for a tile that begins at column `start`.
template <bool packed, typename Team>
__device__ __forceinline__ void finish(A (&v)[TILE], index_t start, int n, Team team, A mean,
                                       A scale, Parameters p) {
#pragma unroll
  for (int k = 0; k < TILE; ++k) v[k] = (v[k] - mean) * scale;
  A w[TILE];
  if (p.has_weight) {
    load_tile<packed>(p.weight + start, n, team, A(0), w);
#pragma unroll
    for (int k = 0; k < TILE; ++k) v[k] *= w[k];
  }
  if (p.has_bias) {
    load_tile<packed>(p.bias + start, n, team, A(0), w);
#pragma unroll
    for (int k = 0; k < TILE; ++k) v[k] += w[k];
  }
}

template <bool centred, bool packed, typename Team>
__device__ __forceinline__ void value_held(const T* x, T* y, A* mean, A* scale, Parameters p,
                                           A eps, index_t row, index_t columns, Team team,
                                           bool live) {
  const int n = int(columns);
  A v[TILE];
  load_tile<packed>(x + row * columns, n, team, A(0), v);
  const A m = centred ? team.template reduce<Sum>(tile_sum(v)) / A(columns) : A(0);
  const A squares = team.template reduce<Sum>(tile_squares<packed>(v, n, team, m));
  const A s = A(1) / sqrt(squares / A(columns) + eps);
  if (!live) return;
  finish<packed>(v, 0, n, team, m, s, p);
  store_tile<packed>(y + row * columns, n, team, v);
  if (team.thread == 0) {
    if (centred) mean[row] = m;
    scale[row] = s;
  }
}

template <bool centred, bool packed>
__device__ __forceinline__ void value_long(const T* x, T* y, A* mean, A* scale, Parameters p,
                                           A eps, index_t rows, index_t columns) {
  const Block team = this_block();
  for (index_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* from = x + row * columns;
    T* to = y + row * columns;
    A sum = A(0);
    if (centred)
      tiles(columns, team.size, [&](index_t start, int n) {
        A v[TILE];
        load_tile<packed>(from + start, n, team, A(0), v);
        sum += tile_sum(v);
      });
    const A m = centred ? team.reduce<Sum>(sum) / A(columns) : A(0);
    A squares = A(0);
    tiles(columns, team.size, [&](index_t start, int n) {
      A v[TILE];
      load_tile<packed>(from + start, n, team, A(0), v);
      squares += tile_squares<packed>(v, n, team, m);
    });
    const A s = A(1) / sqrt(team.reduce<Sum>(squares) / A(columns) + eps);
    tiles(columns, team.size, [&](index_t start, int n) {
      A v[TILE];
      load_tile<packed>(from + start, n, team, A(0), v);
      finish<packed>(v, start, n, team, m, s, p);
      store_tile<packed>(to + start, n, team, v);
    });
    if (team.thread == 0) {
      if (centred) mean[row] = m;
      scale[row] = s;
    }
  }
}

// --- the gradient of x ---------------------------------------------------------------------------

// With h = g * weight and z = (x - mean) * scale:
//   dx = scale * (h - average(h) - z * average(h * z)), for RMS norm without the first average.
// Source: J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", 2016, differentiated.
template <bool packed, typename Team>
__device__ __forceinline__ void load_terms(const T* g, const T* x, index_t start, int n, Team team,
                                           A m, A s, Parameters p, A (&h)[TILE], A (&z)[TILE]) {
  load_tile<packed>(g, n, team, A(0), h);
  load_tile<packed>(x, n, team, m, z);  // padded with the mean, so that z is 0 there
#pragma unroll
  for (int k = 0; k < TILE; ++k) z[k] = (z[k] - m) * s;
  if (p.has_weight) {
    A w[TILE];
    load_tile<packed>(p.weight + start, n, team, A(0), w);
#pragma unroll
    for (int k = 0; k < TILE; ++k) h[k] *= w[k];
  }
}

template <bool centred, bool packed, typename Team>
__device__ __forceinline__ void gradient_held(const T* g, const T* x, const A* mean,
                                              const A* scale, T* dx, Parameters p, index_t row,
                                              index_t columns, Team team, bool live) {
  const int n = int(columns);
  const A m = centred ? mean[row] : A(0), s = scale[row];
  A h[TILE], z[TILE];
  load_terms<packed>(g + row * columns, x + row * columns, 0, n, team, m, s, p, h, z);
  A sum = A(0), product = A(0);
#pragma unroll
  for (int k = 0; k < TILE; ++k) {
    sum += h[k];
    product += h[k] * z[k];
  }
  const A average = centred ? team.template reduce<Sum>(sum) / A(columns) : A(0);
  const A slope = team.template reduce<Sum>(product) / A(columns);
  if (!live) return;
#pragma unroll
  for (int k = 0; k < TILE; ++k) h[k] = s * (h[k] - average - z[k] * slope);
  store_tile<packed>(dx + row * columns, n, team, h);
}

template <bool centred, bool packed>
__device__ __forceinline__ void gradient_long(const T* g, const T* x, const A* mean,
                                              const A* scale, T* dx, Parameters p, index_t rows,
                                              index_t columns) {
  const Block team = this_block();
  for (index_t row = blockIdx.x; row < rows; row += gridDim.x) {
    // 0 for RMS norm, but not so that the compiler knows: it would keep so many loads in flight that
    // registers spill.
    const A s = scale[row], m = centred ? mean[row] : A(0) * s;
    A sum = A(0), product = A(0);
    tiles(columns, team.size, [&](index_t start, int n) {
      const index_t at = row * columns + start;
      A h[TILE], z[TILE];
      load_terms<packed>(g + at, x + at, start, n, team, m, s, p, h, z);
#pragma unroll
      for (int k = 0; k < TILE; ++k) {
        if (centred) sum += h[k];
        product += h[k] * z[k];
      }
    });
    const A average = centred ? team.reduce<Sum>(sum) / A(columns) : A(0);
    const A slope = team.reduce<Sum>(product) / A(columns);
    tiles(columns, team.size, [&](index_t start, int n) {
      const index_t at = row * columns + start;
      A h[TILE], z[TILE];
      load_terms<packed>(g + at, x + at, start, n, team, m, s, p, h, z);
#pragma unroll
      for (int k = 0; k < TILE; ++k) h[k] = s * (h[k] - average - z[k] * slope);
      store_tile<packed>(dx + at, n, team, h);
    });
  }
}

// --- the gradients of weight and bias ------------------------------------------------------------

// weights[strip, c] and biases[strip, c] are the sums over the strip's rows of g * z and of g, with
// z = (x - mean) * scale.
template <bool centred>
__device__ __forceinline__ void parameters(const T* __restrict__ g, const T* __restrict__ x,
                                           const A* __restrict__ mean, const A* __restrict__ scale,
                                           A* __restrict__ weights, A* __restrict__ biases,
                                           index_t rows, index_t columns, int across,
                                           index_t tiles) {
  const Place at(1, across, tiles);
  if (at.column >= columns) return;
  A weight = A(0), bias = A(0);
#pragma unroll 4
  for (index_t r = at.row; r < rows; r += at.step) {
    const A d = widen(g[r * columns + at.column]);
    const A m = centred ? mean[r] : A(0);
    weight += d * ((widen(x[r * columns + at.column]) - m) * scale[r]);
    bias += d;
  }
  weights[at.row * columns + at.column] = weight;
  biases[at.row * columns + at.column] = bias;
}

// --- kernels -------------------------------------------------------------------------------------

template <bool centred>
__device__ __forceinline__ void forward_short(const T* x, T* y, A* mean, A* scale, Parameters p,
                                              A eps, index_t rows, index_t columns, bool packed,
                                              int lanes) {
  rows_by_lanes(rows, lanes, [&](Lanes team, index_t row, bool live) {
    if (packed)
      value_held<centred, true>(x, y, mean, scale, p, eps, row, columns, team, live);
    else
      value_held<centred, false>(x, y, mean, scale, p, eps, row, columns, team, live);
  });
}
template <bool centred>
__device__ __forceinline__ void forward_row(const T* x, T* y, A* mean, A* scale, Parameters p,
                                            A eps, index_t rows, index_t columns, bool packed) {
  for (index_t row = blockIdx.x; row < rows; row += gridDim.x)
    if (packed)
      value_held<centred, true>(x, y, mean, scale, p, eps, row, columns, this_block(), true);
    else
      value_held<centred, false>(x, y, mean, scale, p, eps, row, columns, this_block(), true);
}
template <bool centred>
__device__ __forceinline__ void forward_long(const T* x, T* y, A* mean, A* scale, Parameters p,
                                             A eps, index_t rows, index_t columns, bool packed) {
  if (packed)
    value_long<centred, true>(x, y, mean, scale, p, eps, rows, columns);
  else
    value_long<centred, false>(x, y, mean, scale, p, eps, rows, columns);
}
template <bool centred>
__device__ __forceinline__ void backward_short(const T* g, const T* x, const A* mean,
                                               const A* scale, T* dx, Parameters p, index_t rows,
                                               index_t columns, bool packed, int lanes) {
  rows_by_lanes(rows, lanes, [&](Lanes team, index_t row, bool live) {
    if (packed)
      gradient_held<centred, true>(g, x, mean, scale, dx, p, row, columns, team, live);
    else
      gradient_held<centred, false>(g, x, mean, scale, dx, p, row, columns, team, live);
  });
}
template <bool centred>
__device__ __forceinline__ void backward_row(const T* g, const T* x, const A* mean, const A* scale,
                                             T* dx, Parameters p, index_t rows, index_t columns,
                                             bool packed) {
  for (index_t row = blockIdx.x; row < rows; row += gridDim.x)
    if (packed)
      gradient_held<centred, true>(g, x, mean, scale, dx, p, row, columns, this_block(), true);
    else
      gradient_held<centred, false>(g, x, mean, scale, dx, p, row, columns, this_block(), true);
}
template <bool centred>
__device__ __forceinline__ void backward_long(const T* g, const T* x, const A* mean,
                                              const A* scale, T* dx, Parameters p, index_t rows,
                                              index_t columns, bool packed) {
  if (packed)
    gradient_long<centred, true>(g, x, mean, scale, dx, p, rows, columns);
  else
    gradient_long<centred, false>(g, x, mean, scale, dx, p, rows, columns);
}

#define KERNELS(name, centred)                                                                     \
extern "C" __global__ void __launch_bounds__(256, 1)                                               \
name##_forward_short(const T* x, const T* weight, const T* bias, T* y, A* mean, A* scale, A eps,   \
    int has_weight, int has_bias, int packed, index_t rows, index_t columns, index_t lanes) {      \
  const Parameters p = {weight, bias, has_weight != 0, has_bias != 0};                             \
  forward_short<centred>(x, y, mean, scale, p, eps, rows, columns, packed != 0, int(lanes));       \
}                                                                                                  \
extern "C" __global__ void __launch_bounds__(256, 1)                                               \
name##_backward_short(const T* g, const T* x, const T* weight, const A* mean, const A* scale,      \
    T* dx, int has_weight, int packed, index_t rows, index_t columns, index_t lanes) {             \
  const Parameters p = {weight, weight, has_weight != 0, false};                                   \
  backward_short<centred>(g, x, mean, scale, dx, p, rows, columns, packed != 0, int(lanes));       \
}                                                                                                  \
extern "C" __global__ void __launch_bounds__(512, 1)                                               \
name##_forward_row(const T* x, const T* weight, const T* bias, T* y, A* mean, A* scale, A eps,     \
    int has_weight, int has_bias, int packed, index_t rows, index_t columns) {                     \
  const Parameters p = {weight, bias, has_weight != 0, has_bias != 0};                             \
  forward_row<centred>(x, y, mean, scale, p, eps, rows, columns, packed != 0);                     \
}                                                                                                  \
extern "C" __global__ void __launch_bounds__(512, 1)                                               \
name##_backward_row(const T* g, const T* x, const T* weight, const A* mean, const A* scale, T* dx, \
    int has_weight, int packed, index_t rows, index_t columns) {                                   \
  const Parameters p = {weight, weight, has_weight != 0, false};                                   \
  backward_row<centred>(g, x, mean, scale, dx, p, rows, columns, packed != 0);                     \
}                                                                                                  \
extern "C" __global__ void __launch_bounds__(512, 1)                                               \
name##_forward_long(const T* x, const T* weight, const T* bias, T* y, A* mean, A* scale, A eps,    \
    int has_weight, int has_bias, int packed, index_t rows, index_t columns) {                     \
  const Parameters p = {weight, bias, has_weight != 0, has_bias != 0};                             \
  forward_long<centred>(x, y, mean, scale, p, eps, rows, columns, packed != 0);                    \
}                                                                                                  \
extern "C" __global__ void __launch_bounds__(512, 1)                                               \
name##_backward_long(const T* g, const T* x, const T* weight, const A* mean, const A* scale,       \
    T* dx, int has_weight, int packed, index_t rows, index_t columns) {                            \
  const Parameters p = {weight, weight, has_weight != 0, false};                                   \
  backward_long<centred>(g, x, mean, scale, dx, p, rows, columns, packed != 0);                    \
}                                                                                                  \
extern "C" __global__ void __launch_bounds__(256)                                                  \
name##_parameters(const T* g, const T* x, const A* mean, const A* scale, A* weights, A* biases,    \
    index_t rows, index_t columns, int across, index_t tiles) {                                    \
  parameters<centred>(g, x, mean, scale, weights, biases, rows, columns, across, tiles);           \
}

KERNELS(layer_norm, true)
KERNELS(rms_norm, false)
