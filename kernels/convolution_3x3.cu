// Convolutions with windows of 3 x 3 that lie side by side, without columns.
//
// A block has a tile of the result, 64 channels of 8 x 16 positions, and goes through the channels of
// the input: the weights of some of them and the patch of the input that the tile sees are in shared
// memory, sums in registers, as float32. 16-bit floats are multiplied by tensor cores (tiles.cuh).
//
// Weights come as an image of what blocks have in shared memory, made once for a launch: so they are
// copied 16 bytes at a time. The gradient for the input is a convolution, too: of the result's
// gradient, with taps in the other direction and channels that have changed places.
//
// There is nothing for float64, which would take twice the registers and shared memory.
#include "common.cuh"
#include "tiles.cuh"

constexpr int HIGH = 8, WIDE = 16, PIXELS = HIGH * WIDE;  // of a tile; the launcher knows them, too
constexpr int OUTPUTS = 64, TAPS = 9;
[[maybe_unused]] constexpr int BLOCK = 128;    // threads
constexpr int LINES = HIGH + 2;                // of a patch
constexpr int DEPTH = 32 / sizeof(T);          // channels that are in shared memory at a time
constexpr int STAGE = TAPS * OUTPUTS * DEPTH;  // their weights

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

// --- sums of a tile ------------------------------------------------------------------------------

// On tensor cores: a warp has two lines of 16 positions, of all channels of the tile.
template <typename E, bool CORES = sizeof(E) == 2>
struct TileSums {
  static constexpr int STEP = PIXELS + 8;  // of a channel in shared memory, when all is done
  float at[OUTPUTS / 16][4][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int m = 0; m < OUTPUTS / 16; ++m)
#pragma unroll
      for (int k = 0; k < 16; ++k) at[m][k >> 2][k & 3] = 0;
  }

  // Adds the products of weights and patch. Lane 4 g + t has the channels 4 t to 4 t + 3 of both
  // factors: what is summed over may have any order.
  __device__ __forceinline__ void add(const E* weights, const E* patch) {
    const int lane = lane_number(), g = lane >> 2, t = lane & 3;
#pragma unroll 1
    for (int tap = 0; tap < TAPS; ++tap) {
      uint32 b[4][2];
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int line = 2 * warp_number() + (n >> 1) + tap / 3;
        const int pixel = line * Patch<E>::LINE + 8 * (n & 1) + g + tap % 3;
        memcpy(b[n], patch + Patch<E>::place(pixel, 4 * t), 8);
      }
#pragma unroll
      for (int m = 0; m < OUTPUTS / 16; ++m) {
        uint32 low[2], high[2];
        const E* row = weights + (tap * OUTPUTS + 16 * m + g) * DEPTH + 4 * t;
        memcpy(low, row, 8);
        memcpy(high, row + 8 * DEPTH, 8);
        const uint32 factor[4] = {low[0], high[0], low[1], high[1]};
#pragma unroll
        for (int n = 0; n < 4; ++n) multiply<E, BLOCK / 32>(at[m][n], factor, b[n][0], b[n][1]);
      }
    }
  }

  // Writes them, plus the bias, by way of shared memory.
  __device__ __forceinline__ void write(const Problem& a, const Tile& t, const E* bias, E* y,
                                        E* memory) const {
    const int lane = lane_number(), g = lane >> 2, column = 2 * (lane & 3);
    __syncthreads();
#pragma unroll
    for (int m = 0; m < OUTPUTS / 16; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int own = 16 * m + g + 8 * half, channel = t.output + own;
        const float more = bias && channel < a.outputs ? widen(bias[channel]) : 0.0f;
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          const int pixel = (2 * warp_number() + (n >> 1)) * WIDE + 8 * (n & 1) + column;
          const uint32 pair =
              both<E>(at[m][n][2 * half] + more, at[m][n][2 * half + 1] + more);
          memcpy(memory + own * STEP + pixel, &pair, 4);
        }
      }
    __syncthreads();
    constexpr int width = 4;
