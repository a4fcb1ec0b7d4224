// Rows of a matrix in row-major order, read into registers in tiles and reduced.
//
// A tile is what a team of threads holds at once: TILE elements of a row to each thread. A team is
// some lanes of a warp, where rows are short, or a block. Rows are read 16 bytes at a time
// (`packed`) where every row begins at a multiple of 16 bytes, else one element at a time; in both
// cases neighbouring threads read neighbouring addresses, and a thread's loads do not wait for each
// other.
#pragma once
#include "common.cuh"

// Elements of a tile to a thread; the launcher knows them too. They leave room in the registers for
// enough threads that some blocks compute while others wait for memory.
[[maybe_unused]] constexpr int TILE = sizeof(T) == 8 ? 4 : 8;

template <typename R>
__device__ __forceinline__ R not_a_number() {
  return R(bits_to_float(0x7fc00000u));
}

// Whether all rows begin at multiples of 16 bytes.
__device__ __forceinline__ bool rows_aligned16(const T* x, index_t columns) {
  return aligned16(x) && columns % Pack<T>::size == 0;
}

// --- teams ---------------------------------------------------------------------------------------

struct Pair {
  A first, second;
};

// `size` lanes of a warp, a power of two. All lanes of the warp must call `reduce` together.
struct Lanes {
  int size, thread;
  template <typename Op>
  __device__ __forceinline__ A reduce(A value) const {
    for (int offset = size >> 1; offset > 0; offset >>= 1)
      value = Op::combine(value, __shfl_xor_sync(WHOLE_WARP, value, offset));
    return value;
  }
  __device__ __forceinline__ Pair sums(A a, A b) const {
    return {reduce<Sum>(a), reduce<Sum>(b)};
  }
};

struct Block {
  int size, thread;
  // Two sums at once: the block waits twice and not four times.
  __device__ __forceinline__ Pair sums(A a, A b) const {
    __shared__ A partial[2][32];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    a = warp_reduce<Sum>(a);
    b = warp_reduce<Sum>(b);
    if (warps == 1) return {a, b};
    __syncthreads();  // the last call's sums may still be being read
    if (lane == 0) {
      partial[0][warp] = a;
      partial[1][warp] = b;
    }
    __syncthreads();
    a = lane < warps ? partial[0][lane] : A(0);
    b = lane < warps ? partial[1][lane] : A(0);
    return {warp_reduce<Sum>(a), warp_reduce<Sum>(b)};
  }
  template <typename Op>
  __device__ __forceinline__ A reduce(A value) const {
    return block_reduce<Op>(value);
  }
};

__device__ __forceinline__ Block this_block() { return {int(blockDim.x), int(threadIdx.x)}; }

// Calls work(team, row, live) for rows shared out among teams of `size` lanes. All lanes of a warp
// call it equally often, as they shuffle together; where there is no row left for a team, it is not
// live, and `row` is one that exists.
template <typename Work>
__device__ __forceinline__ void rows_by_lanes(index_t rows, int size, Work work) {
  const int lane = threadIdx.x & 31, per_warp = 32 / size;
  const Lanes team = {size, lane & (size - 1)};
  const index_t step = (thread_count() >> 5) * per_warp;
  for (index_t first = (thread_number() >> 5) * per_warp; first < rows; first += step) {
    const index_t row = first + lane / size;
    const bool live = row < rows;
    work(team, live ? row : first, live);
  }
}

// --- tiles ---------------------------------------------------------------------------------------

// The place in its tile of a thread's element number k.
template <bool packed>
__device__ __forceinline__ int place_of(int k, int size, int thread) {
  constexpr int pack = Pack<T>::size;
  return packed ? (k / pack * size + thread) * pack + k % pack : k * size + thread;
}

