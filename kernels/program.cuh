// What generated kernels are made of: the functions that tensorgrad/program/functions.py names, for
// float (tg_exp_f) and double (tg_exp_d), and reductions over the team of threads that has a row.
#pragma once

#include "common.cuh"
#include "math.cuh"
#include "philox.cuh"

#ifdef __CUDACC_RTC__
#pragma nv_diag_suppress 177  // a value that only another phase needs
using int32_t = int;
using int64_t = long;
using int16_t = short;
using int8_t = signed char;
using uint64_t = unsigned long;
using uint32_t = unsigned int;
using uint16_t = unsigned short;
using uint8_t = unsigned char;
#endif

#undef NAN
#undef INFINITY
#define NAN bits_to_float(0x7fc00000u)
#define INFINITY bits_to_float(0x7f800000u)

#define TG __device__ __forceinline__

#define TG_BOTH(T, s)                                                  \
  TG T tg_abs_##s(T x) { return fabs(x); }                             \
  TG T tg_sqrt_##s(T x) { return sqrt(x); }                            \
  TG T tg_floor_##s(T x) { return floor(x); }                          \
  TG T tg_ceil_##s(T x) { return ceil(x); }                            \
  TG T tg_trunc_##s(T x) { return trunc(x); }                          \
  TG T tg_rint_##s(T x) { return rint(x); }                            \
  TG T tg_max_##s(T a, T b) { return a > b || a != a ? a : b; }        \
  TG T tg_min_##s(T a, T b) { return a < b || a != a ? a : b; }        \
  TG T tg_sign_##s(T x) { return x != x ? x : T((x > 0) - (x < 0)); }  \
  TG bool tg_finite_##s(T x) { return x - x == 0; }                    \
  TG T tg_exp_##s(T x) { return exp(x); }                              \
  TG T tg_expm1_##s(T x) { return expm1(x); }                          \
  TG T tg_exp2_##s(T x) { return exp2(x); }                            \
  TG T tg_log_##s(T x) { return log(x); }                              \
  TG T tg_log1p_##s(T x) { return log1p(x); }                          \
  TG T tg_log2_##s(T x) { return log2(x); }                            \
  TG T tg_log10_##s(T x) { return log10(x); }                          \
  TG T tg_sin_##s(T x) { return sin(x); }                              \
  TG T tg_cos_##s(T x) { return cos(x); }                              \
  TG T tg_tan_##s(T x) { return tan(x); }                              \
  TG T tg_asin_##s(T x) { return asin(x); }                            \
  TG T tg_acos_##s(T x) { return acos(x); }                            \
  TG T tg_atan_##s(T x) { return atan(x); }                            \
  TG T tg_atan2_##s(T x, T y) { return atan2(x, y); }                  \
  TG T tg_hypot_##s(T x, T y) { return hypot(x, y); }                  \
  TG T tg_sinh_##s(T x) { return sinh(x); }                            \
  TG T tg_cosh_##s(T x) { return cosh(x); }                            \
  TG T tg_tanh_##s(T x) { return tanh(x); }                            \
  TG T tg_asinh_##s(T x) { return asinh(x); }                          \
  TG T tg_acosh_##s(T x) { return acosh(x); }                          \
  TG T tg_atanh_##s(T x) { return atanh(x); }                          \
  TG T tg_erf_##s(T x) { return erf(x); }                              \
  TG T tg_sigmoid_##s(T x) { return sigmoid(x); }                      \
  TG T tg_pow_##s(T x, T y) { return pow(x, y); }                      \
  TG T tg_remainder_##s(T x, T y) {                                    \
    T m = fmod(x, y);                                                  \
    if (y == 0) return m;                                              \
    return m == 0 ? copysign(T(0), y) : (y < 0) != (m < 0) ? m + y : m; \
  }                                                                    \
  TG T tg_floor_divide_##s(T x, T y) {                                 \
    if (y == 0) return x / y;                                          \
    T m = fmod(x, y), q = (x - m) / y;                                 \
    if (m != 0 && (y < 0) != (m < 0)) q -= 1;                          \
    if (q == 0) return copysign(T(0), x / y);                          \
    T whole = floor(q);                                                \
    return q - whole > T(0.5) ? whole + 1 : whole;                     \
  }                                                                    \
  TG T tg_logaddexp_##s(T x, T y) {                                    \
    if (x == y) return x + T(0.693147180559945309417);                 \
    T top = x > y ? x : y, d = fabs(x - y);                            \
    return d != d ? d : top + log1p(exp(-d));                          \
  }

