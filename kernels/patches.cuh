// Patches of arrays that windows of 3 x 3 see which lie side by side, in shared memory: what
// convolutions without columns are made of.
//
// There is nothing for float64, which would take twice the registers and shared memory.
#pragma once
#include "common.cuh"
#include "tiles.cuh"

constexpr int HIGH = 8, WIDE = 16, PIXELS = HIGH * WIDE;  // of a tile; the launcher knows them, too
[[maybe_unused]] constexpr int OUTPUTS = 64, TAPS = 9;
constexpr int LINES = HIGH + 2;        // of a patch
constexpr int DEPTH = 32 / sizeof(T);  // channels that are in shared memory at a time

// An array [examples, channels, height, width] is read; the result has `outputs` channels of `rows`
// times `columns` positions. Windows begin `above` and `before` the first element.
struct Problem {
  index_t examples;
  int channels, outputs, height, width, rows, columns, above, before;
  bool packed_in, packed_out;
};

// A tile of positions, and the first of its channels.
struct Tile {
  index_t example;
  int row, column, output;
};

__device__ __forceinline__ int tiles_across(const Problem& a) {
  return (a.columns + WIDE - 1) / WIDE;
}
__device__ __forceinline__ int tiles_down(const Problem& a) { return (a.rows + HIGH - 1) / HIGH; }
__device__ __forceinline__ int tiles_of_outputs(const Problem& a) {
  return (a.outputs + OUTPUTS - 1) / OUTPUTS;
}
__device__ __forceinline__ index_t tiles_of_positions(const Problem& a) {
  return a.examples * tiles_down(a) * tiles_across(a);
}

// Tile number `item` of the positions.
__device__ __forceinline__ Tile tile_of(const Problem& a, index_t item, int output) {
  const int across = tiles_across(a), down = tiles_down(a);
  const int column = int(item % across) * WIDE;
  item /= across;
  return {item / down, int(item % down) * HIGH, column, output};
}

__device__ __forceinline__ bool inside(int i, int size) { return uint32(i) < uint32(size); }

// --- patches -------------------------------------------------------------------------------------

// What a tile sees of DEPTH channels, in eight groups: of 16-bit floats pairs, so that the channels of
// a pixel lie side by side, as tensor cores want them; else single ones, each with its lines. The
// halves of a pixel's channels change places after each four pixels, so that those of eight pixels lie
// in different banks.
template <typename E, bool CORES = sizeof(E) == 2>
struct Patch {
  static constexpr int EACH = 2, LINE = WIDE + 2, SIZE = LINES * LINE * DEPTH;

  static __device__ __forceinline__ void put(E* patch, int line, int j, int group,
                                             const E (&v)[EACH]) {
    const uint32 pair = uint32(v[0].bits) | uint32(v[1].bits) << 16;
    memcpy(patch + place(line * LINE + j, 2 * group), &pair, 4);
  }
  static __device__ __forceinline__ int place(int pixel, int channel) {
    return pixel * DEPTH + (channel ^ (pixel >> 2 & 1) << 3);
  }
};

template <typename E>
struct Patch<E, false> {
  static constexpr int EACH = 1, LINE = WIDE + 4, SIZE = DEPTH * LINES * LINE;

  static __device__ __forceinline__ void put(E* patch, int line, int j, int group,
                                             const E (&v)[EACH]) {
    patch[(group * LINES + line) * LINE + j] = v[0];
  }
};

// `width` neighbouring pixels of a group of channels, of which the first is at j of a line; zeros
// outside. Either all are inside or none is.
template <int width, typename E>
__device__ __forceinline__ void read_pixels(const Problem& a, const Tile& t, const E* x, E* patch,
                                            int channel, int line, int j, int group) {
  using P = Patch<E>;
  struct alignas(width * sizeof(E)) Pixels {
    E at[width];
  };
  const int row = t.row - a.above + line, column = t.column - a.before + j;
  Pixels in[P::EACH] = {};
  if (inside(row, a.height) && inside(column, a.width)) {
#pragma unroll
    for (int c = 0; c < P::EACH; ++c) {
      const int from = channel + group * P::EACH + c;
      if (from < a.channels)
        in[c] = *reinterpret_cast<const Pixels*>(
            x + ((t.example * a.channels + from) * a.height + row) * a.width + column);
    }
  }
#pragma unroll
  for (int k = 0; k < width; ++k) {
    E v[P::EACH];
#pragma unroll
    for (int c = 0; c < P::EACH; ++c) v[c] = in[c].at[k];
    P::put(patch, line, j + k, group, v);
  }
}

// The patch of the channels from `channel` on. Four pixels at a time, where they lie so: those that
// the tile itself covers, and then the one or two on its sides.
template <int THREADS, typename E>
__device__ __forceinline__ void read_patch(const Problem& a, const Tile& t, const E* x, E* patch,
                                           int channel) {
  if (a.packed_in) {
#pragma unroll 1
    for (int i = threadIdx.x; i < 8 * LINES * (WIDE / 4); i += THREADS)
      read_pixels<4>(a, t, x, patch, channel, i >> 5, a.before + 4 * (i & 3), i >> 2 & 7);
#pragma unroll 1
    for (int i = threadIdx.x; i < 8 * LINES * 2; i += THREADS)
      read_pixels<1>(a, t, x, patch, channel, i >> 4, (i & 1) + ((i & 1) < a.before ? 0 : WIDE),
                     i >> 1 & 7);
  } else {
#pragma unroll 1
    for (int i = threadIdx.x; i < 8 * LINES * (WIDE + 2); i += THREADS)
      read_pixels<1>(a, t, x, patch, channel, i / (8 * (WIDE + 2)), i % (WIDE + 2),
                     i / (WIDE + 2) % 8);
  }
}
