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

extern "C" __global__ void sigmoid_forward(const T* x, T* y, A parameter, index_t n) {
  forward(Sigmoid<A>{parameter}, x, y, n);
}
extern "C" __global__ void sigmoid_backward(const T* g, const T* saved, T* dx, A parameter,
                                        index_t n) {
  backward(Sigmoid<A>{parameter}, g, saved, dx, n);
}

extern "C" __global__ void tanh_forward(const T* x, T* y, A parameter, index_t n) {
  forward(Tanh<A>{parameter}, x, y, n);
}
extern "C" __global__ void tanh_backward(const T* g, const T* saved, T* dx, A parameter,
                                        index_t n) {
  backward(Tanh<A>{parameter}, g, saved, dx, n);
}

extern "C" __global__ void relu_forward(const T* x, T* y, A parameter, index_t n) {
  forward(Relu<A>{parameter}, x, y, n);
}
extern "C" __global__ void relu_backward(const T* g, const T* saved, T* dx, A parameter,
                                        index_t n) {
  backward(Relu<A>{parameter}, g, saved, dx, n);
}

extern "C" __global__ void leaky_relu_forward(const T* x, T* y, A parameter, index_t n) {
  forward(LeakyRelu<A>{parameter}, x, y, n);
}
extern "C" __global__ void leaky_relu_backward(const T* g, const T* saved, T* dx, A parameter,
                                        index_t n) {
  backward(LeakyRelu<A>{parameter}, g, saved, dx, n);
}

extern "C" __global__ void elu_forward(const T* x, T* y, A parameter, index_t n) {
  forward(Elu<A>{parameter}, x, y, n);
}
extern "C" __global__ void elu_backward(const T* g, const T* saved, T* dx, A parameter,
                                        index_t n) {
  backward(Elu<A>{parameter}, g, saved, dx, n);
}

extern "C" __global__ void gelu_forward(const T* x, T* y, A parameter, index_t n) {
  forward(Gelu<A>{parameter}, x, y, n);
}
extern "C" __global__ void gelu_backward(const T* g, const T* saved, T* dx, A parameter,
                                        index_t n) {
  backward(Gelu<A>{parameter}, g, saved, dx, n);
}

extern "C" __global__ void gelu_tanh_forward(const T* x, T* y, A parameter, index_t n) {
  forward(GeluTanh<A>{parameter}, x, y, n);
}
extern "C" __global__ void gelu_tanh_backward(const T* g, const T* saved, T* dx, A parameter,
                                        index_t n) {
  backward(GeluTanh<A>{parameter}, g, saved, dx, n);
}

extern "C" __global__ void silu_forward(const T* x, T* y, A parameter, index_t n) {
  forward(Silu<A>{parameter}, x, y, n);
}
extern "C" __global__ void silu_backward(const T* g, const T* saved, T* dx, A parameter,
                                        index_t n) {
  backward(Silu<A>{parameter}, g, saved, dx, n);
}

extern "C" __global__ void softplus_forward(const T* x, T* y, A parameter, index_t n) {
  forward(Softplus<A>{parameter}, x, y, n);
}
extern "C" __global__ void softplus_backward(const T* g, const T* saved, T* dx, A parameter,
                                        index_t n) {
  backward(Softplus<A>{parameter}, g, saved, dx, n);
}