#pragma unroll 1
    for (int i = threadIdx.x; i < OUTPUTS * PIXELS / width; i += BLOCK) {
      const int own = i / (PIXELS / width), pixel = i % (PIXELS / width) * width;
      const int row = t.row + pixel / WIDE, from = t.column + pixel % WIDE;
      if (t.output + own >= a.outputs || row >= a.rows || from >= a.columns) continue;
      E* to = y + ((t.example * a.outputs + t.output + own) * a.rows + row) * a.columns + from;
      uint32 word[2];
      memcpy(word, memory + own * STEP + pixel, 8);
      put(to, word, a.packed_out ? width : a.columns - from);
    }
  }

  // Four elements, of which `there` are.
  static __device__ __forceinline__ void put(E* to, const uint32 (&word)[2], int there) {
    if (there >= 4 && (uint64(to) & 7u) == 0) {
#ifdef __CUDACC__
      asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(word[0]), "r"(word[1])
                   : "memory");
#else
      memcpy(to, word, 8);
#endif
      return;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (k < there) to[k].bits = (unsigned short)(word[k >> 1] >> 16 * (k & 1));
  }
};

// By additions: a thread has 8 positions of a line, of 8 channels.
template <typename E>
struct TileSums<E, false> {
  float at[8][8];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int o = 0; o < 8; ++o)
#pragma unroll
      for (int k = 0; k < 8; ++k) at[o][k] = 0;
  }

  // So that eight lanes that read together read lines in different banks.
  static __device__ __forceinline__ int line() { return threadIdx.x & 7; }
  static __device__ __forceinline__ int column() { return threadIdx.x & 8; }
  static __device__ __forceinline__ int output() { return threadIdx.x >> 4 << 3; }

  __device__ __forceinline__ void add(const E* weights, const E* patch) {
#pragma unroll 1
    for (int c = 0; c < DEPTH; ++c)
#pragma unroll 1
      for (int h = 0; h < 3; ++h) {
        Pack<float> x[3];
        const E* from = patch + (c * LINES + line() + h) * Patch<E>::LINE + column();
#pragma unroll
        for (int k = 0; k < 3; ++k) x[k] = reinterpret_cast<const Pack<float>*>(from)[k];
#pragma unroll
        for (int w = 0; w < 3; ++w) {
          const E* row = weights + (c * TAPS + 3 * h + w) * OUTPUTS + output();
#pragma unroll
          for (int o = 0; o < 8; o += 4) {
            const Pack<float> f = *reinterpret_cast<const Pack<float>*>(row + o);
#pragma unroll
            for (int j = 0; j < 4; ++j)
#pragma unroll
              for (int k = 0; k < 8; ++k)
                at[o + j][k] += f.at[j] * x[(k + w) >> 2].at[(k + w) & 3];
          }
        }
      }
  }

  __device__ __forceinline__ void write(const Problem& a, const Tile& t, const E* bias, E* y,
                                        E*) const {
    const int row = t.row + line(), from = t.column + column();
    if (row >= a.rows || from >= a.columns) return;
#pragma unroll
    for (int o = 0; o < 8; ++o) {
      const int channel = t.output + output() + o;
      if (channel >= a.outputs) continue;
      const float more = bias ? bias[channel] : 0.0f;
      E* to = y + ((t.example * a.outputs + channel) * a.rows + row) * a.columns + from;
#pragma unroll
      for (int k = 0; k < 8; k += 4) {
        Pack<float> out;
#pragma unroll
        for (int j = 0; j < 4; ++j) out.at[j] = at[o][k + j] + more;
        put(to + k, out, a.columns - from - k, a.packed_out);
      }
    }
  }

  // Four elements, of which `there` are.
  static __device__ __forceinline__ void put(E* to, const Pack<float>& out, int there,
                                             bool packed) {
    if (packed) {
      if (there > 0) store_pack(to, out);
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k)
        if (k < there) to[k] = out.at[k];
    }
  }
};

// --- the value -----------------------------------------------------------------------------------

__device__ __forceinline__ void value(const Problem&, const double*, const double*, const double*,
                                      double*) {}

