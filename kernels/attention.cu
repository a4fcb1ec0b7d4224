// Attention: softmax(q k^T scale + mask) v, tile by tile, so that no matrix of scores is ever in memory.
//
// A block owns some queries (in the gradient of keys and values: some keys) of one head and goes
// through the others in tiles. Forward, the largest score of a row and the sum of its exponentials
// are kept up to date on the way; what is kept for the gradient is the logarithm of that sum, `level`,
// infinite where a query sees no key. Backward, the weights are computed again from it, and
// d scores = weights (d weights - delta), where delta is the row's sum of g y. Sources: Milakov and
// Gimelshein, "Online normalizer calculation for softmax" (2018); Dao, "FlashAttention-2" (2023).
//
// The value in tensorgrad/ops/attention_blocks.py is the definition.
#include "attention.cuh"

// --- forward --------------------------------------------------------------------------------------

template <int D, typename E>
__device__ __forceinline__ void forward(const Call& c, const E* q, const E* k, const E* v, E* y,
                                        float* level, const Lies& of_q, const Lies& of_k,
                                        const Lies& of_v, const Lies& of_y) {
  using P = Plan<E, D>;
  constexpr int N = P::GROUPS;
  __shared__ __align__(16) E memory[P::OWN + 2 * P::FORWARD * D];
  E *keys = memory + P::OWN, *values = keys + P::FORWARD * D;
  E* own = P::OWN == 0 ? keys : memory;
  const index_t blocks = (c.rows + P::ROWS - 1) / P::ROWS;
  const index_t items = c.size[0] * c.size[1] * c.size[2] * blocks;
  const int g = lane_number() >> 2, t = lane_number() & 3;
  for (index_t item = blockIdx.x; item < items; item += gridDim.x) {
    const Head head = head_of(c.size, item / blocks);
    const index_t first = (blocks - 1 - item % blocks) * P::ROWS;  // the longest before the others
    const index_t mine = first + 16 * warp_number() + g;
    const index_t hidden = c.masked.of(head.at), place = head.number * c.rows + mine;
    const uint64 words[2] = {c.position + uint64(place * c.words),
                             c.position + uint64((place + 8) * c.words)};
    const E *all_k = k + of_k.of(head.at), *all_v = v + of_v.of(head.at);
    read_tile<E, D, P::ROWS, P::THREADS>(own, q + of_q.of(head.at) + first * of_q.row, of_q.row,
                                         c.rows - first, c.width, c.packed);
    __syncthreads();
    Owned<E, D, P::WARPS, P::KEPT> queries;
    queries.take(own);
    Sums<E, D, P::WARPS> sums;
    sums.clear();
    float top[2] = {-infinity<float>(), -infinity<float>()}, total[2] = {0, 0}, low[2] = {0, 0};
    const index_t end = c.causal && first + P::ROWS < c.columns ? first + P::ROWS : c.columns;
    for (index_t j = 0; j < end; j += P::FORWARD) {
      __syncthreads();  // what was there may still be being read
      read_tile<E, D, P::FORWARD, P::THREADS>(keys, all_k + j * of_k.row, of_k.row, c.columns - j,
                                              c.width, c.packed);
      read_tile<E, D, P::FORWARD, P::THREADS>(values, all_v + j * of_v.row, of_v.row,
                                              c.columns - j, c.value_width, c.packed);
      __syncthreads();
#pragma unroll 1
      for (int part = 0; part < P::FORWARD; part += 16 * N) {
        Piece s[N];
        queries.times(s, keys, part / 16);
        const bool all = c.hiding == NOTHING && j + P::FORWARD <= c.columns &&
                         !(c.causal && j + P::FORWARD - 1 > first);
        float most[2] = {top[0], top[1]};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const Seen seen = keys_seen(c, hidden, mine + 8 * half, j);
#pragma unroll
          for (int n = 0; n < N; ++n) {
            float(&x)[4] = s[n].at[half];
#pragma unroll
            for (int i = 0; i < 4; ++i) x[i] *= c.scale;
            if (!all) hide(c, seen, x, part + 16 * n + 4 * t);
#pragma unroll
            for (int i = 0; i < 4; ++i) most[half] = fmaxf(most[half], x[i]);
          }
        }
        float shrink[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          most[half] = quad_reduce<Max>(most[half]);
          low[half] = most[half] == -infinity<float>() ? 0.0f : most[half];
          shrink[half] = exponential(top[half] - low[half]);
          top[half] = most[half];
          total[half] *= shrink[half];
        }
        sums.scale(shrink);
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            float(&x)[4] = s[n].at[half];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              x[i] = exponential(x[i] - low[half]);
              total[half] += x[i];
            }
            if (c.drops) {
              float kept[4];
              kept_in_row(c, words[half] + uint64(j), part + 16 * n + 4 * t, kept);
#pragma unroll
              for (int i = 0; i < 4; ++i) x[i] *= kept[i];
            }
          }
          sums.add(s[n], values, part / 16 + n);
        }
      }
    }
    float by[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      total[half] = quad_reduce<Sum>(total[half]);
      const bool none = total[half] == 0.0f;
      by[half] = none ? 0.0f : 1.0f / total[half];
      const index_t row = mine + 8 * half;
      if (t == 0 && row < c.rows)
        level[head.number * c.rows + row] =
            none ? infinity<float>() : low[half] + logf(total[half]);
    }
    __syncthreads();
    sums.put(own, by);
    __syncthreads();
    write_tile<E, D, P::ROWS, P::THREADS>(own, y + of_y.of(head.at) + first * of_y.row, of_y.row,
                                          c.rows - first, c.value_width, c.packed);
    __syncthreads();
  }
}

