// Rows taken by index, and the reverse: rows added up where their index says, in a fixed order.
//
// An addition at each index by atomic operations would give other bits in every run, and be slow
// where many indices agree. Here the contributions come sorted by destination (a stable sort, so
// that equal destinations keep their order). A block has a chunk of them, and a thread a piece of
// PIECE, of which it adds up a few columns run by run. A run within a piece is done with that. The
// first and the last run of a piece may go on in its neighbours: their sums are joined in shared
// memory, and those of the first and the last run of a chunk by a second stage. So no thread adds up
// many numbers one after another, however long a run is.
#include "common.cuh"
#include "place.cuh"

// Contributions to a thread; the launcher knows it, too.
constexpr int PIECE = 8;

// --- taking --------------------------------------------------------------------------------------

// out[i] = x[index[i]]; an index beyond the rows counts on from the other end, as CuPy has it.
template <typename Index>
__device__ __forceinline__ void take(const T* __restrict__ x, const Index* __restrict__ index,
                                     T* __restrict__ out, index_t n, index_t rows,
                                     index_t columns, int across, index_t tiles, bool packed) {
  constexpr int size = Pack<T>::size;
  const Place at(packed ? size : 1, across, tiles);
  if (at.column >= columns) return;
#pragma unroll 4
  for (index_t i = at.row; i < n; i += at.step) {
    index_t row = index_t(index[i]) % rows;
    if (row < 0) row += rows;
    const index_t from = row * columns + at.column, to = i * columns + at.column;
    if (packed)
      *reinterpret_cast<Pack<T>*>(out + to) = *reinterpret_cast<const Pack<T>*>(x + from);
    else
      out[to] = x[from];
  }
}

#define TAKE_ROWS(bits, Index)                                                                     \
extern "C" __global__ void __launch_bounds__(256, 1)                                               \
take_rows_##bits(const T* x, const Index* index, T* out, index_t n, index_t rows, index_t columns, \
                 int across, index_t tiles, int packed) {                                          \
  take(x, index, out, n, rows, columns, across, tiles, packed != 0);                               \
}

TAKE_ROWS(64, index_t)
TAKE_ROWS(32, int)

// --- adding --------------------------------------------------------------------------------------

// `width` neighbouring numbers of a row: a pack, or one.
template <int width>
struct Some {
  A at[width];

  __device__ __forceinline__ Some() {
#pragma unroll
    for (int k = 0; k < width; ++k) at[k] = A(0);
  }
  __device__ __forceinline__ void add(const A* other) {
#pragma unroll
    for (int k = 0; k < width; ++k) at[k] += other[k];
  }
  __device__ __forceinline__ void put(A* to) const {
#pragma unroll
    for (int k = 0; k < width; ++k) to[k] = at[k];
  }
};

// The same as it lies in memory.
template <int width>
struct alignas(width * sizeof(T)) Raw {
  T at[width];
};

template <int width>
__device__ __forceinline__ void store(T* to, const Some<width>& sum) {
  if constexpr (width > 1) {
    Pack<T> out;
#pragma unroll
    for (int k = 0; k < width; ++k) out.at[k] = narrow<T>(sum.at[k]);
    store_pack(to, out);
  } else {
    *to = narrow<T>(sum.at[0]);
  }
}

// Sums that are kept aside; columns are a multiple of `width`.
template <int width>
__device__ __forceinline__ void store_aside(A* to, const Some<width>& sum) {
  if constexpr (width > 1) {
#pragma unroll
    for (int k = 0; k < width; k += Pack<A>::size) {
      Pack<A> out;
#pragma unroll
      for (int j = 0; j < Pack<A>::size; ++j) out.at[j] = sum.at[k + j];
      store_pack(to + k, out);
    }
  } else {
    *to = sum.at[0];
  }
}

// What a kernel works on: sorted[i] is the destination of contribution order[i], y has the rows that
// these go to, first and last are [chunks, columns].
struct Contributions {
  const T* g;
  const index_t *order, *sorted;
  T* y;
  A *first, *last;
  index_t n, columns, chunk;

  __device__ __forceinline__ index_t chunks() const { return (n + chunk - 1) / chunk; }
  __device__ __forceinline__ index_t end_of(index_t c) const {
    return (c + 1) * chunk < n ? (c + 1) * chunk : n;
  }
};

// Where a thread works: on which columns, and in which row of threads.
template <int width>
struct Spot {
  index_t column;
  int across, mine, down;

  __device__ __forceinline__ Spot(int across, index_t tiles)
      : column((blockIdx.x % tiles * across + threadIdx.x % across) * width),
        across(across),
        mine(threadIdx.x / across),
        down(blockDim.x / across) {}
};

// The runs of one piece, [begin, end). Sums of the first and the last one (of several) go to head
// and tail, of others to y.
template <int width>
__device__ __forceinline__ void add_piece(const Contributions& of, index_t column, index_t begin,
                                          index_t end, A* head, A* tail) {
  Raw<width> held[PIECE];
  index_t to[PIECE];
#pragma unroll
  for (int k = 0; k < PIECE; ++k) {  // all loads before the first sum
    const index_t i = begin + k < end ? begin + k : end - 1;
    to[k] = of.sorted[i];
    held[k] = *reinterpret_cast<const Raw<width>*>(of.g + of.order[i] * of.columns + column);
  }
  Some<width> sum;
  bool in_first = true;
#pragma unroll
  for (int k = 0; k < PIECE; ++k) {
    if (begin + k >= end) break;
    if (k > 0 && to[k] != to[k - 1]) {
      if (in_first)
        sum.put(head);
      else
        store(of.y + to[k - 1] * of.columns + column, sum);
      in_first = false;
      sum = Some<width>();
    }
#pragma unroll
    for (int j = 0; j < width; ++j) sum.at[j] += widen(held[k].at[j]);
  }
  sum.put(in_first ? head : tail);
}

