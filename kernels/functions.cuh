// The activation functions as types, so that a kernel is one template over them.
//
// value(x) is the function. gradient(g, s) is g times its derivative, from what the gradient rule
// saves: the result where from_result is true, else the argument. parameter is the slope of leaky
// ReLU, the alpha of ELU, and unused elsewhere.
#pragma once

template <typename R>
struct Sigmoid {
  static constexpr bool from_result = true;
  R parameter;
  __device__ __forceinline__ R value(R x) const { return sigmoid(x); }
  __device__ __forceinline__ R gradient(R g, R y) const { return g * y * (R(1) - y); }
};

template <typename R>
struct Tanh {
  static constexpr bool from_result = true;
  R parameter;
  __device__ __forceinline__ R value(R x) const { return tanh(x); }
  __device__ __forceinline__ R gradient(R g, R y) const { return g * (R(1) - y * y); }
};

template <typename R>
struct Relu {
  static constexpr bool from_result = true;
  R parameter;
  __device__ __forceinline__ R value(R x) const { return relu(x); }
  // A selection and not a product: 0 even where g is infinite.
  __device__ __forceinline__ R gradient(R g, R y) const { return y > R(0) ? g : R(0); }
};

template <typename R>
struct LeakyRelu {
  static constexpr bool from_result = false;
  R parameter;
  __device__ __forceinline__ R value(R x) const { return x > R(0) ? x : x * parameter; }
  __device__ __forceinline__ R gradient(R g, R x) const { return x > R(0) ? g : g * parameter; }
};

template <typename R>
struct Elu {
  static constexpr bool from_result = false;
  R parameter;
  __device__ __forceinline__ R value(R x) const {
    return x > R(0) ? x : parameter * expm1(x);
  }
  __device__ __forceinline__ R gradient(R g, R x) const {
    return x > R(0) ? g : g * parameter * exp(x);
  }
};

template <typename R>
struct Gelu {
  static constexpr bool from_result = false;
  R parameter;
  __device__ __forceinline__ R value(R x) const { return gelu(x); }
  __device__ __forceinline__ R gradient(R g, R x) const { return g * gelu_slope(x); }
};

template <typename R>
struct GeluTanh {
  static constexpr bool from_result = false;
  R parameter;
  __device__ __forceinline__ R value(R x) const { return gelu_tanh(x); }
  __device__ __forceinline__ R gradient(R g, R x) const { return g * gelu_tanh_slope(x); }
};

template <typename R>
struct Silu {
  static constexpr bool from_result = false;
  R parameter;
  __device__ __forceinline__ R value(R x) const { return x * sigmoid(x); }
  __device__ __forceinline__ R gradient(R g, R x) const {
    const R s = sigmoid(x);
    return g * (s * (R(1) + x * (R(1) - s)));
  }
};

template <typename R>
struct Softplus {
  static constexpr bool from_result = false;
  R parameter;
  __device__ __forceinline__ R value(R x) const { return softplus(x); }
  __device__ __forceinline__ R gradient(R g, R x) const { return g * sigmoid(x); }
};