// --- backward -------------------------------------------------------------------------------------

// The weight of a score; of a hidden one, and in a row that sees nothing, 0.
__device__ __forceinline__ float weight_of(float score, float level) {
  const bool none = level == infinity<float>() || score == -infinity<float>();
  return none ? 0.0f : exponential(score - level);
}

// d score, of a weight and what dropout made of it: 0 where the weight is.
__device__ __forceinline__ float slope_of(float weight, float dropped, float d, float delta) {
  return weight == 0.0f ? 0.0f : dropped * d - weight * delta;
}

template <int D, typename E>
__device__ __forceinline__ void of_queries(const Call& c, const E* q, const E* k, const E* v,
                                           const E* g, const float* level, const float* delta,
                                           E* dq, const Lies& of_q, const Lies& of_k,
                                           const Lies& of_v, const Lies& of_g,
                                           const Lies& of_dq) {
  using P = Plan<E, D>;
  __shared__ __align__(16) E memory[2 * P::OWN + 2 * P::QUERIES * D];
  E *keys = memory + 2 * P::OWN, *values = keys + P::QUERIES * D;
  E *own = P::OWN == 0 ? keys : memory, *own_g = P::OWN == 0 ? values : memory + P::OWN;
  const index_t blocks = (c.rows + P::ROWS - 1) / P::ROWS;
  const index_t items = c.size[0] * c.size[1] * c.size[2] * blocks;
  const int t = lane_number() & 3;
  for (index_t item = blockIdx.x; item < items; item += gridDim.x) {
    const Head head = head_of(c.size, item / blocks);
    const index_t first = (blocks - 1 - item % blocks) * P::ROWS;
    const index_t mine = first + 16 * warp_number() + (lane_number() >> 2);
    const index_t hidden = c.masked.of(head.at), place = head.number * c.rows + mine;
    const E *all_k = k + of_k.of(head.at), *all_v = v + of_v.of(head.at);
    read_tile<E, D, P::ROWS, P::THREADS>(own, q + of_q.of(head.at) + first * of_q.row, of_q.row,
                                         c.rows - first, c.width, c.packed);
    read_tile<E, D, P::ROWS, P::THREADS>(own_g, g + of_g.of(head.at) + first * of_g.row, of_g.row,
                                         c.rows - first, c.value_width, c.packed);
    __syncthreads();
    Owned<E, D, P::WARPS, P::KEPT> queries, gradients;
    queries.take(own);
    gradients.take(own_g);
    Sums<E, D, P::WARPS> sums;
    sums.clear();
    float levels[2], deltas[2], by[2];
    uint64 words[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const bool there = mine + 8 * half < c.rows;
      levels[half] = there ? level[place + 8 * half] : infinity<float>();
      deltas[half] = there ? delta[place + 8 * half] : 0.0f;
      by[half] = levels[half] == infinity<float>() ? 0.0f : c.scale;
      words[half] = c.position + uint64((place + 8 * half) * c.words);
    }
    const index_t end = c.causal && first + P::ROWS < c.columns ? first + P::ROWS : c.columns;
    for (index_t j = 0; j < end; j += P::QUERIES) {
      __syncthreads();
      read_tile<E, D, P::QUERIES, P::THREADS>(keys, all_k + j * of_k.row, of_k.row, c.columns - j,
                                               c.width, c.packed);
      read_tile<E, D, P::QUERIES, P::THREADS>(values, all_v + j * of_v.row, of_v.row,
                                               c.columns - j, c.value_width, c.packed);
      __syncthreads();
      const bool all = c.hiding == NOTHING && j + P::QUERIES <= c.columns &&
                       !(c.causal && j + P::QUERIES - 1 > first);
#pragma unroll 1
      for (int part = 0; part < P::QUERIES; part += 16) {
        Piece s[1], d[1];
        queries.times(s, keys, part / 16);
        gradients.times(d, values, part / 16);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float(&x)[4] = s[0].at[half], kept[4] = {1, 1, 1, 1};
#pragma unroll
          for (int i = 0; i < 4; ++i) x[i] *= c.scale;
          if (!all) hide(c, keys_seen(c, hidden, mine + 8 * half, j), x, part + 4 * t);
          if (c.drops) kept_in_row(c, words[half] + uint64(j), part + 4 * t, kept);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float weight = weight_of(x[i], levels[half]);
            x[i] = slope_of(weight, weight * kept[i], d[0].at[half][i], deltas[half]);
          }
        }
        sums.add(s[0], keys, part / 16);
      }
    }
    __syncthreads();
    sums.put(own, by);
    __syncthreads();
    write_tile<E, D, P::ROWS, P::THREADS>(own, dq + of_dq.of(head.at) + first * of_dq.row,
                                          of_dq.row, c.rows - first, c.width, c.packed);
    __syncthreads();
  }
}

