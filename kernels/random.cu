// Random words, integers, uniform and normal numbers: bit for bit those of the CPU, for every key,
// position and number, except the normal ones, which depend on how log, sin and cos are computed and
// agree to the last bits. Formulas: tensorgrad/backend/philox.py.
//
// A thread makes what one block of four words gives: four numbers of one word, two of two.
#include "common.cuh"
#include "philox.cuh"

// Calls work(i, lower, upper) for the elements i < n, which have two words each, and work2(i, words)
// for two elements at once where it may.
template <typename Work, typename Work2>
__device__ __forceinline__ void for_word_pairs(uint64 key, uint64 position, index_t n,
                                               bool together, Work work, Work2 work2) {
  if (position & 1) {  // the words of every second number lie in two blocks
    for (index_t i = thread_number(); i < n; i += thread_count()) {
      const Words w = philox_words<2>(key, position + 2 * uint64(i));
      work(i, w.at[0], w.at[1]);
    }
    return;
  }
  const index_t skip = index_t(position >> 1) & 1;
  const index_t blocks = (skip + n + 1) >> 1;
  for (index_t b = thread_number(); b < blocks; b += thread_count()) {
    const Words w = philox_block(key, (position >> 2) + uint64(b));
    const index_t first = 2 * b - skip;
    if (together && skip == 0 && first + 2 <= n) {
      work2(first, w);
    } else {
      if (first >= 0) work(first, w.at[0], w.at[1]);
      if (first + 1 < n) work(first + 1, w.at[2], w.at[3]);
    }
  }
}

// out[i] = number(lower word, upper word).
template <typename E, typename Number>
__device__ __forceinline__ void numbers_of_pairs(E* out, uint64 key, uint64 position, index_t n,
                                                 Number number) {
  for_word_pairs(
      key, position, n, aligned16(out),
      [=](index_t i, uint32 lower, uint32 upper) { out[i] = number(lower, upper); },
      [=](index_t i, Words w) {
        store_pack(out + i, Pack<E>{number(w.at[0], w.at[1]), number(w.at[2], w.at[3])});
      });
}

// Pairs of words as one number each: out[i] = word 2i + 2^32 * word 2i + 1.
extern "C" __global__ void random_words(uint64* out, uint64 key, uint64 position, index_t n) {
  numbers_of_pairs(out, key, position, n, [](uint32 lower, uint32 upper) -> uint64 {
    return uint64(upper) << 32 | lower;
  });
}

// Integers in [low, low + count), 0 < count <= 2^32: the integer part of (64 bits / 2^64) * count.
extern "C" __global__ void random_integers(index_t* out, uint64 key, uint64 position, index_t low,
                                           uint64 count, index_t n) {
  numbers_of_pairs(out, key, position, n, [=](uint32 lower, uint32 upper) -> index_t {
    return low + index_t((upper * count + ((lower * count) >> 32)) >> 32);
  });
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
  numbers_of_pairs(out, key, position, n, [=](uint32 lower, uint32 upper) -> double {
    const double u = integer_53(lower, upper) * 0x1p-53;
    return plain ? u : multiply_add(u, width, low);
  });
}

// plain: [0, 1), without the scaling.
extern "C" __global__ void random_uniform(T* out, uint64 key, uint64 position, A width, A low,
                                          int plain, index_t n) {
  uniform_numbers(out, key, position, width, low, plain != 0, n);
}

// --- normal --------------------------------------------------------------------------------------

// Box and Muller: r cos(a) and r sin(a), r = sqrt(-2 log(u)), u in (0, 1], a in [0, 2 pi), of two
// words: u = (w + 1) / 2^32, a = 2 pi w' / 2^32.
template <typename R>
struct Both {
  R first, second;
};

// cos and sin of a, a being `word` 2^32ths of a turn. The nearest quarter of a turn is taken off in
// integers, so that the rest is exact (turn + turn_low, in half turns), and numbers near 0 have all
// their digits. The polynomials are minimax approximations on [-1/4, 1/4].
__device__ __forceinline__ Both<float> cos_sin_of_word(uint32 word) {
  const uint32 quarter = (word + 0x20000000u) >> 30;
  const int rest = int(word - (quarter << 30));
  const float near = float(rest);
  const float turn = near * 0x1p-31f, turn_low = float(rest - int(near)) * 0x1p-31f;
  const float z = turn * turn;
  const float third = fmaf(fmaf(-0.58941877f, z, 2.5498052f), z, -5.1677089f) * z;
  const float pi = 3.1415927f, pi_low = -8.7422780e-8f;
  const float s = fmaf(pi, turn, fmaf(turn, pi_low + third, pi * turn_low));
  const float second = fmaf(fmaf(fmaf(0.23136425f, z, -1.3350506f), z, 4.0587077f), z, -4.9348021f);
  const float c = fmaf(second, z, 1.0f);
  const float x = quarter & 1 ? s : c, y = quarter & 1 ? c : s;
  return {(quarter + 1) & 2 ? -x : x, quarter & 2 ? -y : y};
}

