// The second stage of sums over rows: out[c] = the sum of partial[s, c] over s, in that order.
//
// partial is [strips, columns] of A, which earlier kernels have reduced to a few hundred strips.
// A warp takes 32 columns, and the warps of a block share the strips, so that a narrow matrix with
// many strips is not the work of one thread after another.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
    sum_strips(const A* partial, T* out, index_t strips, index_t columns) {
  __shared__ A sums[8][32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (index_t first = index_t(blockIdx.x) * 32; first < columns; first += index_t(gridDim.x) * 32) {
    const index_t c = first + lane;
    A sum = A(0);
    if (c < columns)
      for (index_t s = warp; s < strips; s += 8) sum += partial[s * columns + c];
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && c < columns) {
      A total = sums[0][lane];
      for (int w = 1; w < 8; ++w) total += sums[w][lane];
      out[c] = narrow<T>(total);
    }
    __syncthreads();  // before the next columns overwrite the sums
  }
}
