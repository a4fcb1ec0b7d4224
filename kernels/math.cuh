// Functions that do not overflow where their value does not, for float and double.
//
// Plain C++ on numbers: no memory, no threads. The formulas are those of the operations' values
// and rules in tensorgrad/ops, so that CPU and GPU agree.
#pragma once

template <typename R>
__device__ __forceinline__ R sigmoid(R x) {
  return R(1) / (R(1) + exp(-x));
}

template <typename R>
__device__ __forceinline__ R relu(R x) {
  return x > R(0) || x != x ? x : R(0);
}

template <typename R>
__device__ __forceinline__ R softplus(R x) {
  return relu(x) + log1p(exp(-fabs(x)));
}

// x * Phi(x), Phi being the normal distribution function (Hendrycks and Gimpel, 2016).
template <typename R>
__device__ __forceinline__ R gelu(R x) {
  return R(0.5) * x * (erf(x * R(0.70710678118654752440)) + R(1));
}

template <typename R>
__device__ __forceinline__ R gelu_slope(R x) {
  const R density = exp(x * x * R(-0.5)) * R(0.39894228040143267794);
  return (erf(x * R(0.70710678118654752440)) + R(1)) * R(0.5) + x * density;
}

// The paper's approximation of it.
template <typename R>
__device__ __forceinline__ R gelu_tanh(R x) {
  const R scale = R(0.79788456080286535588);
  return R(0.5) * x * (tanh(x * (x * x * R(0.044715) + R(1)) * scale) + R(1));
}

template <typename R>
__device__ __forceinline__ R gelu_tanh_slope(R x) {
  x = x > R(16) ? R(16) : x < R(-16) ? R(-16) : x;  // beyond, the cube may be infinite
  const R scale = R(0.79788456080286535588), square = x * x;
  const R t = tanh(x * (square * R(0.044715) + R(1)) * scale);
  const R slope = (square * R(0.134145) + R(1)) * scale;
  return (t + R(1)) * R(0.5) + x * (R(1) - t * t) * slope * R(0.5);
}
