// Many tensors in one launch.
//
// Each block has a chunk of one tensor: owner[block] says of which, offset[block] where in it the
// chunk begins. pointers holds the addresses of the tensors, `kinds` of them for each (a parameter
// and its gradient, say). The tables but `pointers` are made once; see launch/optimizer.py.
#pragma once

constexpr int CHUNK = 4096;

struct Many {
  const uint64* pointers;
  const index_t* sizes;
  const int* owner;
  const index_t* offset;
};

// The chunk of this block.
struct Chunk {
  int tensor;
  index_t begin;
  int n;

  __device__ __forceinline__ explicit Chunk(const Many& many) {
    tensor = many.owner[blockIdx.x];
    begin = many.offset[blockIdx.x];
    const index_t left = many.sizes[tensor] - begin;
    n = left < CHUNK ? int(left) : CHUNK;
  }

  __device__ __forceinline__ T* of(const Many& many, int kinds, int kind) const {
    return reinterpret_cast<T*>(many.pointers[kinds * tensor + kind]) + begin;
  }
};

template <typename E>
__device__ __forceinline__ bool aligned_quad(const E* pointer) {
  return uint64(pointer) % alignof(Quad<E>) == 0;
}