// -log((word + 1) / 2^32), and what the conversion of an integer to float leaves out.
__device__ __forceinline__ float minus_log_of_word(uint32 word) {
  if (word >> 31) {  // near 1: of the distance from it, which is exact
    const uint32 left = ~word;
    const float v = float(left), rest = float(int(left - uint32(v)));
    return rest / (0x1p32f - v) - log1p(v * -0x1p-32f);
  }
  const float v = float(word + 1), rest = float(int(word + 1 - uint32(v)));
  return -log(v * 0x1p-32f) - rest / v;
}

__device__ __forceinline__ Both<float> normal_pair(uint32 w, uint32 angle) {
  const float r = sqrt(2.0f * minus_log_of_word(w));
  const Both<float> on_circle = cos_sin_of_word(angle);
  return {on_circle.first * r, on_circle.second * r};
}

// In double precision, of 53 bits each.
__device__ __forceinline__ Both<double> normal_pair(Words w) {
  const double u = (integer_53(w.at[0], w.at[1]) + 1.0) * 0x1p-53;
  const double a = integer_53(w.at[2], w.at[3]) * (6.283185307179586476925286766559 * 0x1p-53);
  const double r = sqrt(-2.0 * log(u));
  double s, c;
  sincos(a, &s, &c);
  return {c * r, s * r};
}

// A pair begins at an even position: a block has two.
template <typename E>
__device__ __forceinline__ void normal_numbers(E* out, uint64 key, uint64 position, float std,
                                               float mean, index_t n) {
  const bool together = uint64(out) % alignof(Quad<E>) == 0;
  const index_t skip = index_t(position & 3);
  const index_t blocks = (skip + n + 3) >> 2;
  for (index_t b = thread_number(); b < blocks; b += thread_count()) {
    const Words w = philox_block(key, (position >> 2) + uint64(b));
    const Both<float> one = normal_pair(w.at[0], w.at[1]), two = normal_pair(w.at[2], w.at[3]);
    Quad<E> quad = {narrow<E>(multiply_add(one.first, std, mean)),
                    narrow<E>(multiply_add(one.second, std, mean)),
                    narrow<E>(multiply_add(two.first, std, mean)),
                    narrow<E>(multiply_add(two.second, std, mean))};
    const index_t first = 4 * b - skip;
    if (together && skip == 0 && first + 4 <= n) {
      *reinterpret_cast<Quad<E>*>(out + first) = quad;
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (first + j >= 0 && first + j < n) out[first + j] = quad.at[j];
    }
  }
}
// A pair takes four words, from a position that is `odd` more than a multiple of four.
__device__ __forceinline__ void normal_numbers(double* out, uint64 key, uint64 position, double std,
                                               double mean, index_t n) {
  const uint64 odd = position & 1;
  const uint64 begin = ((position - odd) & ~uint64(3)) + odd;
  const index_t skip = index_t(position - begin) >> 1;
  const index_t pairs = (skip + n + 1) >> 1;
  for (index_t q = thread_number(); q < pairs; q += thread_count()) {
    const Both<double> z = normal_pair(philox_words<4>(key, begin + 4 * uint64(q)));
    const Pack<double> pack = {multiply_add(z.first, std, mean), multiply_add(z.second, std, mean)};
    const index_t first = 2 * q - skip;
    if (aligned16(out) && skip == 0 && first + 2 <= n) {
      store_pack(out + first, pack);
    } else {
      if (first >= 0) out[first] = pack.at[0];
      if (first + 1 < n) out[first + 1] = pack.at[1];
    }
  }
}

extern "C" __global__ void random_normal(T* out, uint64 key, uint64 position, A std, A mean,
                                         index_t n) {
  normal_numbers(out, key, position, std, mean, n);
}