template <typename E>
__device__ __forceinline__ void value(const Problem& a, const E* x, const E* image, const E* bias,
                                      E* y) {
  __shared__ __align__(16) E weights[STAGE];
  __shared__ __align__(16) E patch[Patch<E>::SIZE];
  const int stages = (a.channels + DEPTH - 1) / DEPTH;
  const int outputs = tiles_of_outputs(a);
  const index_t items = tiles_of_positions(a) * outputs;
  for (index_t item = blockIdx.x; item < items; item += gridDim.x) {
    const Tile t = tile_of(a, item / outputs, int(item % outputs) * OUTPUTS);
    TileSums<E> sums;
    sums.clear();
#pragma unroll 1
    for (int stage = 0; stage < stages; ++stage) {
      constexpr int per = Pack<E>::size;
      const E* from = image + (index_t(t.output / OUTPUTS) * stages + stage) * STAGE;
      __syncthreads();  // the last stage, or the last tile, may still be being read
#pragma unroll 3
      for (int i = threadIdx.x * per; i < STAGE; i += BLOCK * per)
        *reinterpret_cast<Pack<E>*>(weights + i) = *reinterpret_cast<const Pack<E>*>(from + i);
      read_patch<BLOCK>(a, t, x, patch, stage * DEPTH);
      __syncthreads();
      sums.add(weights, patch);
    }
    sums.write(a, t, bias, y, weights);
  }
}

// Element i of the image: its tap, and its channels in a tile and in a stage.
struct Place {
  int tap, output, channel;

  __device__ __forceinline__ explicit Place(int i) {
    if constexpr (sizeof(T) == 2) {
      channel = i % DEPTH;
      output = i / DEPTH % OUTPUTS;
      tap = i / DEPTH / OUTPUTS;
    } else {
      output = i % OUTPUTS;
      tap = i / OUTPUTS % TAPS;
      channel = i / OUTPUTS / TAPS;
    }
  }
};

// --- the gradient for the weights ------------------------------------------------------------------

// A block has the sums for 64 channels of the result and DEPTH of the input, and a warp those of three
// taps in a line. It goes through some of the tiles of positions; what all give is added up later.
[[maybe_unused]] constexpr int WARPS = 3;

// What is summed over lies side by side: positions of the result's gradient, as [outputs][STEP].
template <typename E>
struct Gradients {
  static constexpr int STEP = PIXELS + 16 / int(sizeof(E)), SIZE = OUTPUTS * STEP;
};

// `width` positions of a line; zeros outside.
template <int width, typename E>
__device__ __forceinline__ void read_gradients(const Problem& a, const Tile& t, const E* g, E* to,
                                               int i) {
  struct alignas(width * sizeof(E)) Some {
    E at[width];
  };
  const int own = i / (PIXELS / width), pixel = i % (PIXELS / width) * width;
  const int row = t.row + pixel / WIDE, column = t.column + pixel % WIDE;
  Some in = {};
  if (t.output + own < a.outputs && row < a.rows && column < a.columns)
    in = *reinterpret_cast<const Some*>(
        g + ((t.example * a.outputs + t.output + own) * a.rows + row) * a.columns + column);
  *reinterpret_cast<Some*>(to + own * Gradients<E>::STEP + pixel) = in;
}

template <typename E>
__device__ __forceinline__ void read_gradients(const Problem& a, const Tile& t, const E* g, E* to) {
  if (a.packed_out) {
#pragma unroll 4
    for (int i = threadIdx.x; i < OUTPUTS * PIXELS / 4; i += 32 * WARPS)
      read_gradients<4>(a, t, g, to, i);
  } else {
#pragma unroll 4
    for (int i = threadIdx.x; i < OUTPUTS * PIXELS; i += 32 * WARPS)
      read_gradients<1>(a, t, g, to, i);
  }
}

// Four matrices of 8 x 8, of which `at(matrix, row)` gives the rows. Lane 4 g + t gets the elements 2 t
// and the next of row g, or if they are turned, those of column g.
template <bool TURNED, typename At>
__device__ __forceinline__ void read_matrices(uint32 (&r)[4], At at) {
  const int lane = lane_number();
#ifdef __CUDACC__
  const uint32 from = uint32(__cvta_generic_to_shared(at(lane >> 3, lane & 7)));
  if constexpr (TURNED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from) : "memory");
