// What attention is computed of, and what its kernels share: which scores are hidden, which weights
// dropout drops, and how much a block has.
#pragma once
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

enum Hiding { NOTHING = 0, BY_TRUTH = 1, ADDED = 2 };

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

// A key, of the tile of queries that begins with `query`.
__device__ __forceinline__ Seen queries_seen(const Call& c, index_t head, index_t key,
                                             index_t query) {
  return {c.causal ? clamped(key - query) : 0, key < c.columns ? clamped(c.rows - query) : 0,
          head + query * c.masked.row + key * c.mask_column, c.masked.row};
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
      else
        s[k] += widen(static_cast<const T*>(c.mask)[place]);
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
#pragma unroll 1
  for (int block = 0; block <= (skip != 0); ++block) {
    const Words words = philox_block(c.key, (at >> 2) + uint64(block));
#pragma unroll
    for (int k = 0; k < 4; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (skip + k == 4 * block + i) kept[k] = words.at[i] >= c.threshold ? c.kept : 0.0f;
  }
}

// The same of a key and four queries, of which the first one's words begin at `row`. Four lanes whose
// keys share words make those of a query each, and exchange them.
__device__ __forceinline__ void kept_in_column(const Call& c, uint64 row, index_t key,
                                               float (&kept)[4]) {
  const int mine = int(key & 3);
  kept_in_row(c, row + uint64(mine * c.words + (key - mine)), 0, kept);
#pragma unroll
  for (int apart = 2; apart > 0; apart >>= 1)  // a matrix of 4 x 4 is transposed
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (!(i & apart)) {
        const bool upper = mine & apart;
        float &low = kept[i], &high = kept[i + apart];
        const float got = __shfl_xor_sync(WHOLE_WARP, upper ? low : high, 4 * apart);
        low = upper ? got : low;
        high = upper ? high : got;
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

// There are no tiles of float64, which takes twice the registers and shared memory, and none of
// bfloat16 on Turing, which has no tensor cores for it.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool SERVED = sizeof(T) == 4 || Cores<T>::there;
#else
constexpr bool SERVED = sizeof(T) < 8;
#endif

// --- how much a block has -------------------------------------------------------------------------

// Rows that a block owns, 16 to a warp, and rows of a tile that it goes through: what 48 KiB of shared
// memory and 255 registers hold. The launcher knows ROWS, too.
template <typename E, int D>
struct Plan {
  static constexpr bool CORES = sizeof(E) == 2;
  static constexpr int ROWS = CORES || D <= 64 ? 64 : 32;
  static constexpr int WARPS = ROWS / 16, THREADS = 2 * ROWS;
  static constexpr int FORWARD = CORES || D <= 64 ? 64 : 32;
  static constexpr int GROUPS = CORES || D <= 64 ? 2 : 1;  // of 16 keys, scored at once
  static constexpr int QUERIES = CORES ? 64 : D <= 64 ? 32 : 16;  // in the gradient of queries
  static constexpr int KEYS = CORES && D <= 64 ? 64 : CORES || D <= 64 ? 32 : 16;
  // In the gradient of keys and values there are twice as many sums.
  static constexpr Keeping KEPT = CORES ? IN_REGISTERS : PLAIN;
  static constexpr Keeping KEYS_KEPT = CORES && D > 64 ? IN_TILE : KEPT;
  static constexpr int OWN = KEPT == IN_REGISTERS ? 0 : ROWS * D;  // elements, in shared memory
  static constexpr int KEYS_OWN = KEYS_KEPT == IN_REGISTERS ? 0 : ROWS * D;
};
