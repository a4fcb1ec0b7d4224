// Rows taken by index, and the reverse: rows added up where their index says, in a fixed order.
//
// An addition at each index by atomic operations would give other bits in every run, and be slow
// where many indices agree. Here the contributions come sorted by destination (a stable sort, so
// that equal destinations keep their order). They are cut into pieces of PIECE; a thread adds up a
// column of a piece run by run. A run within a piece is done with that. The first and the last run
// of a piece may go on in its neighbours: their sums are kept aside, and a second stage joins them.
#include "common.cuh"
#include "place.cuh"

// Contributions to a thread. A run of n of them is then joined from n / PIECE sums.
constexpr int PIECE = 128;

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

// The sums of the runs of each piece. sorted[i] is the destination of contribution order[i].
//
// A run that is neither the first nor the last of its piece goes to y; the sums of the first and the
// last (of several) go to first and last, [pieces, columns].
extern "C" __global__ void __launch_bounds__(256, 1)
add_pieces(const T* __restrict__ g, const index_t* __restrict__ order,
           const index_t* __restrict__ sorted, T* __restrict__ y, A* __restrict__ first,
           A* __restrict__ last, index_t n, index_t columns, int across, index_t tiles) {
  const Place at(1, across, tiles);
  if (at.column >= columns) return;
  const index_t pieces = (n + PIECE - 1) / PIECE;
  for (index_t piece = at.row; piece < pieces; piece += at.step) {
    const index_t begin = piece * PIECE, end = begin + PIECE < n ? begin + PIECE : n;
    index_t destination = sorted[begin];
    bool in_first = true;
    A sum = A(0);
    for (index_t i = begin; i < end; ++i) {
      const index_t next = sorted[i];
      if (next != destination) {
        if (in_first)
          first[piece * columns + at.column] = sum;
        else
          y[destination * columns + at.column] = narrow<T>(sum);
        in_first = false;
        destination = next;
        sum = A(0);
      }
      sum += widen(g[order[i] * columns + at.column]);
    }
    (in_first ? first : last)[piece * columns + at.column] = sum;
  }
}

// Joins what add_pieces kept aside: each run that reaches the edge of a piece, where it begins.
extern "C" __global__ void __launch_bounds__(256, 1)
join_pieces(const index_t* __restrict__ sorted, const A* __restrict__ first,
            const A* __restrict__ last, T* __restrict__ y, index_t n, index_t columns, int across,
            index_t tiles) {
  const Place at(1, across, tiles);
  if (at.column >= columns) return;
  const index_t pieces = (n + PIECE - 1) / PIECE;
  for (index_t piece = at.row; piece < pieces; piece += at.step) {
    const index_t begin = piece * PIECE, end = begin + PIECE < n ? begin + PIECE : n;
    const index_t head = sorted[begin], tail = sorted[end - 1];
    const bool begins = piece == 0 || sorted[begin - 1] != head;
    if (begins && head != tail)
      y[head * columns + at.column] = narrow<T>(first[piece * columns + at.column]);
    if (!begins && head == tail) continue;  // a part in the middle of a longer run
    A sum = (head == tail ? first : last)[piece * columns + at.column];
    for (index_t q = piece + 1; q < pieces && sorted[q * PIECE] == tail; ++q) {
      sum += first[q * columns + at.column];
      const index_t stop = (q + 1) * PIECE < n ? (q + 1) * PIECE : n;
      if (sorted[stop - 1] != tail) break;
    }
    y[tail * columns + at.column] = narrow<T>(sum);
  }
}