#else
  const int g = lane >> 2, t = lane & 3;
  for (int m = 0; m < 4; ++m) {
    const auto first = TURNED ? at(m, 2 * t)[g] : at(m, g)[2 * t];
    const auto second = TURNED ? at(m, 2 * t + 1)[g] : at(m, g)[2 * t + 1];
    r[m] = uint32(first.bits) | uint32(second.bits) << 16;
  }
#endif
}

// On tensor cores: a line of 16 positions at a time.
template <typename E, bool CORES = sizeof(E) == 2>
struct WeightSums {
  float at[3][OUTPUTS / 16][2][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int w = 0; w < 3; ++w)
#pragma unroll
      for (int m = 0; m < OUTPUTS / 16; ++m)
#pragma unroll
        for (int k = 0; k < 8; ++k) at[w][m][k >> 2][k & 3] = 0;
  }

  __device__ __forceinline__ void add(const E* gradients, const E* patch) {
#pragma unroll 1
    for (int line = 0; line < HIGH; ++line) {
      uint32 a[OUTPUTS / 16][4];
#pragma unroll
      for (int m = 0; m < OUTPUTS / 16; ++m)
        read_matrices<false>(a[m], [=](int matrix, int row) {
          return gradients + (16 * m + 8 * (matrix & 1) + row) * Gradients<E>::STEP + WIDE * line +
                 8 * (matrix >> 1);
        });
#pragma unroll
      for (int w = 0; w < 3; ++w) {
        uint32 b[4];
        const int first = (line + warp_number()) * Patch<E>::LINE + w;
        read_matrices<true>(b, [=](int matrix, int row) {
          return patch + Patch<E>::place(first + 8 * (matrix & 1) + row, 8 * (matrix >> 1));
        });
#pragma unroll
        for (int m = 0; m < OUTPUTS / 16; ++m) {
          multiply<E, WARPS>(at[w][m][0], a[m], b[0], b[1]);
          multiply<E, WARPS>(at[w][m][1], a[m], b[2], b[3]);
        }
      }
    }
  }

  // Calls work(output, channel, tap, sum) for all of them.
  template <typename Work>
  __device__ __forceinline__ void each(Work work) const {
    const int lane = lane_number(), g = lane >> 2, column = 2 * (lane & 3);
#pragma unroll
    for (int w = 0; w < 3; ++w)
#pragma unroll
      for (int m = 0; m < OUTPUTS / 16; ++m)
#pragma unroll
        for (int k = 0; k < 8; ++k)
          work(16 * m + g + 8 * (k >> 1 & 1), 8 * (k >> 2) + column + (k & 1),
               3 * warp_number() + w, at[w][m][k >> 2][k & 3]);
  }
};

// By additions: a thread has 8 channels of the result and 2 of the input.
template <typename E>
struct WeightSums<E, false> {
  float at[3][8][2];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int w = 0; w < 3; ++w)
#pragma unroll
      for (int k = 0; k < 16; ++k) at[w][k >> 1][k & 1] = 0;
  }

  // So that eight lanes that read together read gradients in different banks.
  static __device__ __forceinline__ int output(int o) { return (threadIdx.x & 7) + 8 * o; }
  static __device__ __forceinline__ int channel() { return lane_number() >> 3 << 1; }

  __device__ __forceinline__ void add(const E* gradients, const E* patch) {
#pragma unroll 1
    for (int pixel = 0; pixel < PIXELS; pixel += 4) {
      Pack<float> x[2][2];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int line = (channel() + c) * LINES + pixel / WIDE + warp_number();
        const E* from = patch + line * Patch<E>::LINE + pixel % WIDE;
#pragma unroll
        for (int k = 0; k < 2; ++k) x[c][k] = reinterpret_cast<const Pack<float>*>(from)[k];
      }
#pragma unroll
      for (int o = 0; o < 8; ++o) {
        const Pack<float> g = *reinterpret_cast<const Pack<float>*>(
            gradients + output(o) * Gradients<E>::STEP + pixel);
#pragma unroll
        for (int w = 0; w < 3; ++w)
#pragma unroll
          for (int c = 0; c < 2; ++c)
#pragma unroll
            for (int k = 0; k < 4; ++k)
              at[w][o][c] += g.at[k] * x[c][(k + w) >> 2].at[(k + w) & 3];
      }
    }
  }

  template <typename Work>
  __device__ __forceinline__ void each(Work work) const {
#pragma unroll
    for (int w = 0; w < 3; ++w)
#pragma unroll
      for (int k = 0; k < 16; ++k)
        work(output(k >> 1), channel() + (k & 1), 3 * warp_number() + w, at[w][k >> 1][k & 1]);
  }
};

