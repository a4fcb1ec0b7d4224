// The norm of many gradients as one vector, and their scaling or limiting, each in one launch.
#include "common.cuh"
#include "many.cuh"

// squares[block] = the sum of the squares of the block's chunk.
extern "C" __global__ void __launch_bounds__(256, 1)
sum_squares(const uint64* pointers, const index_t* sizes, const int* owner, const index_t* offset,
            double* squares) {
  const Many many = {pointers, sizes, owner, offset};
  const Chunk chunk(many);
  const T* g = chunk.of(many, 1, 0);
  A sum = A(0);
  int done = 0;
  if (aligned_quad(g)) {
    done = chunk.n & ~3;
    for (int i = 4 * threadIdx.x; i < done; i += 4 * blockDim.x) {
      const Quad<T> quad = *reinterpret_cast<const Quad<T>*>(g + i);
#pragma unroll
      for (int k = 0; k < 4; ++k) sum += widen(quad.at[k]) * widen(quad.at[k]);
    }
  }
  for (int i = done + threadIdx.x; i < chunk.n; i += blockDim.x) sum += widen(g[i]) * widen(g[i]);
  const A total = block_reduce<Sum>(sum);
  if (threadIdx.x == 0) squares[blockIdx.x] = double(total);
}

// norm = the root of the sum of `squares`, by one block.
extern "C" __global__ void __launch_bounds__(256, 1)
root_of_sum(const double* squares, A* norm, index_t n) {
  double sum = 0;
  for (index_t i = threadIdx.x; i < n; i += blockDim.x) sum += squares[i];
  const double total = block_reduce<Sum>(sum);
  if (threadIdx.x == 0) *norm = A(sqrt(total));
}

template <typename Function>
__device__ __forceinline__ void change(const Many& many, Function function) {
  const Chunk chunk(many);
  T* g = chunk.of(many, 1, 0);
  int done = 0;
  if (aligned_quad(g)) {
    done = chunk.n & ~3;
    for (int i = 4 * threadIdx.x; i < done; i += 4 * blockDim.x) {
      Quad<T> quad = *reinterpret_cast<const Quad<T>*>(g + i);
#pragma unroll
      for (int k = 0; k < 4; ++k) quad.at[k] = narrow<T>(function(widen(quad.at[k])));
      *reinterpret_cast<Quad<T>*>(g + i) = quad;
    }
  }
  for (int i = done + threadIdx.x; i < chunk.n; i += blockDim.x)
    g[i] = narrow<T>(function(widen(g[i])));
}

// g *= min(1, max_norm / (norm + 1e-6)); a norm that is NaN makes everything NaN.
extern "C" __global__ void __launch_bounds__(256, 1)
scale_gradients(const uint64* pointers, const index_t* sizes, const int* owner,
                const index_t* offset, const A* norm, A max_norm) {
  const Many many = {pointers, sizes, owner, offset};
  const A wanted = max_norm / (*norm + A(1e-6));
  const A factor = wanted > A(1) ? A(1) : wanted;
  change(many, [factor](A g) { return g * factor; });
}

// g limited to [-limit, limit]; NaN stays.
extern "C" __global__ void __launch_bounds__(256, 1)
limit_gradients(const uint64* pointers, const index_t* sizes, const int* owner,
                const index_t* offset, A limit) {
  const Many many = {pointers, sizes, owner, offset};
  change(many, [limit](A g) { return g > limit ? limit : g < -limit ? -limit : g; });
}