// Joins the runs that begin in a piece of chunk c and reach its edge, as far as the chunk goes. What
// reaches the edge of the chunk is kept aside.
template <int width>
__device__ __forceinline__ void join_within(const Contributions& of, index_t c, Spot<width> at,
                                            index_t begin, index_t end, const A (*heads)[width],
                                            const A (*tails)[width]) {
  const index_t stop = of.end_of(c), aside = c * of.columns + at.column;
  const index_t head = of.sorted[begin], tail = of.sorted[end - 1];
  const bool begins = at.mine == 0 || of.sorted[begin - 1] != head;
  int piece = threadIdx.x;
  if (begins && head != tail) {
    Some<width> sum;
    sum.add(heads[piece]);
    if (at.mine == 0)
      store_aside(of.first + aside, sum);
    else
      store(of.y + head * of.columns + at.column, sum);
  }
  if (!begins && head == tail) return;  // a part in the middle of a longer run
  Some<width> sum;
  sum.add(head == tail ? heads[piece] : tails[piece]);
  for (index_t next = end; next < stop && of.sorted[next] == tail; next += PIECE) {
    piece += at.across;
    sum.add(heads[piece]);
  }
  if (at.mine == 0 && head == tail)
    store_aside(of.first + aside, sum);
  else if (of.sorted[stop - 1] == tail)
    store_aside(of.last + aside, sum);
  else
    store(of.y + tail * of.columns + at.column, sum);
}

template <int width>
__device__ __forceinline__ void add_chunks(const Contributions& of, Spot<width> at,
                                           index_t tiles) {
  __shared__ A heads[256][width], tails[256][width];
  for (index_t c = blockIdx.x / tiles; c < of.chunks(); c += gridDim.x / tiles) {
    const index_t begin = c * of.chunk + at.mine * PIECE, stop = of.end_of(c);
    const index_t end = begin + PIECE < stop ? begin + PIECE : stop;
    const bool live = at.column < of.columns && begin < stop;
    if (live) add_piece<width>(of, at.column, begin, end, heads[threadIdx.x], tails[threadIdx.x]);
    __syncthreads();
    if (live) join_within<width>(of, c, at, begin, end, heads, tails);
    __syncthreads();  // before the next chunk's sums take the place of these
  }
}

// Joins what was kept aside: each run that reaches the edge of a chunk, where it begins. Rows of
// threads share the chunks that it goes through.
template <int width>
__device__ __forceinline__ void join_chunks(const Contributions& of, Spot<width> at,
                                            index_t tiles) {
  __shared__ A parts[512][width];
  const bool inside = at.column < of.columns;
  for (index_t c = blockIdx.x / tiles; c < of.chunks(); c += gridDim.x / tiles) {
    const index_t begin = c * of.chunk;
    const index_t head = of.sorted[begin], tail = of.sorted[of.end_of(c) - 1];
    const bool begins = c == 0 || of.sorted[begin - 1] != head;
    const bool writes = inside && at.mine == 0;
    if (writes && begins && head != tail) {
      Some<width> sum;
      sum.add(of.first + c * of.columns + at.column);
      store(of.y + head * of.columns + at.column, sum);
    }
    if (!begins && head == tail) continue;
    index_t low = c, high = of.chunks() - 1;  // the last chunk that begins with this run
    while (low < high) {
      const index_t middle = (low + high + 1) / 2;
      if (of.sorted[middle * of.chunk] == tail)
        low = middle;
      else
        high = middle - 1;
    }
    Some<width> sum;
    if (inside)
      for (index_t q = c + 1 + at.mine; q <= low; q += at.down)
        sum.add(of.first + q * of.columns + at.column);
    sum.put(parts[threadIdx.x]);
    __syncthreads();
    if (writes) {
      Some<width> total;
      total.add((head == tail ? of.first : of.last) + c * of.columns + at.column);
      for (int r = 0; r < at.down; ++r) total.add(parts[threadIdx.x + r * at.across]);
      store(of.y + tail * of.columns + at.column, total);
    }
    __syncthreads();  // before the next run's sums take the place of these
  }
}

extern "C" __global__ void __launch_bounds__(256, 1)
add_rows(const T* g, const index_t* order, const index_t* sorted, T* y, A* first, A* last,
         index_t n, index_t columns, index_t chunk, int across, index_t tiles, int packed) {
  const Contributions of = {g, order, sorted, y, first, last, n, columns, chunk};
  if (packed)
    add_chunks<Pack<T>::size>(of, {across, tiles}, tiles);
  else
    add_chunks<1>(of, {across, tiles}, tiles);
}

extern "C" __global__ void __launch_bounds__(512, 1)
join_rows(const index_t* sorted, T* y, A* first, A* last, index_t n, index_t columns,
          index_t chunk, int across, index_t tiles, int packed) {
  const Contributions of = {nullptr, nullptr, sorted, y, first, last, n, columns, chunk};
  if (packed)
    join_chunks<Pack<T>::size>(of, {across, tiles}, tiles);
  else
    join_chunks<1>(of, {across, tiles}, tiles);
}