TG_BOTH(float, f)
TG_BOTH(double, d)

// Word i of the stream that belongs to key.
TG uint32 tg_word(int64_t key, int64_t i) {
  return philox_block(uint64(key), uint64(i) >> 2).at[i & 3];
}

// The words of the elements that a thread has in four steps: w[s] belongs to number i + s * step of
// the stream. All lanes of a warp call it, and i is their lane more than in the first of them. Four
// neighbouring lanes need four words of one block in each step. So each makes the block of one step,
// and they exchange: four times as few blocks as words.
TG void tg_words(int64_t key, int64_t i, int64_t step, uint32* w) {
  const int lane = threadIdx.x & 31, mine = lane & 3;
  if (((i - lane) | step) & 3) {  // the same for all lanes
#pragma unroll
    for (int s = 0; s < 4; ++s) w[s] = tg_word(key, i + s * step);
    return;
  }
  Words words = philox_block(uint64(key), uint64(i + mine * step) >> 2);
#pragma unroll
  for (int apart = 1; apart < 4; apart *= 2)
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (!(k & apart)) {  // lanes with the bit give the lower of the two, the others the upper one
        uint32 &lower = words.at[k], &upper = words.at[k | apart];
        const uint32 got = __shfl_xor_sync(WHOLE_WARP, mine & apart ? lower : upper, apart);
        (mine & apart ? lower : upper) = got;
      }
#pragma unroll
  for (int s = 0; s < 4; ++s) w[s] = words.at[s];
}

// 16-bit floats are numbers of float outside of memory.
using tg_half = f16;
using tg_bfloat = bf16;
TG float tg_half_is(tg_half h) { return widen(h); }
TG tg_half tg_half_of(float x) { return narrow<f16>(x); }
TG float tg_bfloat_is(tg_bfloat h) { return widen(h); }
TG tg_bfloat tg_bfloat_of(float x) { return narrow<bf16>(x); }

struct Min {
  template <typename R>
  static TG R identity() {
    return infinity<R>();
  }
  template <typename R>
  static TG R combine(R a, R b) {
    return a < b || a != a ? a : b;
  }
};

// Of integers, every one of which is a number.
#define TG_WHOLE(I, low, high)                  \
  template <>                                   \
  TG I Max::identity<I>() {                     \
    return low;                                 \
  }                                             \
  template <>                                   \
  TG I Min::identity<I>() {                     \
    return high;                                \
  }
TG_WHOLE(int8_t, -128, 127)
TG_WHOLE(int16_t, -32768, 32767)
TG_WHOLE(int32_t, -2147483647 - 1, 2147483647)
TG_WHOLE(int64_t, -9223372036854775807 - 1, 9223372036854775807)
TG_WHOLE(uint8_t, 0, 255)
TG_WHOLE(uint16_t, 0, 65535)
TG_WHOLE(uint32_t, 0, 4294967295u)
TG_WHOLE(uint64_t, 0, 18446744073709551615u)

struct Product {
  template <typename R>
  static TG R identity() {
    return R(1);
  }
  template <typename R>
  static TG R combine(R a, R b) {
    return a * b;
  }
};

// Over the team of a row, a warp or a whole block; all its threads get the result.
template <typename Op, int width, typename R>
TG R team_reduce(R value) {
  if constexpr (width == 32) {
    return warp_reduce<Op>(value);
  } else {
    return block_reduce<Op>(value);
  }
}

// Over the warps of a block of 1024 threads, for each lane by itself; the first warp gets the results.
template <typename Op, typename R>
TG R column_reduce(R value) {
  __shared__ R partial[32][32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  __syncthreads();  // the last call's results may still be being read
  partial[warp][lane] = value;
  __syncthreads();
  if (warp == 0)
    for (int w = 1; w < 32; ++w) value = Op::template combine<R>(value, partial[w][lane]);
  return value;
}
