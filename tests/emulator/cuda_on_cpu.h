// Runs CUDA kernels on the CPU: every thread of a block is a fiber on one thread of the system.
//
// A kernel source is compiled with this header included before its first line, and followed by one
// CUDA_ON_CPU_KERNEL(name, largest block) per kernel; emulator.py does both. Blocks run one after
// another. A schedule says which of the threads that could go on does so next; a thread runs until
// it ends or reaches a barrier, a shuffle or a vote. There it waits until the other threads have
// come that must, and where they never do, the launch ends with an error that says who waits where.
//
// What this cannot show:
//   - Streams, events and lifetimes: a launch is over when it returns, nothing overlaps.
//   - The memory model: threads switch at barriers, shuffles and votes alone, and blocks do not
//     overlap. Races between blocks, missing fences and non-atomic updates go unseen, and a thread
//     that spins until another one writes never ends.
//   - The GPU's rounding: its exp, erf or sqrt differ from the C library's in the last places, and
//     it contracts to fused multiply-adds where this does not.
//   - Tensor cores, inline PTX, textures, cooperative groups, dynamic shared memory.
//   - Registers, shared memory in total, occupancy, coalescing, bank conflicts, speed.
//   - What NVRTC refuses and g++ takes, such as <stdint.h>'s types.
//
// This is what a kernel sees; how threads are run is in cuda_on_cpu.cpp, compiled once for all.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>
#include <typeinfo>
#include <utility>

// NVRTC does not know these: a kernel that uses them must fail here too.
#undef INFINITY
#undef NAN
#undef HUGE_VAL
#undef M_PI
#undef M_E
#undef M_SQRT2
#undef M_SQRT1_2
#undef M_LN2
#undef M_LOG2E

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Declarations too, so that kernels and runtime, in one library, refer to each other directly.
#pragma GCC visibility push(hidden)
namespace cuda_on_cpu {

// Where execution is: what threadIdx, blockIdx, blockDim, gridDim and the shuffles look at. It is a
// plain global, as a thread-local one would be looked up at each use; a library runs one launch at
// a time.
struct Running {
  const dim3* thread;
  int lane;
  dim3 block, block_size, grid_size;
};
extern Running running;

enum class Kind : uint8_t { none, barrier, syncwarp, shuffle, vote };

// Each waits until the threads have come that must.
void wait_at_barrier(int line);
uint64_t exchange(int line, Kind kind, unsigned mask, uint64_t value, int source);

// Ends the launch; called by a thread.
[[noreturn]] void fail(const char* what);

// A place in the source where threads wait. The line stands for it, not the address that the call
// returns to: the optimizer may copy a call, and a copy is the same barrier.
class Site {
 public:
  explicit Site(int line) : line_(line) {}

  void barrier() const { wait_at_barrier(line_); }

  void sync_warp(unsigned mask = ~0u) const { exchange(line_, Kind::syncwarp, mask, 0, 0); }

  template <typename V>
  V shuffle(unsigned mask, V value, int source, int width = 32) const {
    return shuffle_from(mask, value, source & 31, width);
  }
  template <typename V>
  V shuffle_xor(unsigned mask, V value, int lanes, int width = 32) const {
    const int own = running.lane, source = own ^ lanes;
    return shuffle_from(mask, value, source < 32 && source >= 0 ? source : own, width);
  }
  template <typename V>
  V shuffle_up(unsigned mask, V value, unsigned delta, int width = 32) const {
    const int own = running.lane;
    return shuffle_from(mask, value, delta <= unsigned(own) ? own - int(delta) : own, width);
  }
  template <typename V>
  V shuffle_down(unsigned mask, V value, unsigned delta, int width = 32) const {
    const int own = running.lane;
    return shuffle_from(mask, value, delta < unsigned(32 - own) ? own + int(delta) : own, width);
  }

  unsigned ballot(unsigned mask, int predicate) const {
    return unsigned(exchange(line_, Kind::vote, mask, predicate != 0, 0));
  }
  int any(unsigned mask, int predicate) const { return ballot(mask, predicate) != 0; }
  int all(unsigned mask, int predicate) const { return ballot(mask, predicate) == mask; }

 private:
  template <typename V>
  V shuffle_from(unsigned mask, V value, int source, int width) const {
    static_assert(sizeof(V) <= 8 && std::is_trivially_copyable<V>::value, "not a shuffle's type");
    if (width != 32) fail("a shuffle of another width than 32 is not emulated");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(V));
    bits = exchange(line_, Kind::shuffle, mask, bits, source);
    memcpy(&value, &bits, sizeof(V));
    return value;
  }

