// Philox 4x32-10: random words as a function of a key and a position.
//
// Word i of a stream is word i % 4 of the block whose counter is i / 4, as in
// tensorgrad/backend/philox.py. Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw,
// "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once

struct Words {
  uint32 at[4];
};

__device__ __forceinline__ Words philox_block(uint64 key, uint64 counter) {
  uint32 c0 = uint32(counter), c1 = uint32(counter >> 32), c2 = 0, c3 = 0;
  uint32 k0 = uint32(key), k1 = uint32(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64 p0 = uint64(0xD2511F53u) * c0, p1 = uint64(0xCD9E8D57u) * c2;
    c0 = uint32(p1 >> 32) ^ c1 ^ k0;
    c1 = uint32(p1);
    c2 = uint32(p0 >> 32) ^ c3 ^ k1;
    c3 = uint32(p0);
    k0 += 0x9E3779B9u;  // the Weyl increments of the key
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// The `count` <= 4 words that begin at `position`, which may lie in two blocks.
template <int count>
__device__ __forceinline__ Words philox_words(uint64 key, uint64 position) {
  const int skip = int(position & 3);
  const Words first = philox_block(key, position >> 2);
  if (skip + count <= 4) {
    Words found = {};
#pragma unroll
    for (int j = 0; j < count; ++j) found.at[j] = first.at[(skip + j) & 3];
    return found;
  }
  const Words second = philox_block(key, (position >> 2) + 1);
  Words found = {};
#pragma unroll
  for (int j = 0; j < count; ++j)
    found.at[j] = skip + j < 4 ? first.at[(skip + j) & 3] : second.at[(skip + j) & 3];
  return found;
}

// The upper 53 bits of the number high * 2^32 + low.
__device__ __forceinline__ double integer_53(uint32 low, uint32 high) {
  return double((uint64(high) << 32 | low) >> 11);
}

// a * b + c with both roundings, as NumPy computes it: a fused multiply-add would give other bits.
__device__ __forceinline__ float multiply_add(float a, float b, float c) {
#ifdef __CUDACC__
  return __fadd_rn(__fmul_rn(a, b), c);
#else
  return a * b + c;
#endif
}
__device__ __forceinline__ double multiply_add(double a, double b, double c) {
#ifdef __CUDACC__
  return __dadd_rn(__dmul_rn(a, b), c);
#else
  return a * b + c;
#endif
}

// Calls work(i, word) for the elements i < n, of which number i gets word position + i. A thread
// takes the elements that share a block, and hands all four to work4 at once where it may.
template <typename Work, typename Work4>
__device__ __forceinline__ void for_words(uint64 key, uint64 position, index_t n, bool together,
                                          Work work, Work4 work4) {
  const index_t skip = index_t(position & 3);
  const index_t blocks = (skip + n + 3) >> 2;
  for (index_t b = thread_number(); b < blocks; b += thread_count()) {
    const Words words = philox_block(key, (position >> 2) + uint64(b));
    const index_t first = 4 * b - skip;
    if (together && skip == 0 && first + 4 <= n) {
      work4(first, words);
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const index_t i = first + j;
        if (i >= 0 && i < n) work(i, words.at[j]);
      }
    }
  }
}
