// What every kernel uses: the dtypes, 16-byte accesses, reductions within a block.
//
// A family is compiled once per dtype: T is the dtype of the arrays in memory, A that of the
// arithmetic (float for the 16-bit types). Sizes and indices are 64 bits wide. There are no
// #includes but our own, so that the files compile with NVRTC alone, and on the CPU.
#pragma once

using index_t = long long;
using uint32 = unsigned int;
using uint64 = unsigned long long;

// --- dtypes --------------------------------------------------------------------------------------

// The 16-bit floats are storage only: read as float, computed as float, rounded once when written.
struct f16 {
  unsigned short bits;
};
struct bf16 {
  unsigned short bits;
};

__device__ __forceinline__ float bits_to_float(uint32 bits) {
#ifdef __CUDACC__
  return __uint_as_float(bits);
#else
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
#endif
}

__device__ __forceinline__ uint32 float_to_bits(float value) {
#ifdef __CUDACC__
  return __float_as_uint(value);
#else
  uint32 bits;
  __builtin_memcpy(&bits, &value, 4);
  return bits;
#endif
}

__device__ __forceinline__ float widen(f16 x) {
#ifdef __CUDACC__
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
  return value;
#else
  _Float16 half;
  __builtin_memcpy(&half, &x.bits, 2);
  return half;
#endif
}

__device__ __forceinline__ float widen(bf16 x) { return bits_to_float(uint32(x.bits) << 16); }
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }

// narrow<T>(value): to the dtype of the arrays, rounding to nearest, ties to even.
template <typename To>
struct Narrow {
  static __device__ __forceinline__ To from(To value) { return value; }
};

template <>
struct Narrow<f16> {
  static __device__ __forceinline__ f16 from(float value) {
    f16 y;
#ifdef __CUDACC__
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(value));
#else
    _Float16 half = value;
    __builtin_memcpy(&y.bits, &half, 2);
#endif
    return y;
  }
};

template <>
struct Narrow<bf16> {
  static __device__ __forceinline__ bf16 from(float value) {
    uint32 bits = float_to_bits(value);
    bf16 y;
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
      y.bits = (unsigned short)((bits >> 16) | 0x40u);  // a NaN stays one when it is cut short
    } else {
      y.bits = (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    }
    return y;
  }
};

template <typename To, typename From>
__device__ __forceinline__ To narrow(From value) {
  return Narrow<To>::from(value);
}

template <typename Stored>
struct Arithmetic {
  using type = float;
};
template <>
struct Arithmetic<double> {
  using type = double;
};

using T = TENSORGRAD_T;
using A = Arithmetic<T>::type;

template <typename R>
__device__ __forceinline__ R infinity();
template <>
__device__ __forceinline__ float infinity<float>() {
  return bits_to_float(0x7f800000u);
}
template <>
__device__ __forceinline__ double infinity<double>() {
  return double(bits_to_float(0x7f800000u));
}

// --- 16-byte accesses ----------------------------------------------------------------------------

// As many elements as fit 16 bytes, which one instruction reads or writes.
template <typename E>
struct alignas(16) Pack {
  static constexpr int size = 16 / sizeof(E);
  E at[size];
};

// Four neighbouring elements, read or written at once: 16 bytes of float, 8 of the 16-bit floats.
template <typename E>
struct alignas(4 * sizeof(E) < 16 ? 4 * sizeof(E) : 16) Quad {
  E at[4];
};

// Writes a pack by one instruction. Left to itself, the compiler now and then writes its elements
// one by one.
template <typename E>
__device__ __forceinline__ void store_pack(E* to, const Pack<E>& pack) {
#ifdef __CUDACC__
  uint32 word[4];
  memcpy(word, &pack, 16);
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
               :: "l"(to), "r"(word[0]), "r"(word[1]), "r"(word[2]), "r"(word[3]) : "memory");
#else
  *reinterpret_cast<Pack<E>*>(to) = pack;
#endif
}

template <typename E>
__device__ __forceinline__ bool aligned16(const E* pointer) {
  return (uint64(pointer) & 15u) == 0;
}

// The number of this thread in the grid, and how many threads there are. A grid has at most 2^31
// blocks along x, and fewer are launched: kernels step through their elements.
__device__ __forceinline__ index_t thread_number() {
  return index_t(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ index_t thread_count() { return index_t(gridDim.x) * blockDim.x; }

// --- reductions ----------------------------------------------------------------------------------

[[maybe_unused]] constexpr uint32 WHOLE_WARP = 0xffffffffu;

struct Sum {
  template <typename R>
  static __device__ __forceinline__ R identity() {
    return R(0);
  }
  template <typename R>
  static __device__ __forceinline__ R combine(R a, R b) {
    return a + b;
  }
};

// NaN wins, as in NumPy's maximum.
struct Max {
  template <typename R>
  static __device__ __forceinline__ R identity() {
    return -infinity<R>();
  }
  template <typename R>
  static __device__ __forceinline__ R combine(R a, R b) {
    return a > b || a != a ? a : b;
  }
};

// Over the 32 threads of a warp; all of them get the result.
template <typename Op, typename R>
__device__ __forceinline__ R warp_reduce(R value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1)
    value = Op::combine(value, __shfl_xor_sync(WHOLE_WARP, value, offset));
  return value;
}

// Over a block of whole warps along x, in an order that the block's size alone determines; all
// threads get the result. Every thread of the block must call it.
template <typename Op, typename R>
__device__ __forceinline__ R block_reduce(R value) {
  __shared__ R partial[32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  value = warp_reduce<Op>(value);
  if (warps == 1) return value;
  __syncthreads();  // the last call's results may still be being read
  if (lane == 0) partial[warp] = value;
  __syncthreads();
  value = lane < warps ? partial[lane] : Op::template identity<R>();
  return warp_reduce<Op>(value);
}
