// Convolutions with windows of 3 x 3 that lie side by side, without columns.
//
// A block has a tile of the result, 64 channels of 8 x 16 positions, and goes through the channels of
// the input: the weights of some of them and the patch of the input that the tile sees are in shared
// memory, sums in registers, as float32. 16-bit floats are multiplied by tensor cores (tiles.cuh).
//
// Weights come as an image of what blocks have in shared memory, made once for a launch: so they are
// copied 16 bytes at a time. The gradient for the input is a convolution, too: of the result's
// gradient, with taps in the other direction and channels that have changed places.
#include "common.cuh"
#include "patches.cuh"
#include "tiles.cuh"

[[maybe_unused]] constexpr int BLOCK = 128;    // threads
constexpr int STAGE = TAPS * OUTPUTS * DEPTH;  // weights that are in shared memory at a time

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
