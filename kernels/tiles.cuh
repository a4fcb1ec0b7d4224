// Products of tiles in shared memory, for what multiplies between other work: attention.
//
// A warp owns 16 rows of one factor and goes through rows of the other, 16 at a time. Lane 4 g + t has
// of the product of a group the own rows g and g + 8, and of the others 4 t to 4 t + 3: `Piece`. So it
// is for both ways in which products are made: by tensor cores (16-bit floats, whose order of rows
// and of what is summed over is chosen to give this), and by float32 additions. What is added up is
// float32. A piece can be a factor in turn.
#pragma once
#include "common.cuh"

struct Piece {
  float at[2][4];
};

// --- tiles ---------------------------------------------------------------------------------------

// Rows of D elements, in chunks of 16 bytes. Chunks of a row change places by its number, so that
// those that a warp reads at once lie in different banks.
template <typename E, int D>
__device__ __forceinline__ int place(int row, int chunk) {
  constexpr int per = Pack<E>::size;
  const int turn = (row & 1) << 2 | ((row >> 3 ^ row >> 1) & 1) << 1 | (row >> 2 & 1);
  return row * D + (chunk ^ turn) * per;
}

// Chunks of rows of D elements that a thread reads at once: what there are registers for.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
template <typename E, int D>
constexpr int AT_ONCE = 1;
#else
template <typename E, int D>
constexpr int AT_ONCE = D <= 64 ? 4 : sizeof(E) == 2 ? 2 : 1;
#endif

// Reads ROWS rows into a tile, those behind `there` and the elements behind `width` as zeros; so are
// rows for which `level`, where there is one, is infinite.
template <typename E, int D, int ROWS, int THREADS>
__device__ __forceinline__ void read_tile(E* tile, const E* from, index_t stride, index_t there,
                                          int width, bool packed, const float* level = nullptr) {
  constexpr int per = Pack<E>::size, chunks = D / per;
  if (packed) {
    constexpr int at_once = AT_ONCE<E, D>;
    static_assert(ROWS * chunks % (at_once * THREADS) == 0, "all threads have as many chunks");
#pragma unroll at_once
    for (int n = 0; n < ROWS * chunks / THREADS; ++n) {
      const int i = n * THREADS + int(threadIdx.x);
      const int row = i / chunks, chunk = i % chunks;
      Pack<E> in = {};
      if (row < there && chunk * per < width && !(level && level[row] == infinity<float>()))
        in = *reinterpret_cast<const Pack<E>*>(from + row * stride + chunk * per);
      *reinterpret_cast<Pack<E>*>(tile + place<E, D>(row, chunk)) = in;
    }
  } else {
#pragma unroll 1
    for (int i = threadIdx.x; i < ROWS * D; i += THREADS) {
      const int row = i / D, at = i % D;
      E in = {};
      if (row < there && at < width && !(level && level[row] == infinity<float>()))
        in = from[row * stride + at];
      tile[place<E, D>(row, at / per) + at % per] = in;
    }
  }
}

// The reverse.
template <typename E, int D, int ROWS, int THREADS>
__device__ __forceinline__ void write_tile(const E* tile, E* to, index_t stride, index_t there,
                                           int width, bool packed) {
  constexpr int per = Pack<E>::size, chunks = D / per;
  if (packed) {
    constexpr int at_once = AT_ONCE<E, D>;
    static_assert(ROWS * chunks % (at_once * THREADS) == 0, "all threads have as many chunks");
#pragma unroll at_once
    for (int n = 0; n < ROWS * chunks / THREADS; ++n) {
      const int i = n * THREADS + int(threadIdx.x);
      const int row = i / chunks, chunk = i % chunks;
      if (row >= there || chunk * per >= width) continue;
      store_pack(to + row * stride + chunk * per,
                 *reinterpret_cast<const Pack<E>*>(tile + place<E, D>(row, chunk)));
    }
  } else {
#pragma unroll 1
    for (int i = threadIdx.x; i < ROWS * D; i += THREADS) {
      const int row = i / D, at = i % D;
      if (row < there && at < width)
        to[row * stride + at] = tile[place<E, D>(row, at / per) + at % per];
    }
  }
}

