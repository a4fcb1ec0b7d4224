// Row numbers in order, by a stable sort: what is added up by index goes through them (indexing.cu).
//
// Numbers are sorted by one byte after the other, the lowest first, each pass keeping the order of
// those whose byte is the same. It is counted how often each byte occurs in each chunk (sort_count);
// from this follows where a chunk's first number of each byte goes (sort_offsets), and there they are
// put in order (sort_place). Nothing depends on which block or warp comes first.
#include "common.cuh"

constexpr int DIGITS = 256, WARPS = 8, ROUNDS = 8;
// Numbers of a block: of each warp ROUNDS times 32 that follow each other. The launcher knows it, too.
constexpr int CHUNK = WARPS * ROUNDS * 32;

// --- what is sorted ------------------------------------------------------------------------------

// keys[i]: the place of contribution i in [outer, rows, inner], where i is a place in [outer, m, inner]
// and index[i] its row; an index beyond the rows counts on from the other end, as CuPy has it.
template <typename Index>
__device__ __forceinline__ void places(const Index* index, index_t* keys, index_t n, index_t m,
                                       index_t rows, index_t inner) {
  for (index_t i = thread_number(); i < n; i += thread_count()) {
    index_t row = index_t(index[i]) % rows;
    if (row < 0) row += rows;
    keys[i] = (i / (m * inner) * rows + row) * inner + i % inner;
  }
}

#define SORT_KEYS(bits, Index)                                                                     \
extern "C" __global__ void __launch_bounds__(256, 1)                                               \
sort_keys_##bits(const Index* index, index_t* keys, index_t n, index_t m, index_t rows,            \
                 index_t inner) {                                                                  \
  places(index, keys, n, m, rows, inner);                                                          \
}

SORT_KEYS(64, index_t)
SORT_KEYS(32, int)

// --- passes --------------------------------------------------------------------------------------

// The lanes whose digit is that of this one; all lanes of a warp have to ask.
__device__ __forceinline__ uint32 alike(uint32 digit, bool live) {
  uint32 same = __ballot_sync(WHOLE_WARP, live);
#pragma unroll
  for (int bit = 0; bit < 8; ++bit) {
    const bool set = digit >> bit & 1;
    const uint32 with = __ballot_sync(WHOLE_WARP, set);
    same &= set ? with : ~with;
  }
  return same;
}

// The numbers of a thread, of one chunk: in round k the lanes of a warp have neighbours.
struct Some {
  index_t key[ROUNDS], first, n;

  __device__ __forceinline__ Some(const index_t* keys, index_t chunk, index_t n)
      : first(chunk * CHUNK + threadIdx.x / 32 * (ROUNDS * 32) + threadIdx.x % 32), n(n) {
#pragma unroll
    for (int k = 0; k < ROUNDS; ++k) key[k] = live(k) ? keys[at(k)] : 0;
  }
  __device__ __forceinline__ index_t at(int k) const { return first + k * 32; }
  __device__ __forceinline__ bool live(int k) const { return at(k) < n; }
  __device__ __forceinline__ uint32 digit(int k, int shift) const {
    return uint32(key[k] >> shift) & (DIGITS - 1);
  }
};

// How many of a warp's numbers have each digit. The lowest of the lanes that have one counts for all.
__device__ __forceinline__ void count(const Some& some, int shift, uint32* seen) {
#pragma unroll
  for (int k = 0; k < ROUNDS; ++k) {
    const uint32 digit = some.digit(k, shift), same = alike(digit, some.live(k));
    const uint32 below = (1u << threadIdx.x % 32) - 1;
    if (some.live(k) && !(same & below)) seen[digit] += __popc(same);
    __syncwarp();
  }
}

__device__ __forceinline__ void count_chunk(const Some& some, int shift,
                                            uint32 (*seen)[DIGITS]) {
#pragma unroll
  for (int w = 0; w < WARPS; ++w) seen[w][threadIdx.x] = 0;
  __syncthreads();
  count(some, shift, seen[threadIdx.x / 32]);
  __syncthreads();
}

// counts: [DIGITS, chunks].
extern "C" __global__ void __launch_bounds__(256, 1)
sort_count(const index_t* keys, uint32* counts, index_t n, index_t chunks, int shift) {
  __shared__ uint32 seen[WARPS][DIGITS];
  for (index_t c = blockIdx.x; c < chunks; c += gridDim.x) {
    count_chunk(Some(keys, c, n), shift, seen);
    uint32 sum = 0;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) sum += seen[w][threadIdx.x];
    counts[threadIdx.x * chunks + c] = sum;
  }
}

// The sum of the values of the threads before this one, and of all threads of the block.
__device__ __forceinline__ uint32 sum_before(uint32 value, uint32& total) {
  __shared__ uint32 sums[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint32 sum = value;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const uint32 other = __shfl_up_sync(WHOLE_WARP, sum, step);
    if (lane >= step) sum += other;
  }
  if (lane == 31) sums[warp] = sum;
  __syncthreads();
  uint32 before = 0;
  total = 0;
  for (int w = 0; w < blockDim.x / 32; ++w) {
    if (w < warp) before += sums[w];
    total += sums[w];
  }
  __syncthreads();  // before the next sums take the place of these
  return before + sum - value;
}

// Each of the n counts becomes the sum of those before it. One block.
extern "C" __global__ void __launch_bounds__(1024, 1) sort_offsets(uint32* counts, index_t n) {
  uint32 carry = 0;
  for (index_t base = 0; base < n; base += blockDim.x) {
    const index_t i = base + threadIdx.x;
    uint32 total;
    const uint32 before = sum_before(i < n ? counts[i] : 0, total);
    if (i < n) counts[i] = carry + before;
    carry += total;
  }
}

// values: which contribution each key belongs to; in the first pass (`plain`) its own number.
extern "C" __global__ void __launch_bounds__(256, 1)
sort_place(const index_t* keys, const index_t* values, index_t* sorted_keys, index_t* sorted_values,
           const uint32* offsets, index_t n, index_t chunks, int shift, int plain) {
  __shared__ uint32 seen[WARPS][DIGITS];
  uint32* const mine = seen[threadIdx.x / 32];
  const uint32 below = (1u << threadIdx.x % 32) - 1;
  for (index_t c = blockIdx.x; c < chunks; c += gridDim.x) {
    const Some some(keys, c, n);
    count_chunk(some, shift, seen);
    uint32 next = offsets[threadIdx.x * chunks + c];
#pragma unroll
    for (int w = 0; w < WARPS; ++w) {
      const uint32 counted = seen[w][threadIdx.x];
      seen[w][threadIdx.x] = next;
      next += counted;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < ROUNDS; ++k) {
      const uint32 digit = some.digit(k, shift), same = alike(digit, some.live(k));
      const uint32 to = mine[digit] + __popc(same & below);
      __syncwarp();
      if (some.live(k)) {
        if (!(same & below)) mine[digit] += __popc(same);
        sorted_keys[to] = some.key[k];
        sorted_values[to] = plain ? some.at(k) : values[some.at(k)];
      }
      __syncwarp();
    }
    __syncthreads();  // before the next chunk is counted
  }
}
