// Bias and activation in one pass over the data, forward and backward.
//
// z is [rows, columns], row-major, bias [columns]. The gradient of the bias, the column sums of dz,
// is reduced in the pass that makes dz: each thread walks down the rows and keeps the sums of its
// columns in registers; it writes them to partial [strips, columns], which a second, small kernel
// (sums.cu) adds. An atomic addition would save the second kernel, but its order, and so the last bits of the
// result, would differ from run to run.
#include "common.cuh"
#include "math.cuh"
#include "functions.cuh"
#include "place.cuh"

// Elements that one thread has in a row: a pack, where all rows begin at a multiple of 16 bytes.
template <int width>
struct alignas(width * sizeof(T)) Part {
  T at[width];
};

template <int width>
__device__ __forceinline__ Part<width> read(const T* p) {
  return *reinterpret_cast<const Part<width>*>(p);
}
template <int width>
__device__ __forceinline__ void write(T* p, const Part<width>& part) {
#ifdef __CUDACC__
  // NVRTC would cut an assignment into one store for each element, as they are made one by one.
  if constexpr (sizeof(part) == 16) {
    uint32 w[4];
    memcpy(w, &part, sizeof(w));
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)),
                 "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3])
                 : "memory");
    return;
  }
#endif
  *reinterpret_cast<Part<width>*>(p) = part;
}

// A thread's sums of its columns, for the second stage.
template <int width>
__device__ __forceinline__ void leave(A* __restrict__ partial, const Place& at, index_t columns,
                                      const A (&sum)[width]) {
#pragma unroll
  for (int k = 0; k < width; ++k) partial[at.row * columns + at.column + k] = sum[k];
}

// y = f(z + bias)
template <int width, typename Function>
__device__ __forceinline__ void forward_parts(Function f, const T* __restrict__ z,
                                              const T* __restrict__ bias, T* __restrict__ y,
                                              index_t rows, index_t columns, int across,
                                              index_t tiles) {
  const Place at(width, across, tiles);
  if (at.column >= columns) return;
  A b[width];
#pragma unroll
  for (int k = 0; k < width; ++k) b[k] = widen(bias[at.column + k]);
#pragma unroll 4
  for (index_t r = at.row; r < rows; r += at.step) {
    const Part<width> in = read<width>(z + r * columns + at.column);
    Part<width> out;
#pragma unroll
    for (int k = 0; k < width; ++k) out.at[k] = narrow<T>(f.value(widen(in.at[k]) + b[k]));
    write<width>(y + r * columns + at.column, out);
  }
}

template <typename Function>
__device__ __forceinline__ void forward(Function f, const T* z, const T* bias, T* y, index_t rows,
                                        index_t columns, int across, index_t tiles, int packed) {
  if (packed)
    forward_parts<Pack<T>::size>(f, z, bias, y, rows, columns, across, tiles);
  else
    forward_parts<1>(f, z, bias, y, rows, columns, across, tiles);
}

// dz = g * f'(z + bias), and the sum of each thread's own elements of a column.
//
// saved is the result y, or z where the derivative is of the argument.
template <int width, typename Function>
__device__ __forceinline__ void backward_parts(Function f, const T* __restrict__ g,
                                               const T* __restrict__ saved,
                                               const T* __restrict__ bias, T* __restrict__ dz,
                                               A* __restrict__ partial, index_t rows,
                                               index_t columns, int across, index_t tiles) {
  const Place at(width, across, tiles);
  if (at.column >= columns) return;
  A b[width], sum[width];
#pragma unroll
  for (int k = 0; k < width; ++k) {
    b[k] = Function::from_result ? A(0) : widen(bias[at.column + k]);
    sum[k] = A(0);
  }
#pragma unroll 4
  for (index_t r = at.row; r < rows; r += at.step) {
    const Part<width> in = read<width>(g + r * columns + at.column);
    const Part<width> held = read<width>(saved + r * columns + at.column);
    Part<width> out;
#pragma unroll
    for (int k = 0; k < width; ++k) {
      const A s = Function::from_result ? widen(held.at[k]) : widen(held.at[k]) + b[k];
      const A d = f.gradient(widen(in.at[k]), s);
      out.at[k] = narrow<T>(d);
      sum[k] += d;
    }
    write<width>(dz + r * columns + at.column, out);
  }
  leave(partial, at, columns, sum);
}

template <typename Function>
__device__ __forceinline__ void backward(Function f, const T* g, const T* saved, const T* bias,
                                         T* dz, A* partial, index_t rows, index_t columns,
                                         int across, index_t tiles, int packed) {
  if (packed)
    backward_parts<Pack<T>::size>(f, g, saved, bias, dz, partial, rows, columns, across, tiles);
  else
    backward_parts<1>(f, g, saved, bias, dz, partial, rows, columns, across, tiles);
}

// Of the identity: a product is added to rows that hold the bias, so that there is no z to be read;
// and dz is g itself.
template <int width>
__device__ __forceinline__ void spread(const T* __restrict__ bias, T* __restrict__ y, index_t rows,
                                       index_t columns, int across, index_t tiles) {
  const Place at(width, across, tiles);
  if (at.column >= columns) return;
  Part<width> row;
#pragma unroll
  for (int k = 0; k < width; ++k) row.at[k] = bias[at.column + k];
#pragma unroll 4
  for (index_t r = at.row; r < rows; r += at.step) write<width>(y + r * columns + at.column, row);
}

extern "C" __global__ void bias_identity_forward(const T* bias, T* y, index_t rows, index_t columns,
                                                 int across, index_t tiles, int packed) {
  if (packed)
    spread<Pack<T>::size>(bias, y, rows, columns, across, tiles);
  else
    spread<1>(bias, y, rows, columns, across, tiles);
}

template <int width>
__device__ __forceinline__ void add_rows(const T* __restrict__ g, A* __restrict__ partial,
                                         index_t rows, index_t columns, int across,
                                         index_t tiles) {
  const Place at(width, across, tiles);
  if (at.column >= columns) return;
  A sum[width];
#pragma unroll
  for (int k = 0; k < width; ++k) sum[k] = A(0);
#pragma unroll 4
  for (index_t r = at.row; r < rows; r += at.step) {
    const Part<width> in = read<width>(g + r * columns + at.column);
#pragma unroll
    for (int k = 0; k < width; ++k) sum[k] += widen(in.at[k]);
  }
  leave(partial, at, columns, sum);
}

extern "C" __global__ void bias_identity_backward(const T* g, A* partial, index_t rows,
                                                  index_t columns, int across, index_t tiles,
                                                  int packed) {
  if (packed)
    add_rows<Pack<T>::size>(g, partial, rows, columns, across, tiles);
  else
    add_rows<1>(g, partial, rows, columns, across, tiles);
}

#define KERNELS(name, Function)                                                                 \
extern "C" __global__ void bias_##name##_forward(const T* z, const T* bias, T* y, A parameter,  \
                                                 index_t rows, index_t columns, int across,     \
                                                 index_t tiles, int packed) {                   \
  forward(Function<A>{parameter}, z, bias, y, rows, columns, across, tiles, packed);            \
}                                                                                               \
extern "C" __global__ void bias_##name##_backward(const T* g, const T* saved, const T* bias,    \
                                                  T* dz, A* partial, A parameter, index_t rows, \
                                                  index_t columns, int across, index_t tiles,   \
                                                  int packed) {                                 \
  backward(Function<A>{parameter}, g, saved, bias, dz, partial, rows, columns, across, tiles,   \
           packed);                                                                             \
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
