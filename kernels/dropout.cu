// Dropout: y = x * scale where the element's random word is at least `threshold`, else x * 0.
//
// No mask is stored. The gradient is the same kernel on g: the words follow from key and position.
#include "common.cuh"
#include "philox.cuh"

extern "C" __global__ void dropout(const T* __restrict__ x, T* __restrict__ y, uint64 key,
                                   uint64 position, uint32 threshold, A scale, index_t n) {
  const auto kept = [=](T value, uint32 word) {
    return narrow<T>(widen(value) * (word >= threshold ? scale : A(0)));
  };
  const bool together = (uint64(x) | uint64(y)) % alignof(Quad<T>) == 0;
  for_words(
      key, position, n, together,
      [=](index_t i, uint32 word) { y[i] = kept(x[i], word); },
      [=](index_t i, Words words) {
        Quad<T> quad = *reinterpret_cast<const Quad<T>*>(x + i);
#pragma unroll
        for (int j = 0; j < 4; ++j) quad.at[j] = kept(quad.at[j], words.at[j]);
        *reinterpret_cast<Quad<T>*>(y + i) = quad;
      });
}