// `shared` heads along each axis have the same keys and values, whose gradients are added up here.
template <int D, typename E>
__device__ __forceinline__ void of_keys(const Call& c, index_t shared0, index_t shared1,
                                        index_t shared2, const E* q, const E* k, const E* v, const E* g, const float* level,
                                        const float* delta, E* dk, E* dv, const Lies& of_q,
                                        const Lies& of_k, const Lies& of_v, const Lies& of_g,
                                        const Lies& of_dk, const Lies& of_dv) {
  using P = Plan<E, D>;
  __shared__ __align__(16) E memory[2 * P::KEYS_OWN + 2 * P::KEYS * D];
  E *queries = memory + 2 * P::KEYS_OWN, *gradients = queries + P::KEYS * D;
  E *own = P::KEYS_OWN == 0 ? queries : memory, *own_v = P::KEYS_OWN == 0 ? gradients : memory + P::KEYS_OWN;
  const index_t shared[3] = {shared0, shared1, shared2};
  const index_t apart[3] = {c.size[0] / shared[0], c.size[1] / shared[1], c.size[2] / shared[2]};
  const index_t blocks = (c.columns + P::ROWS - 1) / P::ROWS;
  const index_t items = apart[0] * apart[1] * apart[2] * blocks;
  const index_t turns = shared[0] * shared[1] * shared[2];
  const int t = lane_number() & 3;
  for (index_t item = blockIdx.x; item < items; item += gridDim.x) {
    const Head ours = head_of(apart, item / blocks);
    const index_t first = item % blocks * P::ROWS;
    const index_t mine = first + 16 * warp_number() + (lane_number() >> 2);
    read_tile<E, D, P::ROWS, P::THREADS>(own, k + of_k.of(ours.at) + first * of_k.row, of_k.row,
                                         c.columns - first, c.width, c.packed);
    read_tile<E, D, P::ROWS, P::THREADS>(own_v, v + of_v.of(ours.at) + first * of_v.row, of_v.row,
                                         c.columns - first, c.value_width, c.packed);
    __syncthreads();
    Owned<E, D, P::WARPS, P::KEYS_KEPT> keys, values;
    keys.take(own);
    values.take(own_v);
    Sums<E, D, P::WARPS> of_k_sums, of_v_sums;
    of_k_sums.clear();
    of_v_sums.clear();
    for (index_t turn = 0; turn < turns; ++turn) {
      const Head other = head_of(shared, turn);
      const index_t at[3] = {ours.at[0] + other.at[0], ours.at[1] + other.at[1],
                             ours.at[2] + other.at[2]};
      const index_t hidden = c.masked.of(at);
      const index_t place = ((at[0] * c.size[1] + at[1]) * c.size[2] + at[2]) * c.rows;
      const E *all_q = q + of_q.of(at), *all_g = g + of_g.of(at);
      const index_t begin = c.causal ? first / P::KEYS * P::KEYS : 0;
      for (index_t j = begin; j < c.rows; j += P::KEYS) {
        __syncthreads();
        read_tile<E, D, P::KEYS, P::THREADS>(queries, all_q + j * of_q.row, of_q.row,
                                                 c.rows - j, c.width, c.packed, level + place + j);
        read_tile<E, D, P::KEYS, P::THREADS>(gradients, all_g + j * of_g.row, of_g.row,
                                                 c.rows - j, c.value_width, c.packed,
                                                 level + place + j);
        __syncthreads();
        const bool all = c.hiding == NOTHING && j + P::KEYS <= c.rows &&
                         first + P::ROWS <= c.columns && !(c.causal && first + P::ROWS - 1 > j);
#pragma unroll 1
        for (int part = 0; part < P::KEYS; part += 16) {
          const index_t row = j + part + 4 * t;
          float numbers[4];
#pragma unroll
          for (int i = 0; i < 4; ++i)
            numbers[i] = row + i < c.rows ? level[place + row + i] : infinity<float>();
          Piece s[1], d[1], dropped;
          keys.times(s, queries, part / 16);
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            float(&x)[4] = s[0].at[half];
            const index_t key = mine + 8 * half;
#pragma unroll
            for (int i = 0; i < 4; ++i) x[i] *= c.scale;
            if (!all) hide(c, queries_seen(c, hidden, key, j), x, part + 4 * t);
            float kept[4] = {1, 1, 1, 1};
            if (c.drops)
              kept_in_column(c, c.position + uint64((place + row) * c.words), key, kept);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              x[i] = weight_of(x[i], numbers[i]);
              dropped.at[half][i] = x[i] * kept[i];
            }
          }
          of_v_sums.add(dropped, gradients, part / 16);
#pragma unroll
          for (int i = 0; i < 4; ++i)
            numbers[i] = row + i < c.rows ? delta[place + row + i] : 0.0f;
          values.times(d, gradients, part / 16);
#pragma unroll
          for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int i = 0; i < 4; ++i)
              d[0].at[half][i] = slope_of(s[0].at[half][i], dropped.at[half][i], d[0].at[half][i],
                                          numbers[i]);
          of_k_sums.add(d[0], queries, part / 16);
        }
      }
    }
    const float by[2] = {c.scale, c.scale}, one[2] = {1, 1};
    __syncthreads();
    of_k_sums.put(own, by);
    of_v_sums.put(own_v, one);
    __syncthreads();
    write_tile<E, D, P::ROWS, P::THREADS>(own, dk + of_dk.of(ours.at) + first * of_dk.row,
                                          of_dk.row, c.columns - first, c.width, c.packed);
    write_tile<E, D, P::ROWS, P::THREADS>(own_v, dv + of_dv.of(ours.at) + first * of_dv.row,
                                          of_dv.row, c.columns - first, c.value_width, c.packed);
    __syncthreads();
  }
}