__device__ __forceinline__ void weight(const Problem&, const double*, const double*, double*,
                                       index_t) {}

// partial: [parts, outputs, channels, 3, 3].
template <typename E>
__device__ __forceinline__ void weight(const Problem& a, const E* g, const E* x, float* partial,
                                       index_t parts) {
  __shared__ __align__(16) E gradients[Gradients<E>::SIZE];
  __shared__ __align__(16) E patch[Patch<E>::SIZE];
  const int stages = (a.channels + DEPTH - 1) / DEPTH, across = tiles_of_outputs(a) * stages;
  const index_t items = tiles_of_positions(a);
  for (index_t block = blockIdx.x; block < parts * across; block += gridDim.x) {
    const int mine = int(block % across), channel = mine % stages * DEPTH;
    const index_t part = block / across;
    WeightSums<E> sums;
    sums.clear();
#pragma unroll 1
    for (index_t item = part; item < items; item += parts) {
      const Tile t = tile_of(a, item, mine / stages * OUTPUTS);
      __syncthreads();  // the last tile may still be being read
      read_gradients(a, t, g, gradients);
      read_patch<32 * WARPS>(a, t, x, patch, channel);
      __syncthreads();
      sums.add(gradients, patch);
    }
    const int first = mine / stages * OUTPUTS;
    sums.each([=](int o, int c, int tap, float sum) {
      if (first + o < a.outputs && channel + c < a.channels)
        partial[((part * a.outputs + first + o) * a.channels + channel + c) * TAPS + tap] = sum;
    });
  }
}

// --- kernels -------------------------------------------------------------------------------------

// w: [outputs, channels, 3, 3], or if `turned`, [channels, outputs, 3, 3] with taps from the last on.
extern "C" __global__ void __launch_bounds__(256, 1)
weights_3x3(const T* w, T* image, int turned, index_t outputs, index_t channels) {
  constexpr int width = Pack<T>::size;
  const index_t stages = (channels + DEPTH - 1) / DEPTH;
  const index_t n = (outputs + OUTPUTS - 1) / OUTPUTS * stages * STAGE;
  for (index_t i = thread_number() * width; i < n; i += thread_count() * width) {
    const index_t stage = i / STAGE;
    Pack<T> out;
#pragma unroll
    for (int k = 0; k < width; ++k) {
      const Place at(int(i % STAGE) + k);
      const index_t o = stage / stages * OUTPUTS + at.output, c = stage % stages * DEPTH + at.channel;
      const index_t from = turned ? (c * outputs + o) * TAPS + (TAPS - 1 - at.tap)
                                  : (o * channels + c) * TAPS + at.tap;
      out.at[k] = o < outputs && c < channels ? w[from] : narrow<T>(A(0));
    }
    store_pack(image + i, out);
  }
}

extern "C" __global__ void __launch_bounds__(128, 3)
convolution_3x3(const T* x, const T* image, const T* bias, T* y, int has_bias, int packed_in,
                int packed_out, index_t examples, index_t channels, index_t outputs,
                index_t height, index_t width, index_t rows, index_t columns, index_t above,
                index_t before) {
  const Problem a = {examples, int(channels), int(outputs), int(height), int(width), int(rows),
                     int(columns), int(above), int(before), packed_in != 0, packed_out != 0};
  value(a, x, image, has_bias ? bias : nullptr, y);
}

extern "C" __global__ void __launch_bounds__(96, 2)
convolution_3x3_weight(const T* g, const T* x, A* partial, int packed_in, int packed_out,
                       index_t examples, index_t channels, index_t outputs, index_t height,
                       index_t width, index_t rows, index_t columns, index_t above, index_t before,
                       index_t parts) {
  const Problem a = {examples, int(channels), int(outputs), int(height), int(width), int(rows),
                     int(columns), int(above), int(before), packed_in != 0, packed_out != 0};
  weight(a, g, x, partial, parts);
}