  int line_;
};

// What comes with a launch from outside.
struct Request {
  unsigned shape[6];  // the grid's x, y, z and the block's
  int schedule;
  int room;     // how long an error may be
  char* error;  // it is empty if there was none
  void** values;
};

// Runs `body(arguments)` once per thread, or writes why it did not.
void launch(const char* kernel, Request& request, unsigned largest, void (*body)(void*),
            void* arguments);

// The types' names, a line each; allocated.
const char* names(const std::type_info* const* types, int count);

template <typename... P, size_t... I>
void call(const char* name, void (*kernel)(P...), unsigned largest, Request& request,
          std::index_sequence<I...>) {
  auto body = [&] { kernel(*static_cast<std::remove_cv_t<P>*>(request.values[I])...); };
  auto run = [](void* pointer) { (*static_cast<decltype(body)*>(pointer))(); };
  launch(name, request, largest, run, &body);
}

template <typename... P>
void call(const char* name, void (*kernel)(P...), unsigned largest, Request& request) {
  call(name, kernel, largest, request, std::index_sequence_for<P...>{});
}

template <typename... P>
const char* parameters(void (*)(P...)) {
  const std::type_info* const types[] = {&typeid(P)..., nullptr};
  return names(types, sizeof...(P));
}

}  // namespace cuda_on_cpu
#pragma GCC visibility pop

#define CUDA_ON_CPU_PUBLIC extern "C" __attribute__((visibility("default"), used))

#define CUDA_ON_CPU_KERNEL(name, largest)                                         \
  CUDA_ON_CPU_PUBLIC void cuda_on_cpu_launch_##name(cuda_on_cpu::Request* request) { \
    cuda_on_cpu::call(#name, &name, unsigned(largest), *request);                 \
  }                                                                               \
  CUDA_ON_CPU_PUBLIC const char* cuda_on_cpu_parameters_##name() {                \
    static const char* const types = cuda_on_cpu::parameters(&name);              \
    return types;                                                                 \
  }

// --- CUDA's names --------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)

// The thread-local variables of a library are its __shared__ ones, so they are a segment that can
// be found and filled with 0xff (NaN, -1) before each block. The address sanitizer does not watch
// that segment: under it they are plain statics, and keep their values.
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static
#else
#define __shared__ static thread_local
#endif

#define threadIdx (*cuda_on_cpu::running.thread)
#define blockIdx (cuda_on_cpu::running.block)
#define blockDim (cuda_on_cpu::running.block_size)
#define gridDim (cuda_on_cpu::running.grid_size)
#define warpSize 32

#define __syncthreads() (cuda_on_cpu::Site(__LINE__).barrier())
#define __syncwarp(...) (cuda_on_cpu::Site(__LINE__).sync_warp(__VA_ARGS__))
#define __shfl_sync(...) (cuda_on_cpu::Site(__LINE__).shuffle(__VA_ARGS__))
#define __shfl_xor_sync(...) (cuda_on_cpu::Site(__LINE__).shuffle_xor(__VA_ARGS__))
#define __shfl_up_sync(...) (cuda_on_cpu::Site(__LINE__).shuffle_up(__VA_ARGS__))
#define __shfl_down_sync(...) (cuda_on_cpu::Site(__LINE__).shuffle_down(__VA_ARGS__))
#define __ballot_sync(...) (cuda_on_cpu::Site(__LINE__).ballot(__VA_ARGS__))
#define __any_sync(...) (cuda_on_cpu::Site(__LINE__).any(__VA_ARGS__))
#define __all_sync(...) (cuda_on_cpu::Site(__LINE__).all(__VA_ARGS__))

inline void __threadfence() {}
inline void __threadfence_block() {}

// Threads switch at barriers alone, so plain reads and writes are atomic.
#define CUDA_ON_CPU_ATOMICS(N)                                        \
  inline N atomicAdd(N* address, N value) {                           \
    const N old = *address;                                           \
    *address = old + value;                                           \
    return old;                                                       \
  }                                                                   \
  inline N atomicExch(N* address, N value) {                          \
    const N old = *address;                                           \
    *address = value;                                                 \
    return old;                                                       \
  }