// --- kernels --------------------------------------------------------------------------------------

// For each row the sum of g y, by a warp.
extern "C" __global__ void __launch_bounds__(256, 1)
attention_delta(const T* g, const T* y, float* delta, int packed, index_t size0, index_t size1,
                index_t size2, index_t rows, index_t width, index_t g0, index_t g1, index_t g2,
                index_t g_row, index_t y0, index_t y1, index_t y2, index_t y_row) {
  const index_t size[3] = {size0, size1, size2}, all = size0 * size1 * size2 * rows;
  const Lies of_g = {{g0, g1, g2}, g_row}, of_y = {{y0, y1, y2}, y_row};
  constexpr int per = Pack<T>::size;
  for (index_t row = thread_number() >> 5; row < all; row += thread_count() >> 5) {
    const Head head = head_of(size, row / rows);
    const T* a = g + of_g.of(head.at) + row % rows * g_row;
    const T* b = y + of_y.of(head.at) + row % rows * y_row;
    A sum = 0;
    if (packed) {
#pragma unroll 1
      for (index_t i = lane_number() * per; i < width; i += 32 * per) {
        const Pack<T> x = *reinterpret_cast<const Pack<T>*>(a + i);
        const Pack<T> z = *reinterpret_cast<const Pack<T>*>(b + i);
#pragma unroll
        for (int k = 0; k < per; ++k) sum += widen(x.at[k]) * widen(z.at[k]);
      }
    } else {
#pragma unroll 1
      for (index_t i = lane_number(); i < width; i += 32) sum += widen(a[i]) * widen(b[i]);
    }
    sum = warp_reduce<Sum>(sum);
    if (lane_number() == 0) delta[row] = float(sum);
  }
}

