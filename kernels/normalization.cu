// Layer norm and RMS norm along the rows of a matrix, and their gradients.
//
// The value has kernels by the length of the rows: `_short` for rows that some lanes of a warp hold
// in registers, `_row` for those that a block holds. Longer ones are read twice, in parts that a
// block holds: by `_parts`, which leaves their means and squares, and by `_long`.
//
// The gradients are made in one pass, too: a block has many rows, and its threads, which meet the
// same columns in each, add up in registers what these contribute to the gradients of weight and
// bias; sums.cu adds up the blocks' sums. `_wide` is `_row` for 256 to 1024 threads with fewer
// registers, so that they leave room for other blocks: it takes rows that can be read in packs, of up
// to 8192 columns and not of double, and loads the weight with each. Longer rows (of double more than
// 2048 columns, unaligned ones more than 4096) are read twice: by `_long`, which leaves the two sums
// that dx needs, and by `_apply`, whose blocks have a window of columns.
//
// mean and scale (1 / standard deviation, or 1 / root mean square) have one number for each row. RMS
// norm is layer norm with the mean taken for 0.
#include "rows.cuh"

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

// Of longer rows. A block holds a part, and leaves its mean and the sum of squared distances from that.
template <bool centred, bool packed>
__device__ __forceinline__ void value_parts(const T* x, Pair* found, index_t rows, index_t columns,
                                            index_t parts) {
  const Block team = this_block();
  for (index_t at = blockIdx.x; at < rows * parts; at += gridDim.x) {
    const Part part(columns, at % parts, parts);
    const int n = int(part.columns);
    A v[TILE];
    load_tile<packed>(x + at / parts * columns + part.begin, n, team, A(0), v);
    const A m = centred ? team.reduce<Sum>(tile_sum(v)) / A(n) : A(0);
    const A squares = team.reduce<Sum>(tile_squares<packed>(v, n, team, m));
    if (team.thread == 0) found[at] = {m, squares};
  }
}

// Mean of the row and sum of squared distances from it (Chan, Golub and LeVeque, 1979).
template <bool centred>
__device__ __forceinline__ Pair joined_parts(const Pair* found, index_t columns, index_t parts) {
  A mean = A(0), squares = A(0);
  if (centred) {
    for (index_t p = 0; p < parts; ++p) mean += found[p].first * A(Part(columns, p, parts).columns);
    mean /= A(columns);
  }
  for (index_t p = 0; p < parts; ++p) {
    squares += found[p].second;
    if (centred) {
      const A off = found[p].first - mean;
      squares += off * off * A(Part(columns, p, parts).columns);
    }
  }
  return {mean, squares};
}

template <bool centred, bool packed>
__device__ __forceinline__ void value_long(const T* x, T* y, A* mean, A* scale, Parameters p,
                                           A eps, const Pair* found, index_t rows, index_t columns,
                                           index_t parts) {
  const Block team = this_block();
  for (index_t at = blockIdx.x; at < rows * parts; at += gridDim.x) {
    const index_t row = at / parts;
    const Part part(columns, at % parts, parts);
    const int n = int(part.columns);
    const index_t from = row * columns + part.begin;
    A v[TILE];
    load_tile<packed>(x + from, n, team, A(0), v);
    const Pair all = joined_parts<centred>(found + row * parts, columns, parts);
    const A s = A(1) / sqrt(all.second / A(columns) + eps);
    finish<packed>(v, part.begin, n, team, all.first, s, p);
    store_tile<packed>(y + from, n, team, v);
    if (team.thread == 0 && part.begin == 0) {
      if (centred) mean[row] = all.first;
      scale[row] = s;
    }
  }
}

// --- the gradients -------------------------------------------------------------------------------

// With h = g * weight and z = (x - mean) * scale:
//   dx = scale * (h - average(h) - z * average(h * z)), for RMS norm without the first average;
//   the gradients of weight and bias are the sums over the rows of g * z and of g.
// Source: J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", 2016, differentiated.
struct Backward {
  const T *g, *x, *weight;  // weight is not read unless has_weight
  const A *mean, *scale;    // the mean is not read for RMS norm
  T* dx;
  A *weights, *biases;  // [blocks, columns]: what the rows of each block add to these gradients
  bool has_weight, has_dx, has_sums;
  index_t rows, columns;
  const Pair* joint;  // [rows, parts]: of longer rows, each part's sums of h and h * z
  index_t parts;

  __device__ __forceinline__ Pair joined(index_t row) const {
    Pair all = joint[row * parts];
    for (index_t p = 1; p < parts; ++p) {
      all.first += joint[row * parts + p].first;
      all.second += joint[row * parts + p].second;
    }
    return all;
  }
};

