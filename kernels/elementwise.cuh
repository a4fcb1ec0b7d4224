// Walking over contiguous arrays element by element, 16 bytes at a time where pointers allow.
#pragma once

// y[i] = function(x[i]) for the n elements.
template <typename Function>
__device__ __forceinline__ void map(const T* __restrict__ x, T* __restrict__ y, index_t n,
                                    Function function) {
  constexpr int size = Pack<T>::size;
  index_t done = 0;
  if (aligned16(x) && aligned16(y)) {
    const index_t packs = n / size;
    for (index_t i = thread_number(); i < packs; i += thread_count()) {
      const Pack<T> in = reinterpret_cast<const Pack<T>*>(x)[i];
      Pack<T> out;
#pragma unroll
      for (int k = 0; k < size; ++k) out.at[k] = narrow<T>(function(widen(in.at[k])));
      reinterpret_cast<Pack<T>*>(y)[i] = out;
    }
    done = packs * size;
  }
  for (index_t i = done + thread_number(); i < n; i += thread_count())
    y[i] = narrow<T>(function(widen(x[i])));
}

// d[i] = function(g[i], s[i]), likewise.
template <typename Function>
__device__ __forceinline__ void map2(const T* __restrict__ g, const T* __restrict__ s,
                                     T* __restrict__ d, index_t n, Function function) {
  constexpr int size = Pack<T>::size;
  index_t done = 0;
  if (aligned16(g) && aligned16(s) && aligned16(d)) {
    const index_t packs = n / size;
    for (index_t i = thread_number(); i < packs; i += thread_count()) {
      const Pack<T> in = reinterpret_cast<const Pack<T>*>(g)[i];
      const Pack<T> saved = reinterpret_cast<const Pack<T>*>(s)[i];
      Pack<T> out;
#pragma unroll
      for (int k = 0; k < size; ++k)
        out.at[k] = narrow<T>(function(widen(in.at[k]), widen(saved.at[k])));
      reinterpret_cast<Pack<T>*>(d)[i] = out;
    }
    done = packs * size;
  }
  for (index_t i = done + thread_number(); i < n; i += thread_count())
    d[i] = narrow<T>(function(widen(g[i]), widen(s[i])));
}