#define CALL                                                                                     \
  {mask, key, position, threshold, kept, scale, causal != 0, drops != 0, packed != 0, hiding,   \
   {size0, size1, size2}, rows, columns, words, int(width), int(value_width),                   \
   {{mask0, mask1, mask2}, mask_row}, mask_column}

#define ATTENTION(forward_name, queries_name, keys_name, D)                                       \
  extern "C" __global__ void __launch_bounds__(128, 1) forward_name(                             \
      const T* q, const T* k, const T* v, const void* mask, T* y, float* level, uint64 key,      \
      uint64 position, uint32 threshold, float kept, float scale, int causal, int drops,         \
      int packed, int hiding, index_t size0, index_t size1, index_t size2, index_t rows,         \
      index_t columns, index_t words, index_t width, index_t value_width, index_t mask0,         \
      index_t mask1, index_t mask2, index_t mask_row, index_t mask_column, index_t q0,           \
      index_t q1, index_t q2, index_t q_row, index_t k0, index_t k1, index_t k2, index_t k_row,  \
      index_t v0, index_t v1, index_t v2, index_t v_row, index_t y0, index_t y1, index_t y2,     \
      index_t y_row) {                                                                           \
    const Call c = CALL;                                                                         \
    if constexpr (SERVED) forward<D>(c, q, k, v, y, level, {{q0, q1, q2}, q_row}, {{k0, k1, k2}, k_row},               \
               {{v0, v1, v2}, v_row}, {{y0, y1, y2}, y_row});                                    \
  }                                                                                              \
  extern "C" __global__ void __launch_bounds__(128, 1) queries_name(                             \
      const T* q, const T* k, const T* v, const void* mask, const T* g, const float* level,      \
      const float* delta, T* dq, uint64 key, uint64 position, uint32 threshold, float kept,      \
      float scale, int causal, int drops, int packed, int hiding, index_t size0, index_t size1,  \
      index_t size2, index_t rows, index_t columns, index_t words, index_t width,                \
      index_t value_width, index_t mask0, index_t mask1, index_t mask2, index_t mask_row,        \
      index_t mask_column, index_t q0, index_t q1, index_t q2, index_t q_row, index_t k0,        \
      index_t k1, index_t k2, index_t k_row, index_t v0, index_t v1, index_t v2, index_t v_row,  \
      index_t g0, index_t g1, index_t g2, index_t g_row, index_t dq0, index_t dq1, index_t dq2,  \
      index_t dq_row) {                                                                          \
    const Call c = CALL;                                                                         \
    if constexpr (SERVED) of_queries<D>(c, q, k, v, g, level, delta, dq, {{q0, q1, q2}, q_row}, {{k0, k1, k2}, k_row}, \
                  {{v0, v1, v2}, v_row}, {{g0, g1, g2}, g_row}, {{dq0, dq1, dq2}, dq_row});      \
  }                                                                                              \
  extern "C" __global__ void __launch_bounds__(128, 1) keys_name(                                \
      const T* q, const T* k, const T* v, const void* mask, const T* g, const float* level,      \
      const float* delta, T* dk, T* dv, uint64 key, uint64 position, uint32 threshold,           \
      float kept, float scale, int causal, int drops, int packed, int hiding, index_t size0,     \
      index_t size1, index_t size2, index_t rows, index_t columns, index_t words, index_t width, \
      index_t value_width, index_t mask0, index_t mask1, index_t mask2, index_t mask_row,        \
      index_t mask_column, index_t shared0, index_t shared1, index_t shared2, index_t q0,        \
      index_t q1, index_t q2, index_t q_row, index_t k0, index_t k1, index_t k2, index_t k_row,  \
      index_t v0, index_t v1, index_t v2, index_t v_row, index_t g0, index_t g1, index_t g2,     \
      index_t g_row, index_t dk0, index_t dk1, index_t dk2, index_t dk_row, index_t dv0,         \
      index_t dv1, index_t dv2, index_t dv_row) {                                                \
    const Call c = CALL;                                                                         \
    if constexpr (SERVED) of_keys<D>(c, shared0, shared1, shared2, q, k, v, g, level, delta, dk, dv,                 \
               {{q0, q1, q2}, q_row}, {{k0, k1, k2}, k_row}, {{v0, v1, v2}, v_row},              \
               {{g0, g1, g2}, g_row}, {{dk0, dk1, dk2}, dk_row}, {{dv0, dv1, dv2}, dv_row});     \
  }

ATTENTION(attention_forward_64, attention_queries_64, attention_keys_64, 64)
ATTENTION(attention_forward_128, attention_queries_128, attention_keys_128, 128)