// What a thread adds up over the rows that it meets, of its columns. RMS norm has no bias.
struct ColumnSums {
  A weight[TILE], bias[TILE];

  __device__ __forceinline__ ColumnSums() {
#pragma unroll
    for (int k = 0; k < TILE; ++k) weight[k] = bias[k] = A(0);
  }
};

template <bool packed, typename Team>
__device__ __forceinline__ void load_weight(const T* weight, bool there, int n, Team team,
                                            A (&w)[TILE]) {
  if (there) return load_tile<packed>(weight, n, team, A(0), w);
#pragma unroll
  for (int k = 0; k < TILE; ++k) w[k] = A(1);
}

// What a team has of every row that it meets: n columns from `begin` on, all that there are but in
// `_apply`.
struct Window {
  index_t begin;
  int n;
};

// Where the weight and a row's averages come from: the weight stays in registers, or is loaded with
// each row, and the team makes the averages; or `_long` has made them.
enum Kind { HELD, RELOADED, APPLIED };

// A row, or a window of it, that its team holds.
template <bool centred, bool packed, Kind kind, typename Team>
__device__ __forceinline__ void gradient(const Backward& b, const A (&held)[TILE],
                                         ColumnSums& sums, index_t row, Window part, Team team,
                                         bool live) {
  const index_t at = row * b.columns + part.begin;
  const A m = centred ? b.mean[row] : A(0), s = b.scale[row];
  A h[TILE], z[TILE], w[TILE];
  load_tile<packed>(b.g + at, part.n, team, A(0), h);
  load_tile<packed>(b.x + at, part.n, team, m, z);
  if (kind == RELOADED) load_weight<packed>(b.weight, b.has_weight, part.n, team, w);
  A sum = A(0), product = A(0);
#pragma unroll
  for (int k = 0; k < TILE; ++k) {
    z[k] = (z[k] - m) * s;
    if (live) {
      sums.weight[k] += h[k] * z[k];
      if (centred) sums.bias[k] += h[k];
    }
    h[k] *= kind == RELOADED ? w[k] : held[k];
    sum += h[k];
    product += h[k] * z[k];
  }
  const Pair all = kind == APPLIED ? b.joined(row)
                   : centred       ? team.sums(sum, product)
                                   : Pair{A(0), team.template reduce<Sum>(product)};
  if (!live || !b.has_dx) return;
  const A average = centred ? all.first / A(b.columns) : A(0), slope = all.second / A(b.columns);
#pragma unroll
  for (int k = 0; k < TILE; ++k) h[k] = s * (h[k] - average - z[k] * slope);
  store_tile<packed>(b.dx + at, part.n, team, h);
}

// Sums of a row's elements, stored 16 bytes at a time where the row can be read so.
template <bool packed, typename Team>
__device__ __forceinline__ void store_sums(A* to, int n, Team team, const A (&v)[TILE]) {
  constexpr int together = packed ? Pack<A>::size : 1;
#pragma unroll
  for (int k = 0; k < TILE; k += together) {
    const int i = place_of<packed>(k, team.size, team.thread);
    if (i >= n) continue;
    if constexpr (packed) {
      Pack<A> out;
#pragma unroll
      for (int j = 0; j < together; ++j) out.at[j] = v[k + j];
      store_pack(to + i, out);
    } else {
      to[i] = v[k];
    }
  }
}

// The same of teams of lanes, of which a block has several: added up over the lanes of a warp that
// have the same columns, then over the warps, in order.
template <bool packed>
__device__ __forceinline__ void store_lane_sums(A* to, int n, Lanes team, A (&v)[TILE]) {
  __shared__ A warps[8][32 * TILE];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
  for (int k = 0; k < TILE; ++k) {
    for (int offset = team.size; offset < 32; offset <<= 1)
      v[k] += __shfl_xor_sync(WHOLE_WARP, v[k], offset);
    const int i = place_of<packed>(k, team.size, team.thread);
    if (lane < team.size && i < n) warps[warp][i] = v[k];
  }
  __syncthreads();
  for (int c = threadIdx.x; c < n; c += blockDim.x) {
    A sum = warps[0][c];
    for (int w = 1; w < 8; ++w) sum += warps[w][c];
    to[c] = sum;
  }
  __syncthreads();  // before the next sums take the place of these
}

template <bool centred, bool packed>
__device__ __forceinline__ void gradient_short(const Backward& b, int lanes) {
  const Window all = {0, int(b.columns)};
  const Lanes mine = {lanes, int(threadIdx.x) & (lanes - 1)};
  A w[TILE];
  load_weight<packed>(b.weight, b.has_weight, all.n, mine, w);
  ColumnSums sums;
  rows_by_lanes(b.rows, lanes, [&](Lanes team, index_t row, bool live) {
    gradient<centred, packed, HELD>(b, w, sums, row, all, team, live);
  });
  if (!b.has_sums) return;
  store_lane_sums<packed>(b.weights + blockIdx.x * b.columns, all.n, mine, sums.weight);
  if (centred) store_lane_sums<packed>(b.biases + blockIdx.x * b.columns, all.n, mine, sums.bias);
}

