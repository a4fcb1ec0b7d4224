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
#include "common.cuh"
#include "philox.cuh"
#include "tiles.cuh"

// --- what a call is -------------------------------------------------------------------------------

// Where the rows of an array lie: distances in elements along three axes of heads, and of its rows.
struct Lies {
  index_t head[3], row;

  __device__ __forceinline__ index_t of(const index_t (&place)[3]) const {
    return place[0] * head[0] + place[1] * head[1] + place[2] * head[2];
  }
};

enum Hiding { NOTHING = 0, BY_TRUTH = 1, ADDED = 2, ADDED_FLOAT = 3 };

// Sizes, and what hides and drops. `words` random numbers belong to a row of weights.
struct Call {
  const void* mask;
  uint64 key, position;
  uint32 threshold;
  float kept, scale;
  bool causal, drops, packed;
  int hiding;
  index_t size[3], rows, columns, words;
  int width, value_width;
  Lies masked;
  index_t mask_column;
};

// A head by its place along the three axes, and its number.
struct Head {
  index_t at[3], number;
};

__device__ __forceinline__ Head head_of(const index_t (&size)[3], index_t number) {
  const index_t rest = number / size[2];
  return {{rest / size[1], rest % size[1], number % size[2]}, number};
}

// What an own row sees of a tile: those from `from` up to `to`, of which the first's place in the mask
// is `mask`, and the next ones `step` further each.
struct Seen {
  int from, to;
  index_t mask, step;
};

__device__ __forceinline__ int clamped(index_t n) {
  return n < 0 ? 0 : n > 1 << 20 ? 1 << 20 : int(n);
}

// A query, of the tile of keys that begins with `key`.
__device__ __forceinline__ Seen keys_seen(const Call& c, index_t head, index_t query, index_t key) {
  const index_t end = c.causal && query + 1 < c.columns ? query + 1 : c.columns;
  return {0, query < c.rows ? clamped(end - key) : 0,
          head + query * c.masked.row + key * c.mask_column, c.mask_column};
}

// Four scores, of which the first is number `at` of the tile: hidden ones become -inf.
__device__ __forceinline__ void hide(const Call& c, const Seen& seen, float (&s)[4], int at) {
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    bool there = at + k >= seen.from && at + k < seen.to;
    if (there && c.hiding != NOTHING) {
      const index_t place = seen.mask + (at + k) * seen.step;
      if (c.hiding == BY_TRUTH)
        there = static_cast<const bool*>(c.mask)[place];
      else if (c.hiding == ADDED)
        s[k] += widen(static_cast<const T*>(c.mask)[place]);
      else
        s[k] += static_cast<const float*>(c.mask)[place];
    }
    if (!there) s[k] = -infinity<float>();
  }
}

// What dropout multiplies the weights of a row and four keys with, the first a multiple of four.
// The row's words begin at `row`.
__device__ __forceinline__ void kept_in_row(const Call& c, uint64 row, int key,
                                            float (&kept)[4]) {
  const uint64 at = row + uint64(key);
  const int skip = int(at & 3);  // 0 for all or for none
  const Words words = philox_block(c.key, at >> 2);
  const Words more = skip ? philox_block(c.key, (at >> 2) + 1) : words;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    uint32 word = words.at[k];
#pragma unroll
    for (int i = 1; i < 4; ++i)
      if (skip == i) word = k + i < 4 ? words.at[(k + i) & 3] : more.at[(k + i) & 3];
    kept[k] = word >= c.threshold ? c.kept : 0.0f;
  }
}

// By the base 2, which is one instruction.
constexpr float LOG2_E = 1.44269504088896340736f;

__device__ __forceinline__ float exponential(float x) { return exp2f(x * LOG2_E); }

// Over the four lanes that have a row between them.
template <typename Op>
__device__ __forceinline__ float quad_reduce(float x) {
  x = Op::combine(x, __shfl_xor_sync(WHOLE_WARP, x, 1));
  return Op::combine(x, __shfl_xor_sync(WHOLE_WARP, x, 2));
}

// --- how much a block has -------------------------------------------------------------------------

// Rows that a block owns, 16 to a warp, and rows of a tile that it goes through, forward and
// backward: what 48 KiB of shared memory and 255 registers hold. The launcher knows ROWS, too.
template <typename E, int D>
struct Plan {
  static constexpr bool CORES = sizeof(E) == 2;
  static constexpr int ROWS = CORES || D <= 64 ? 64 : 32;
  static constexpr int WARPS = ROWS / 16, THREADS = 2 * ROWS;
  static constexpr int FORWARD = CORES || D <= 64 ? 64 : 32;
  static constexpr int GROUPS = CORES || D <= 64 ? 2 : 1;  // of 16 keys, whose scores are there at once
  static constexpr int BACKWARD = CORES ? 64 : D <= 64 ? 32 : 16;
  static constexpr int OWN = CORES ? 0 : ROWS * D;  // elements of what is owned, in shared memory
};

// --- forward --------------------------------------------------------------------------------------

template <int D>  // there is none for float64, which takes twice the registers and shared memory
__device__ __forceinline__ void forward(const Call&, const double*, const double*, const double*,
                                        double*, float*, const Lies&, const Lies&, const Lies&,
                                        const Lies&) {}

template <int D, typename E>
__device__ __forceinline__ void forward(const Call& c, const E* q, const E* k, const E* v, E* y,
                                        float* level, const Lies& of_q, const Lies& of_k,
                                        const Lies& of_v, const Lies& of_y) {
  using P = Plan<E, D>;
  constexpr int N = P::GROUPS;
  __shared__ __align__(16) E memory[P::OWN + 2 * P::FORWARD * D];
  E *keys = memory + P::OWN, *values = keys + P::FORWARD * D;
  E* own = P::CORES ? keys : memory;
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
    Owned<E, D, P::WARPS> queries;
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

#define CALL                                                                                     \
  {mask, key, position, threshold, kept, scale, causal != 0, drops != 0, packed != 0, hiding,   \
   {size0, size1, size2}, rows, columns, words, int(width), int(value_width),                   \
   {{mask0, mask1, mask2}, mask_row}, mask_column}

#define ATTENTION_FORWARD(name, D)                                                               \
  extern "C" __global__ void __launch_bounds__(128, 1) name(                                        \
      const T* q, const T* k, const T* v, const void* mask, T* y, float* level, uint64 key,      \
      uint64 position, uint32 threshold, float kept, float scale, int causal, int drops,         \
      int packed, int hiding, index_t size0, index_t size1, index_t size2, index_t rows,         \
      index_t columns, index_t words, index_t width, index_t value_width, index_t mask0,         \
      index_t mask1, index_t mask2, index_t mask_row, index_t mask_column, index_t q0,           \
      index_t q1, index_t q2, index_t q_row, index_t k0, index_t k1, index_t k2, index_t k_row,  \
      index_t v0, index_t v1, index_t v2, index_t v_row, index_t y0, index_t y1, index_t y2,     \
      index_t y_row) {                                                                           \
    const Call c = CALL;                                                                         \
    forward<D>(c, q, k, v, y, level, {{q0, q1, q2}, q_row}, {{k0, k1, k2}, k_row},            \
                  {{v0, v1, v2}, v_row}, {{y0, y1, y2}, y_row});                                 \
  }

ATTENTION_FORWARD(attention_forward_64, 64)
ATTENTION_FORWARD(attention_forward_128, 128)
