// Threads laid out on a matrix, for kernels that walk down its columns.
#pragma once

// Where a thread works: `across` threads of a block lie along a row, and the others of the block on
// the rows below. Blocks are numbered tile by tile along a row, strip by strip downwards.
struct Place {
  index_t column, row, step;

  __device__ __forceinline__ Place(int width, int across, index_t tiles) {
    const int down = blockDim.x / across;
    column = ((blockIdx.x % tiles) * across + threadIdx.x % across) * width;
    row = (blockIdx.x / tiles) * down + threadIdx.x / across;
    step = (gridDim.x / tiles) * down;
  }
};