// The rows of strip number `strip` of `strips`: every so manieth.
template <bool centred, bool packed, Kind kind>
__device__ __forceinline__ void gradient_strip(const Backward& b, Window part, index_t strip,
                                               index_t strips) {
  const Block team = this_block();
  A w[TILE];
  if (kind != RELOADED)
    load_weight<packed>(b.weight + part.begin, b.has_weight, part.n, team, w);
  ColumnSums sums;
  for (index_t row = strip; row < b.rows; row += strips)
    gradient<centred, packed, kind>(b, w, sums, row, part, team, true);
  if (!b.has_sums) return;
  const index_t to = strip * b.columns + part.begin;
  store_sums<packed>(b.weights + to, part.n, team, sums.weight);
  if (centred) store_sums<packed>(b.biases + to, part.n, team, sums.bias);
}

template <bool centred, bool packed, Kind kind>
__device__ __forceinline__ void gradient_row(const Backward& b) {
  gradient_strip<centred, packed, kind>(b, {0, int(b.columns)}, blockIdx.x, gridDim.x);
}

// --- the gradients of longer rows ----------------------------------------------------------------

// Each block makes the sums of h and of h * z of a part of a row.
template <bool centred, bool packed>
__device__ __forceinline__ void gradient_long(const Backward& b, Pair* sums) {
  const Block team = this_block();
  for (index_t at = blockIdx.x; at < b.rows * b.parts; at += gridDim.x) {
    const index_t row = at / b.parts;
    const A m = centred ? b.mean[row] : A(0), s = b.scale[row];
    const Part part(b.columns, at % b.parts, b.parts);
    A sum = A(0), product = A(0);
    tiles(part.columns, team.size, [&](index_t start, int n) {
      const index_t column = part.begin + start, from = row * b.columns + column;
      A h[TILE], z[TILE], w[TILE];
      load_tile<packed>(b.g + from, n, team, A(0), h);
      load_tile<packed>(b.x + from, n, team, m, z);
      load_weight<packed>(b.weight + column, b.has_weight, n, team, w);
#pragma unroll
      for (int k = 0; k < TILE; ++k) {
        h[k] *= w[k];
        if (centred) sum += h[k];
        product += h[k] * ((z[k] - m) * s);
      }
    });
    const Pair all = team.sums(sum, product);
    if (team.thread == 0) sums[at] = all;
  }
}

