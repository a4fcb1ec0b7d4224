// Activation functions and their gradients, element by element, for contiguous arrays.
//
// A gradient takes g, the gradient of the result, and what the operation's rule saves: the result
// y, or the argument x.
#include "common.cuh"
#include "math.cuh"

// y[i] = function(x[i]): 16 bytes at a time where all pointers allow, else one element.
template <typename Function>
__device__ __forceinline__ void map(const T* __restrict__ x, T* __restrict__ y, index_t n,
                                    Function function) {
  constexpr int size = Pack<T>::size;
  index_t done = 0;
  if (aligned16(x) && aligned16(y)) {
    const index_t packs = n / size;
    for (index_t i = thread_number(); i < packs; i += thread_count()) {
      const Pack<T> in = reinterpret_cast<const Pack<T>*>(x)[i];
      Pack<T> out;
#pragma unroll
      for (int k = 0; k < size; ++k) out.at[k] = narrow<T>(function(widen(in.at[k])));
      reinterpret_cast<Pack<T>*>(y)[i] = out;
    }
    done = packs * size;
  }
  for (index_t i = done + thread_number(); i < n; i += thread_count())
    y[i] = narrow<T>(function(widen(x[i])));
}

// d[i] = function(g[i], s[i]), likewise.
template <typename Function>
__device__ __forceinline__ void map2(const T* __restrict__ g, const T* __restrict__ s,
                                     T* __restrict__ d, index_t n, Function function) {
  constexpr int size = Pack<T>::size;
  index_t done = 0;
  if (aligned16(g) && aligned16(s) && aligned16(d)) {
    const index_t packs = n / size;
    for (index_t i = thread_number(); i < packs; i += thread_count()) {
      const Pack<T> in = reinterpret_cast<const Pack<T>*>(g)[i];
      const Pack<T> saved = reinterpret_cast<const Pack<T>*>(s)[i];
      Pack<T> out;
#pragma unroll
      for (int k = 0; k < size; ++k)
        out.at[k] = narrow<T>(function(widen(in.at[k]), widen(saved.at[k])));
      reinterpret_cast<Pack<T>*>(d)[i] = out;
    }
    done = packs * size;
  }
  for (index_t i = done + thread_number(); i < n; i += thread_count())
    d[i] = narrow<T>(function(widen(g[i]), widen(s[i])));
}

extern "C" __global__ void sigmoid_forward(const T* x, T* y, index_t n) {
  map(x, y, n, [](A v) { return sigmoid(v); });
}
extern "C" __global__ void sigmoid_backward(const T* g, const T* y, T* dx, index_t n) {
  map2(g, y, dx, n, [](A d, A v) { return d * v * (A(1) - v); });
}

extern "C" __global__ void relu_forward(const T* x, T* y, index_t n) {
  map(x, y, n, [](A v) { return relu(v); });
}
extern "C" __global__ void relu_backward(const T* g, const T* y, T* dx, index_t n) {
  map2(g, y, dx, n, [](A d, A v) { return v > A(0) ? d : A(0); });
}