// Addresses that follow from it are computed where they are used: to keep all of them takes more
// registers than there are.
__device__ __forceinline__ int lane_number() {
  int lane = threadIdx.x & 31;
#ifdef __CUDACC__
  asm volatile("" : "+r"(lane));
#endif
  return lane;
}
__device__ __forceinline__ int warp_number() { return threadIdx.x >> 5; }

// --- tensor cores --------------------------------------------------------------------------------

// Two neighbouring numbers in one register, the first in its low half.
template <typename E>
__device__ __forceinline__ uint32 both(float first, float second) {
  return uint32(narrow<E>(first).bits) | uint32(narrow<E>(second).bits) << 16;
}

template <typename E>
__device__ __forceinline__ float part(uint32 pair, int which) {
  E x;
  x.bits = (unsigned short)(which ? pair >> 16 : pair & 0xffffu);
  return widen(x);
}

// c += a b for a warp, a being 16 x 16 and b 16 x 8, where there are no tensor cores: on the CPU. The
// registers hold what those of `mma.m16n8k16` do.
template <typename E, int WARPS>
__device__ __forceinline__ void multiply_in_turn(float (&c)[4], const uint32 (&a)[4], uint32 b0,
                                                 uint32 b1) {
  __shared__ uint32 given[WARPS][32][6];
  uint32(&all)[32][6] = given[warp_number()];
  const int lane = lane_number(), g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int k = 0; k < 4; ++k) all[lane][k] = a[k];
  all[lane][4] = b0;
  all[lane][5] = b1;
  __syncwarp();
  for (int k = 0; k < 4; ++k) {
    const int row = k >> 1, column = 2 * t + (k & 1);
    float sum = 0;
    for (int i = 0; i < 16; ++i) {
      const int from = i >> 1 & 3, high = i >> 3, half = i & 1;
      sum += part<E>(all[4 * g + from][2 * high + row], half) *
             part<E>(all[4 * column + from][4 + high], half);
    }
    c[k] += sum;
  }
  __syncwarp();
}

#ifdef __CUDACC__
// Turing has half the depth, and both halves of the registers are in order.
__device__ __forceinline__ void multiply_at_once(f16, float (&c)[4], const uint32 (&a)[4],
                                                 uint32 b0, uint32 b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
      "{%0, %1, %2, %3};\n\t"
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%7, %8}, {%9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(b0), "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}
#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ void multiply_at_once(bf16, float (&c)[4], const uint32 (&a)[4],
                                                 uint32 b0, uint32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif
#endif

template <typename E>
struct Cores {
  static constexpr bool there = false;
};
#ifdef __CUDACC__
template <>
struct Cores<f16> {
  static constexpr bool there = true;
};
template <>
struct Cores<bf16> {
  static constexpr bool there = __CUDA_ARCH__ >= 800;
};
#endif

template <typename E, int WARPS>
__device__ __forceinline__ void multiply(float (&c)[4], const uint32 (&a)[4], uint32 b0,
                                         uint32 b1) {
  if constexpr (Cores<E>::there)
    multiply_at_once(E{}, c, a, b0, b1);
  else
    multiply_in_turn<E, WARPS>(c, a, b0, b1);
}

// Of two columns of 8 in each of two groups of 8 rows of a tile what a factor of `multiply` takes:
// b[2 n + h] are the rows 4 t + 2 h and the next, in the column g of chunk `chunk + n`.
template <typename E, int D>
__device__ __forceinline__ void read_turned(uint32 (&b)[4], const E* tile, int row, int chunk) {
  const int lane = lane_number();
#ifdef __CUDACC__
  const int i = lane & 7, mine = row + 4 * (i >> 1) + 2 * (lane >> 3 & 1) + (i & 1);
  const E* from = tile + place<E, D>(mine, chunk + (lane >> 4));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
               : "r"(uint32(__cvta_generic_to_shared(from)))
               : "memory");
#else
  for (int k = 0; k < 4; ++k) {
    const int first = row + 4 * (lane & 3) + 2 * (k & 1), column = lane >> 2;
    b[k] = uint32(tile[place<E, D>(first, chunk + (k >> 1)) + column].bits) |
           uint32(tile[place<E, D>(first + 1, chunk + (k >> 1)) + column].bits) << 16;
  }
#endif
}

// --- products ------------------------------------------------------------------------------------

template <int N>
__device__ __forceinline__ void clear(Piece (&s)[N]) {
#pragma unroll
  for (int j = 0; j < N; ++j) s[j] = {};
}