// The first n elements of a tile that begins at `from`; `pad` stands for what is beyond them.
template <bool packed, typename Team>
__device__ __forceinline__ void load_tile(const T* __restrict__ from, int n, Team team, A pad,
                                          A (&v)[TILE]) {
  constexpr int pack = Pack<T>::size;
  if constexpr (packed) {
    static_assert(TILE % pack == 0, "whole packs");
#pragma unroll
    for (int k = 0; k < TILE; k += pack) {
      const int i = place_of<true>(k, team.size, team.thread);
      if (i < n) {
        const Pack<T> in = *reinterpret_cast<const Pack<T>*>(from + i);
#pragma unroll
        for (int j = 0; j < pack; ++j) v[k + j] = widen(in.at[j]);
      } else {
#pragma unroll
        for (int j = 0; j < pack; ++j) v[k + j] = pad;
      }
    }
  } else {
#pragma unroll
    for (int k = 0; k < TILE; ++k) {
      const int i = place_of<false>(k, team.size, team.thread);
      v[k] = i < n ? widen(from[i]) : pad;
    }
  }
}

template <bool packed, typename Team>
__device__ __forceinline__ void store_tile(T* __restrict__ to, int n, Team team,
                                           const A (&v)[TILE]) {
  constexpr int pack = Pack<T>::size;
  if constexpr (packed) {
#pragma unroll
    for (int k = 0; k < TILE; k += pack) {
      const int i = place_of<true>(k, team.size, team.thread);
      if (i < n) {
        Pack<T> out;
#pragma unroll
        for (int j = 0; j < pack; ++j) out.at[j] = narrow<T>(v[k + j]);
        store_pack(to + i, out);
      }
    }
  } else {
#pragma unroll
    for (int k = 0; k < TILE; ++k) {
      const int i = place_of<false>(k, team.size, team.thread);
      if (i < n) to[i] = narrow<T>(v[k]);
    }
  }
}

// Calls work(start, n) for each tile of a row: where it begins, and how many elements it has.
template <typename Work>
__device__ __forceinline__ void tiles(index_t columns, int size, Work work) {
  const int whole = TILE * size;
#pragma unroll 1  // other blocks fill the time, and a further tile would not fit the registers
  for (index_t start = 0; start < columns; start += whole) {
    const index_t left = columns - start;
    work(start, left < whole ? int(left) : whole);
  }
}

// Part number `part` of `parts` of a row: whole groups of 32 packs, so that packs stay aligned.
struct Part {
  index_t begin, columns;

  __device__ __forceinline__ Part(index_t all, index_t part, index_t parts) {
    constexpr index_t whole = 32 * Pack<T>::size;
    const index_t each = ((all + parts - 1) / parts + whole - 1) / whole * whole;
    begin = part * each < all ? part * each : all;
    columns = all - begin < each ? all - begin : each;
  }
};

// --- the sum of exponentials ---------------------------------------------------------------------

// The greatest element of a row, and the sum of exp(x - greatest).
struct Exponentials {
  A most, sum;
};

// Of a row that is one tile, padded with -infinity. A row without a finite greatest element gets
// the sum NaN, as x - most is NaN somewhere.
template <typename Team>
__device__ __forceinline__ Exponentials exponentials(const A (&v)[TILE], Team team) {
  A most = v[0];
#pragma unroll
  for (int k = 1; k < TILE; ++k) most = Max::combine(most, v[k]);
  most = team.template reduce<Max>(most);
  A sum = A(0);
#pragma unroll
  for (int k = 0; k < TILE; ++k) sum += exp(v[k] - most);
  return {most, team.template reduce<Sum>(sum)};
}

// Of a row of any length, by a block that reads it once: when a thread meets a greater element, it
// scales its sum so far (Milakov and Gimelshein, 2018), once for a tile. In a row of -infinity
// alone the sum is NaN too.
template <bool packed>
__device__ __forceinline__ Exponentials exponentials_online(const T* __restrict__ row,
                                                            index_t columns) {
  const Block team = this_block();
  A most = -infinity<A>(), sum = A(0);
  tiles(columns, team.size, [&](index_t start, int n) {
    A v[TILE];
    load_tile<packed>(row + start, n, team, -infinity<A>(), v);
    A greater = most;
#pragma unroll
    for (int k = 0; k < TILE; ++k) greater = Max::combine(greater, v[k]);
    if (greater != -infinity<A>()) {  // else nothing but exp(-infinity) was met, which adds 0
      A part = A(0);
#pragma unroll
      for (int k = 0; k < TILE; ++k) part += exp(v[k] - greater);
      sum = sum * exp(most - greater) + part;
      most = greater;
    }
  });
  const A greatest = team.reduce<Max>(most);
  return {greatest, team.reduce<Sum>(sum * exp(most - greatest))};
}
