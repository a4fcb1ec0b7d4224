// The second stage of sums over rows: out[c] = the sum of partial[s, c] over s.
//
// partial is [strips, columns] of A, which earlier kernels have reduced to a few hundred strips.
// A warp takes 32 columns, and the warps of a block share the strips, so that a narrow matrix with
// many strips is not the work of one thread after another. The order follows from the numbers of
// strips and of warps, which the launcher derives from it.
#include "common.cuh"

// The 32 columns that begin at `first`.
template <typename I>
__device__ __forceinline__ void sum_columns(const I* __restrict__ partial, T* __restrict__ out,
                                            index_t strips, index_t columns, index_t first) {
  __shared__ A sums[32][33];  // a column of padding: warps read down it without conflicts
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  const index_t c = first + lane;
  A sum = A(0);
  if (c < columns) {
#pragma unroll 8
    for (index_t s = warp; s < strips; s += warps) sum += widen(partial[s * columns + c]);
  }
  sums[warp][lane] = sum;
  __syncthreads();
  for (int k = warp; k < 32 && first + k < columns; k += warps) {
    const A total = warp_reduce<Sum>(lane < warps ? sums[lane][k] : A(0));
    if (lane == 0) out[first + k] = narrow<T>(total);
  }
  __syncthreads();  // before the next columns overwrite the sums
}

extern "C" __global__ void __launch_bounds__(1024, 1)
    sum_strips(const A* partial, T* out, index_t strips, index_t columns) {
  for (index_t first = index_t(blockIdx.x) * 32; first < columns; first += index_t(gridDim.x) * 32)
    sum_columns(partial, out, strips, columns, first);
}

// The same of a few rows of T, for which one stage is enough.
extern "C" __global__ void __launch_bounds__(1024, 1)
    sum_rows(const T* x, T* out, index_t rows, index_t columns) {
  for (index_t first = index_t(blockIdx.x) * 32; first < columns; first += index_t(gridDim.x) * 32)
    sum_columns(x, out, rows, columns, first);
}

// Two sums of the same sizes in one launch.
extern "C" __global__ void __launch_bounds__(1024, 1)
    sum_strips_of_two(const A* partial, const A* other, T* out, T* other_out, index_t strips,
                      index_t columns) {
  const index_t blocks = (columns + 31) / 32;
  for (index_t b = blockIdx.x; b < 2 * blocks; b += gridDim.x) {
    const bool second = b >= blocks;
    sum_columns(second ? other : partial, second ? other_out : out, strips, columns,
                (second ? b - blocks : b) * 32);
  }
}
