// The gradient for the weights of convolutions with windows of 3 x 3 that lie side by side.
//
// A block has the sums for 64 channels of the result and some of the input, and a warp those of three
// taps in a line. It goes through a part of the tiles of positions; what all blocks give is added up
// later. 16-bit floats are multiplied by tensor cores (tiles.cuh).
#include "common.cuh"
#include "patches.cuh"
#include "tiles.cuh"

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

extern "C" __global__ void __launch_bounds__(96, 2)
convolution_3x3_weight(const T* g, const T* x, A* partial, int packed_in, int packed_out,
                       index_t examples, index_t channels, index_t outputs, index_t height,
                       index_t width, index_t rows, index_t columns, index_t above, index_t before,
                       index_t parts) {
  const Problem a = {examples, int(channels), int(outputs), int(height), int(width), int(rows),
                     int(columns), int(above), int(before), packed_in != 0, packed_out != 0};
  weight(a, g, x, partial, parts);
}