// 32 elements of the rows that a warp owns in a tile: eight to a thread of the rows g and g + 8.
template <typename E, int D>
__device__ __forceinline__ void read_chunk(uint32 (&a)[2][4], const E* tile, int c) {
  const int lane = lane_number(), g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = 16 * warp_number() + g + 8 * half;
    memcpy(a[half], tile + place<E, D>(row, 4 * c + t), 16);
  }
}

// Adds their products with the rows 16 (group + j) and on of another tile to s[j].
template <typename E, int D, int WARPS, int N>
__device__ __forceinline__ void add_chunk(Piece (&s)[N], const uint32 (&a)[2][4], const E* tile,
                                          int group, int c) {
  const int lane = lane_number(), g = lane >> 2, t = lane & 3;
  const uint32 first[4] = {a[0][0], a[1][0], a[0][1], a[1][1]};
  const uint32 second[4] = {a[0][2], a[1][2], a[0][3], a[1][3]};
#pragma unroll
  for (int j = 0; j < N; ++j)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = 16 * (group + j) + 4 * (g >> 1) + 2 * h + (g & 1);
      float(&x)[2][4] = s[j].at;
      float sum[4] = {x[0][2 * h], x[0][2 * h + 1], x[1][2 * h], x[1][2 * h + 1]};
      uint32 b[4];
      memcpy(b, tile + place<E, D>(row, 4 * c + t), 16);
      multiply<E, WARPS>(sum, first, b[0], b[1]);
      multiply<E, WARPS>(sum, second, b[2], b[3]);
#pragma unroll
      for (int k = 0; k < 4; ++k) x[k >> 1][2 * h + (k & 1)] = sum[k];
    }
}

// How the 16 rows that a warp owns of a factor are kept: in registers, for tensor cores; where there
// are none left, in the tile that they were read to; and there for threads that compute themselves.
enum Keeping { IN_REGISTERS, IN_TILE, PLAIN };

template <typename E, int D, int WARPS, Keeping HOW>
struct Owned {
  uint32 at[D / 32][2][4];

  // From a tile whose rows are those of all warps.
  __device__ __forceinline__ void take(const E* tile) {
#pragma unroll
    for (int c = 0; c < D / 32; ++c) read_chunk<E, D>(at[c], tile, c);
  }

  // s[j] = the products with the rows 16 (group + j) and on of a tile, j < N.
  template <int N>
  __device__ __forceinline__ void times(Piece (&s)[N], const E* tile, int group) const {
    clear(s);
#pragma unroll
    for (int c = 0; c < D / 32; ++c) add_chunk<E, D, WARPS>(s, at[c], tile, group, c);
  }
};

template <typename E, int D, int WARPS>
struct Owned<E, D, WARPS, IN_TILE> {
  const E* own;

  __device__ __forceinline__ void take(const E* from) { own = from; }

  template <int N>
  __device__ __forceinline__ void times(Piece (&s)[N], const E* tile, int group) const {
    clear(s);
#pragma unroll 1
    for (int c = 0; c < D / 32; ++c) {
      uint32 a[2][4];
      read_chunk<E, D>(a, own, c);
      add_chunk<E, D, WARPS>(s, a, tile, group, c);
    }
  }
};

template <typename E, int D, int WARPS>
struct Owned<E, D, WARPS, PLAIN> {
  const E* tile;

  __device__ __forceinline__ void take(const E* from) { tile = from; }

  template <int N>
  __device__ __forceinline__ void times(Piece (&s)[N], const E* other, int group) const {
    const int lane = lane_number(), g = lane >> 2, t = lane & 3;
    clear(s);
#pragma unroll 1
    for (int c = 0; c < D / 4; ++c) {
      Pack<float> a[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = 16 * warp_number() + g + 8 * half;
        a[half] = *reinterpret_cast<const Pack<float>*>(tile + place<E, D>(row, c));
      }
#pragma unroll
      for (int j = 0; j < N; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = 16 * (group + j) + 4 * t + i;
          const Pack<float> b = *reinterpret_cast<const Pack<float>*>(other + place<E, D>(row, c));
#pragma unroll
          for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int k = 0; k < 4; ++k) s[j].at[half][i] += a[half].at[k] * b.at[k];
        }
    }
  }
};