#define CUDA_ON_CPU_INTEGER_ATOMICS(N)                                \
  CUDA_ON_CPU_ATOMICS(N)                                              \
  inline N atomicMax(N* address, N value) {                           \
    const N old = *address;                                           \
    *address = old > value ? old : value;                             \
    return old;                                                       \
  }                                                                   \
  inline N atomicMin(N* address, N value) {                           \
    const N old = *address;                                           \
    *address = old < value ? old : value;                             \
    return old;                                                       \
  }                                                                   \
  inline N atomicCAS(N* address, N expected, N value) {               \
    const N old = *address;                                           \
    if (old == expected) *address = value;                            \
    return old;                                                       \
  }
CUDA_ON_CPU_INTEGER_ATOMICS(int)
CUDA_ON_CPU_INTEGER_ATOMICS(unsigned)
CUDA_ON_CPU_INTEGER_ATOMICS(unsigned long long)
CUDA_ON_CPU_ATOMICS(float)
CUDA_ON_CPU_ATOMICS(double)
#undef CUDA_ON_CPU_ATOMICS
#undef CUDA_ON_CPU_INTEGER_ATOMICS

template <typename V>
inline V __ldg(const V* address) {
  return *address;
}

template <typename To, typename From>
inline To cuda_on_cpu_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "as many bits");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}
inline unsigned __float_as_uint(float x) { return cuda_on_cpu_bits<unsigned>(x); }
inline int __float_as_int(float x) { return cuda_on_cpu_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return cuda_on_cpu_bits<float>(x); }
inline float __int_as_float(int x) { return cuda_on_cpu_bits<float>(x); }
inline long long __double_as_longlong(double x) { return cuda_on_cpu_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return cuda_on_cpu_bits<double>(x); }

inline unsigned __umulhi(unsigned a, unsigned b) {
  return unsigned((unsigned long long)(a)*b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)(a)*b >> 64);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }

// Conversions saturate and take NaN to zero.
inline int __float2int_rn(float x) {
  if (x != x) return 0;
  const float rounded = nearbyintf(x);
  return rounded >= 2147483648.0f ? 2147483647
                                  : rounded < -2147483648.0f ? -2147483647 - 1 : int(rounded);
}

// <math.h> of C++ has the overloads for float and double of exp, log, erf, fmax and the like in the
// global namespace, as CUDA does. These are CUDA's own.
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline void sincos(float x, float* sine, float* cosine) { sincosf(x, sine, cosine); }
// Of pi x: the argument is reduced exactly first, so that whole and half numbers give exact values.
inline void sincospi(double x, double* sine, double* cosine) {
  const double turn = fmod(x, 2.0), half_turns = rint(turn * 2.0);
  double s, c;
  sincos((turn - half_turns * 0.5) * 3.14159265358979323846, &s, &c);
  switch (int(half_turns) & 3) {
    case 0: *sine = s, *cosine = c; break;
    case 1: *sine = c, *cosine = -s; break;
    case 2: *sine = -s, *cosine = -c; break;
    default: *sine = -c, *cosine = s;
  }
}
inline void sincospi(float x, float* sine, float* cosine) {
  double s, c;
  sincospi(double(x), &s, &c);
  *sine = float(s), *cosine = float(c);
}
inline void sincospif(float x, float* sine, float* cosine) { sincospi(x, sine, cosine); }
inline double sinpi(double x) {
  double s, c;
  sincospi(x, &s, &c);
  return s;
}
inline double cospi(double x) {
  double s, c;
  sincospi(x, &s, &c);
  return c;
}
inline float sinpif(float x) { return float(sinpi(double(x))); }
inline float cospif(float x) { return float(cospi(double(x))); }

// CUDA's min and max take any two numbers of the usual types; both are brought to their common one.
template <typename X, typename Y>
inline typename std::enable_if<std::is_arithmetic<X>::value && std::is_arithmetic<Y>::value,
                               typename std::common_type<X, Y>::type>::type
min(X x, Y y) {
  using Common = typename std::common_type<X, Y>::type;
  if constexpr (std::is_floating_point<Common>::value) return fmin(Common(x), Common(y));
  else return Common(y) < Common(x) ? Common(y) : Common(x);
}
template <typename X, typename Y>
inline typename std::enable_if<std::is_arithmetic<X>::value && std::is_arithmetic<Y>::value,
                               typename std::common_type<X, Y>::type>::type
max(X x, Y y) {
  using Common = typename std::common_type<X, Y>::type;
  if constexpr (std::is_floating_point<Common>::value) return fmax(Common(x), Common(y));
  else return Common(x) < Common(y) ? Common(y) : Common(x);
}
