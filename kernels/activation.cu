// Activation functions and their gradients, element by element, for contiguous arrays.
//
// A gradient takes g, the gradient of the result, and what the operation's rule saves: the result,
// or the argument.
#include "common.cuh"
#include "math.cuh"
#include "functions.cuh"
#include "elementwise.cuh"

template <typename Function>
__device__ __forceinline__ void forward(Function f, const T* x, T* y, index_t n) {
  map(x, y, n, [f](A v) { return f.value(v); });
}

template <typename Function>
__device__ __forceinline__ void backward(Function f, const T* g, const T* saved, T* dx,
                                         index_t n) {
  map2(g, saved, dx, n, [f](A d, A v) { return f.gradient(d, v); });
}

#define KERNELS(name, Function)                                                                    \
extern "C" __global__ void name##_forward(const T* x, T* y, A parameter, index_t n) {              \
  forward(Function<A>{parameter}, x, y, n);                                                        \
}                                                                                                  \
extern "C" __global__ void name##_backward(const T* g, const T* saved, T* dx, A parameter,         \
                                           index_t n) {                                            \
  backward(Function<A>{parameter}, g, saved, dx, n);                                               \
}

KERNELS(sigmoid, Sigmoid)
KERNELS(tanh, Tanh)
KERNELS(relu, Relu)
KERNELS(leaky_relu, LeakyRelu)
KERNELS(elu, Elu)
KERNELS(gelu, Gelu)
KERNELS(gelu_tanh, GeluTanh)
KERNELS(silu, Silu)
KERNELS(softplus, Softplus)