// 16 rows of D sums, which a warp has in its registers.
template <typename E, int D, int WARPS, bool CORES = sizeof(E) == 2>
struct Sums {
  float at[D / 8][4];  // rows g and g + 8, columns 2 t and 2 t + 1 of each eight

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int n = 0; n < D / 8; ++n)
#pragma unroll
      for (int k = 0; k < 4; ++k) at[n][k] = 0;
  }

  __device__ __forceinline__ void scale(const float (&by)[2]) {
#pragma unroll
    for (int n = 0; n < D / 8; ++n)
#pragma unroll
      for (int k = 0; k < 4; ++k) at[n][k] *= by[k >> 1];
  }

  // Adds the piece times the rows 16 group and on of a tile.
  __device__ __forceinline__ void add(const Piece& p, const E* tile, int group) {
    const uint32 a[4] = {both<E>(p.at[0][0], p.at[0][1]), both<E>(p.at[1][0], p.at[1][1]),
                         both<E>(p.at[0][2], p.at[0][3]), both<E>(p.at[1][2], p.at[1][3])};
#pragma unroll
    for (int n = 0; n < D / 8; n += 2) {
      uint32 b[4];
      read_turned<E, D>(b, tile, 16 * group, n);
      multiply<E, WARPS>(at[n], a, b[0], b[1]);
      multiply<E, WARPS>(at[n + 1], a, b[2], b[3]);
    }
  }

  // Puts them, times `by` or 0 where that is 0, into a tile whose rows are those of all warps.
  __device__ __forceinline__ void put(E* tile, const float (&by)[2]) const {
    const int lane = lane_number(), g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int n = 0; n < D / 8; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float x = at[n][2 * half], y = at[n][2 * half + 1], f = by[half];
        const uint32 pair = f == 0.0f ? 0u : both<E>(x * f, y * f);
        memcpy(tile + place<E, D>(16 * warp_number() + g + 8 * half, n) + 2 * t, &pair, 4);
      }
  }
};

template <typename E, int D, int WARPS>
struct Sums<E, D, WARPS, false> {
  float at[D / 16][2][4];  // rows g and g + 8, columns 4 t to 4 t + 3 of each sixteen

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int n = 0; n < D / 16; ++n)
#pragma unroll
      for (int k = 0; k < 8; ++k) at[n][k >> 2][k & 3] = 0;
  }

  __device__ __forceinline__ void scale(const float (&by)[2]) {
#pragma unroll
    for (int n = 0; n < D / 16; ++n)
#pragma unroll
      for (int k = 0; k < 8; ++k) at[n][k >> 2][k & 3] *= by[k >> 2];
  }

  __device__ __forceinline__ void add(const Piece& p, const E* tile, int group) {
    const int lane = lane_number(), t = lane & 3;
    // Of many features half of the sums at a time: fewer rows of the tile are under way then.
    constexpr int parts = D > 64 ? 2 : 1, each = D / 16 / parts;
#pragma unroll
    for (int part = 0; part < parts; ++part) {
#pragma unroll 1
      for (int other = 0; other < 4; ++other) {
        const int from = (lane & ~3) + other;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = 16 * group + 4 * other + i;
          const float a[2] = {__shfl_sync(WHOLE_WARP, p.at[0][i], from),
                              __shfl_sync(WHOLE_WARP, p.at[1][i], from)};
#pragma unroll
          for (int n = part * each; n < (part + 1) * each; ++n) {
            const Pack<float> b =
                *reinterpret_cast<const Pack<float>*>(tile + place<E, D>(row, 4 * n + t));
#pragma unroll
            for (int k = 0; k < 8; ++k) at[n][k >> 2][k & 3] += a[k >> 2] * b.at[k & 3];
          }
        }
      }
    }
  }

  __device__ __forceinline__ void put(E* tile, const float (&by)[2]) const {
    const int lane = lane_number(), g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int n = 0; n < D / 16; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Pack<float> out;
#pragma unroll
        for (int k = 0; k < 4; ++k)
          out.at[k] = by[half] == 0.0f ? 0.0f : at[n][half][k] * by[half];
        const int row = 16 * warp_number() + g + 8 * half;
        *reinterpret_cast<Pack<float>*>(tile + place<E, D>(row, 4 * n + t)) = out;
      }
  }
};