// Blocks are numbered window by window along a row, strip by strip downwards.
template <bool centred, bool packed>
__device__ __forceinline__ void gradient_apply(const Backward& b) {
  const index_t whole = index_t(TILE) * blockDim.x;
  const index_t windows = (b.columns + whole - 1) / whole;
  const index_t begin = blockIdx.x % windows * whole, left = b.columns - begin;
  gradient_strip<centred, packed, APPLIED>(b, {begin, int(left < whole ? left : whole)},
                                           blockIdx.x / windows, gridDim.x / windows);
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
#define KERNELS(name, centred)                                                                     \
extern "C" __global__ void __launch_bounds__(256, 1)                                               \
name##_forward_short(const T* x, const T* weight, const T* bias, T* y, A* mean, A* scale, A eps,   \
    int has_weight, int has_bias, int packed, index_t rows, index_t columns, index_t lanes) {      \
  const Parameters p = {weight, bias, has_weight != 0, has_bias != 0};                             \
  forward_short<centred>(x, y, mean, scale, p, eps, rows, columns, packed != 0, int(lanes));       \
}                                                                                                  \
extern "C" __global__ void __launch_bounds__(1024, 1)                                              \
name##_forward_row(const T* x, const T* weight, const T* bias, T* y, A* mean, A* scale, A eps,     \
    int has_weight, int has_bias, int packed, index_t rows, index_t columns) {                     \
  const Parameters p = {weight, bias, has_weight != 0, has_bias != 0};                             \
  forward_row<centred>(x, y, mean, scale, p, eps, rows, columns, packed != 0);                     \
}                                                                                                  \
extern "C" __global__ void __launch_bounds__(512, 1)                                               \
name##_forward_parts(const T* x, A* found, int packed, index_t rows, index_t columns,              \
    index_t parts) {                                                                               \
  Pair* to = reinterpret_cast<Pair*>(found);                                                       \
  if (packed)                                                                                      \
    value_parts<centred, true>(x, to, rows, columns, parts);                                       \
  else                                                                                             \
    value_parts<centred, false>(x, to, rows, columns, parts);                                      \
}                                                                                                  \
extern "C" __global__ void __launch_bounds__(512, 1)                                               \
name##_forward_long(const T* x, const T* weight, const T* bias, T* y, A* mean, A* scale, A eps,    \
    int has_weight, int has_bias, int packed, index_t rows, index_t columns, const A* found,       \
    index_t parts) {                                                                               \
  const Parameters p = {weight, bias, has_weight != 0, has_bias != 0};                             \
  const Pair* of = reinterpret_cast<const Pair*>(found);                                           \
  if (packed)                                                                                      \
    value_long<centred, true>(x, y, mean, scale, p, eps, of, rows, columns, parts);                \
  else                                                                                             \
    value_long<centred, false>(x, y, mean, scale, p, eps, of, rows, columns, parts);               \
}                                                                                                  \
extern "C" __global__ void __launch_bounds__(256, 1)                                               \
name##_backward_short(const T* g, const T* x, const T* weight, const A* mean, const A* scale,      \
    T* dx, A* weights, A* biases, int has_weight, int has_dx, int has_sums, int packed,            \
    index_t rows, index_t columns, index_t lanes) {                                                \
  const Backward b = {g, x, weight, mean, scale, dx, weights, biases, has_weight != 0,             \
                      has_dx != 0, has_sums != 0, rows, columns, nullptr, 0};                      \
  if (packed)                                                                                      \
    gradient_short<centred, true>(b, int(lanes));                                                  \
  else                                                                                             \
    gradient_short<centred, false>(b, int(lanes));                                                 \
}                                                                                                  \
extern "C" __global__ void __launch_bounds__(512, 1)                                               \
name##_backward_row(const T* g, const T* x, const T* weight, const A* mean, const A* scale,        \
    T* dx, A* weights, A* biases, int has_weight, int has_dx, int has_sums, int packed,            \
    index_t rows, index_t columns) {                                                               \
  const Backward b = {g, x, weight, mean, scale, dx, weights, biases, has_weight != 0,             \
                      has_dx != 0, has_sums != 0, rows, columns, nullptr, 0};                      \
  if (packed)                                                                                      \
    gradient_row<centred, true, HELD>(b);                                                          \
  else                                                                                             \
    gradient_row<centred, false, HELD>(b);                                                         \
}                                                                                                  \
extern "C" __global__ void __launch_bounds__(1024, 1)                                              \
name##_backward_wide(const T* g, const T* x, const T* weight, const A* mean, const A* scale,       \
    T* dx, A* weights, A* biases, int has_weight, int has_dx, int has_sums, int,                   \
    index_t rows, index_t columns) {                                                               \
  const Backward b = {g, x, weight, mean, scale, dx, weights, biases, has_weight != 0,             \
                      has_dx != 0, has_sums != 0, rows, columns, nullptr, 0};                      \
  if constexpr (sizeof(T) < 8) gradient_row<centred, true, RELOADED>(b);                           \
}                                                                                                  \
extern "C" __global__ void __launch_bounds__(512, 1)                                               \
name##_backward_long(const T* g, const T* x, const T* weight, const A* mean, const A* scale,       \
    T* dx, A* weights, A* biases, int has_weight, int has_dx, int has_sums, int packed,            \
    index_t rows, index_t columns, A* sums, index_t parts) {                                       \
  const Backward b = {g, x, weight, mean, scale, dx, weights, biases, has_weight != 0,             \
                      has_dx != 0, has_sums != 0, rows, columns, nullptr, parts};                  \
  if (packed)                                                                                      \
    gradient_long<centred, true>(b, reinterpret_cast<Pair*>(sums));                                \
  else                                                                                             \
    gradient_long<centred, false>(b, reinterpret_cast<Pair*>(sums));                               \
}                                                                                                  \
extern "C" __global__ void __launch_bounds__(512, 1)                                               \
name##_backward_apply(const T* g, const T* x, const T* weight, const A* mean, const A* scale,      \
    T* dx, A* weights, A* biases, int has_weight, int has_dx, int has_sums, int packed,            \
    index_t rows, index_t columns, const A* sums, index_t parts) {                                 \
  const Backward b = {g, x, weight, mean, scale, dx, weights, biases, has_weight != 0,             \
                      has_dx != 0, has_sums != 0, rows, columns,                                   \
                      reinterpret_cast<const Pair*>(sums), parts};                                 \
  if (packed)                                                                                      \
    gradient_apply<centred, true>(b);                                                              \
  else                                                                                             \
    gradient_apply<centred, false>(b);                                                             \
}

KERNELS(layer_norm, true)
KERNELS(rms_norm, false)
