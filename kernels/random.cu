// Random words, integers, uniform and normal numbers: bit for bit those of the CPU, for every key,
// position and number, except the normal ones, which depend on the device's log, sin and cos in
// double precision and agree to the last bits. Formulas: tensorgrad/backend/philox.py.
#include "common.cuh"
#include "philox.cuh"

// Pairs of words as one number each: out[i] = word 2i + 2^32 * word 2i + 1.
extern "C" __global__ void random_words(uint64* out, uint64 key, uint64 position, index_t n) {
  for (index_t i = thread_number(); i < n; i += thread_count()) {
    const Words w = philox_words<2>(key, position + 2 * uint64(i));
    out[i] = uint64(w.at[1]) << 32 | w.at[0];
  }
}

// Integers in [low, low + count), 0 < count <= 2^32: the integer part of (64 bits / 2^64) * count.
extern "C" __global__ void random_integers(index_t* out, uint64 key, uint64 position, index_t low,
                                           uint64 count, index_t n) {
  for (index_t i = thread_number(); i < n; i += thread_count()) {
    const Words w = philox_words<2>(key, position + 2 * uint64(i));
    out[i] = low + index_t((w.at[1] * count + ((w.at[0] * count) >> 32)) >> 32);
  }
}

// --- uniform -------------------------------------------------------------------------------------

// Numbers in [0, 1) as a multiple of 2^-24; for the 16-bit floats cut down to the bits that they
// hold, since rounding could give 1.
__device__ __forceinline__ float uniform_from(uint32 word, f16*) {
  return floorf(float(word >> 8) * 0x1p-24f * 2048.0f) / 2048.0f;
}
__device__ __forceinline__ float uniform_from(uint32 word, bf16*) {
  return floorf(float(word >> 8) * 0x1p-24f * 256.0f) / 256.0f;
}
__device__ __forceinline__ float uniform_from(uint32 word, float*) {
  return float(word >> 8) * 0x1p-24f;
}

template <typename E>
__device__ __forceinline__ void uniform_numbers(E* out, uint64 key, uint64 position, float width,
                                                float low, bool plain, index_t n) {
  E* kind = nullptr;
  const auto number = [=](uint32 word) {
    const float u = uniform_from(word, kind);
    return narrow<E>(plain ? u : multiply_add(u, width, low));
  };
  const bool together = uint64(out) % alignof(Quad<E>) == 0;
  for_words(
      key, position, n, together, [=](index_t i, uint32 word) { out[i] = number(word); },
      [=](index_t i, Words words) {
        Quad<E> quad;
#pragma unroll
        for (int j = 0; j < 4; ++j) quad.at[j] = number(words.at[j]);
        *reinterpret_cast<Quad<E>*>(out + i) = quad;
      });
}
__device__ __forceinline__ void uniform_numbers(double* out, uint64 key, uint64 position,
                                                double width, double low, bool plain, index_t n) {
  for (index_t i = thread_number(); i < n; i += thread_count()) {
    const Words w = philox_words<2>(key, position + 2 * uint64(i));
    const double u = integer_53(w.at[0], w.at[1]) * 0x1p-53;
    out[i] = plain ? u : multiply_add(u, width, low);
  }
}

// plain: [0, 1), without the scaling.
extern "C" __global__ void random_uniform(T* out, uint64 key, uint64 position, A width, A low,
                                          int plain, index_t n) {
  uniform_numbers(out, key, position, width, low, plain != 0, n);
}

// --- normal --------------------------------------------------------------------------------------

// Box and Muller: r cos(a) and r sin(a), r = sqrt(-2 log(u)), u in (0, 1], a in [0, 2 pi). In double
// precision throughout: float's own log and sin would be off by more than 2 units in the last place
// where they are near 0.
__device__ __forceinline__ double normal_from(double u, double a, bool second) {
  const double r = sqrt(-2.0 * log(u));
  return (second ? sin(a) : cos(a)) * r;
}

template <typename E>
__device__ __forceinline__ void normal_numbers(E* out, uint64 key, uint64 position, float std,
                                               float mean, index_t n) {
  for (index_t i = thread_number(); i < n; i += thread_count()) {
    // the pair of words that this number shares with its neighbour begins at an even position
    const uint64 p = position + uint64(i);
    const Words w = philox_words<2>(key, p & ~uint64(1));
    const double u = (double(w.at[0]) + 1.0) * 0x1p-32;
    const double a = double(w.at[1]) * (6.283185307179586476925286766559 * 0x1p-32);
    const float z = float(normal_from(u, a, p & 1));
    out[i] = narrow<E>(multiply_add(z, std, mean));
  }
}
__device__ __forceinline__ void normal_numbers(double* out, uint64 key, uint64 position, double std,
                                               double mean, index_t n) {
  const uint64 skip = position & 1;
  for (index_t i = thread_number(); i < n; i += thread_count()) {
    const uint64 p = position + 2 * uint64(i) - skip;
    const Words w = philox_words<4>(key, (p & ~uint64(3)) + skip);
    const double u = (integer_53(w.at[0], w.at[1]) + 1.0) * 0x1p-53;
    const double a =
        integer_53(w.at[2], w.at[3]) * (6.283185307179586476925286766559 * 0x1p-53);
    out[i] = multiply_add(normal_from(u, a, (p & 2) != 0), std, mean);
  }
}

extern "C" __global__ void random_normal(T* out, uint64 key, uint64 position, A std, A mean,
                                         index_t n) {
  normal_numbers(out, key, position, std, mean, n);
}
